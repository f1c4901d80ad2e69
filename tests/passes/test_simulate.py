"""The simulator: closed forms it must reproduce, contentions it must name, and its agreement with the schedule."""

from functools import partial
from itertools import pairwise

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.chip import Chip, load_chip
from cimc.errors import CimcError
from cimc.mapping import Mapping
from models.build import NETWORKS as SHIPPED
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.simulator.events import Clock, Server, join_services
from passes.simulator.simulate import Comparison, Simulation, compare, simulate
from tests.benchmarks.mapper.builder import Builder
from tests.benchmarks.mapper.networks import network

MVM_NS = 720.0


def chip_with(name: str = "brram-256x64", mvm_us: float = 0.72, **cores: object) -> Chip:
    """A chip whose arrays and cores are changed; without limits but the arrays' where nothing is said."""
    chip = load_chip(name)
    return chip.model_copy(
        update={
            "cores": chip.cores.model_copy(update=cores),
            "cost": chip.cost.model_copy(update={"mvm_us": mvm_us}),
        }
    )


def mapped(proto: object, chip: Chip, **options: object) -> tuple[ir.Model, Mapping]:
    lowered = lower(ir.from_proto(proto))
    return lowered, map_network(lowered, chip, options=MappingOptions(**options))  # type: ignore[arg-type]


def run(proto: object, chip: Chip, **options: object) -> Simulation:
    return simulate(*mapped(proto, chip, **options), chip)


def chain(*channels: int, size: int = 8, kernel: int = 3) -> object:
    """Convolutions of stride 1 that keep the size, one after the other."""
    b = Builder("chain", ["N", channels[0], size, size])
    x = "x"
    for inputs, outputs in pairwise(channels):
        x = b.conv(x, inputs, outputs, kernel, pads=kernel // 2)
    return b.model(x)


# The clockwork.


def test_a_server_takes_older_images_first_and_counts_who_waits_for_whom() -> None:
    clock = Clock()
    begun: list[tuple[str, float]] = []
    server = Server(clock, "bus", "chip")

    def begin(user: str) -> None:
        begun.append((user, clock.now))

    for image, service, user in ((0, 10.0, "a"), (2, 5.0, "b"), (1, 3.0, "c"), (1, 4.0, "a")):
        server.request(image, service, user, partial(begin, user))
    clock.at(100.0, lambda: server.request(0, 1.0, "d", partial(begin, "d")))
    clock.run()
    assert begun == [("a", 0.0), ("c", 10.0), ("a", 13.0), ("b", 17.0), ("d", 100.0)]
    assert server.busy_ns == 23.0
    assert server.waits == {("c", "a"): 10.0, ("a", "c"): 13.0, ("b", "a"): 17.0}


def test_joined_services_end_with_the_last_service() -> None:
    clock, ends = Clock(), []
    slow, fast = Server(clock, "x", "1"), Server(clock, "x", "2")
    begun = join_services(clock, 2, 0.0, lambda: ends.append(clock.now))
    slow.request(0, 7.0, "a", lambda: begun(7.0))
    fast.request(0, 2.0, "a", lambda: begun(2.0))
    join_services(clock, 0, 5.0, lambda: ends.append(clock.now))
    clock.run()
    assert ends == [5.0, 7.0]


# Closed forms.


def test_one_layer_takes_its_positions_one_after_the_other() -> None:
    simulation = run(chain(3, 4), load_chip("brram-256x64"))
    assert simulation.latency_ns == pytest.approx(64 * MVM_NS)
    assert simulation.interval_ns == pytest.approx(64 * MVM_NS)


def test_a_second_layer_starts_when_two_rows_are_there() -> None:
    # Row r of the second layer needs rows 0 .. r + 1 of the first, the last two need all; both take 8 MVMs a row.
    simulation = run(chain(3, 4, 4), load_chip("brram-256x64"))
    assert simulation.latency_ns == pytest.approx((64 + 2 * 8) * MVM_NS)
    assert simulation.interval_ns == pytest.approx(64 * MVM_NS)


def test_pooling_and_residuals_wait_for_what_they_read() -> None:
    b = Builder("net", ["N", 3, 8, 8])
    x = b.conv("x", 3, 4, 3, pads=1)
    y = b.op("Add", x, b.conv(x, 4, 4, 5, pads=2))
    y = b.conv(b.max_pool(y, 2, 2), 4, 4, 1)
    # The 5x5 starts after 3 rows and takes 8; the last row of the 1x1 (4 MVMs) needs its last one.
    simulation = run(b.model(y), load_chip("brram-256x64"))
    assert simulation.latency_ns == pytest.approx((3 * 8 + 64 + 4) * MVM_NS)


def test_signed_inputs_take_two_reads() -> None:
    chip = load_chip("brram-256x64")
    assert run(chain(3, 4), chip, input_range=(-1.0, 1.0)).latency_ns == pytest.approx(2 * 64 * MVM_NS)


@pytest.mark.parametrize(("arrays", "mvms"), [(1, 64), (2, 16), (4, 8), (16, 2)])
def test_copies_share_the_positions(arrays: int, mvms: int) -> None:
    # Four copies of 18 x 8 weights lie in one array of 256 x 64, on disjoint rows and columns: all are read at once.
    chip = load_chip("brram-256x64")
    proto = chain(2, 8)
    options = {"objective": "interval", "arrays": arrays} if arrays > 1 else {}
    model, mapping = mapped(proto, chip, **options)
    copies = mapping.layers[0].copies
    simulation = simulate(model, mapping, chip)
    assert simulation.interval_ns == pytest.approx(-(-64 // copies) * MVM_NS)
    assert simulation.latency_ns == pytest.approx(-(-64 // copies) * MVM_NS)
    assert -(-64 // copies) <= mvms


def test_a_core_that_starts_slowly_sets_the_pace() -> None:
    # 36 channels x 9 rows are two row blocks with different inputs: two starts an MVM.
    chip = chip_with(mvm_start_ns=500.0)
    simulation = run(chain(36, 4), chip)
    assert simulation.interval_ns == pytest.approx(64 * 2 * 500.0)
    assert simulation.latency_ns == pytest.approx(63 * 1000.0 + 500.0 + MVM_NS)
    assert simulation.busy[0] == ("core starts", "core 0", 64 * 1000.0)


def test_the_vector_unit_adds_its_time_and_can_be_the_limit() -> None:
    # 8 x 4 outputs a row: bias and Relu, one byte each.
    slow = run(chain(3, 4), chip_with(vector_bytes_per_ns=0.001))
    assert slow.interval_ns == pytest.approx(2 * 64 * 4 / 0.001)
    fast = run(chain(3, 4), chip_with(vector_bytes_per_ns=1.0))
    assert fast.latency_ns == pytest.approx(64 * MVM_NS + 2 * 32)


def test_the_shared_memory_feeds_the_first_layer() -> None:
    # An input row of 24 bytes takes 24,000 ns, a row of MVMs 5,760; the last two rows need the last input row.
    simulation = run(chain(3, 4), chip_with(global_bytes_per_ns=0.001))
    assert simulation.latency_ns == pytest.approx(8 * 24_000 + 2 * 8 * MVM_NS)


# Contentions.


def test_layers_that_share_a_core_are_named() -> None:
    chip = chip_with(mvm_start_ns=700.0)
    simulation = run(chain(3, 4, 4), chip)
    (contention,) = simulation.contentions
    assert (contention.kind, contention.where) == ("core starts", "core 0")
    assert set(contention.layers) == {layer.name for layer in mapped(chain(3, 4, 4), chip)[1].layers}
    assert contention.wait_ns > 0
    assert simulation.interval_ns == pytest.approx(2 * 64 * 700.0, rel=0.02)


def test_layers_in_one_array_follow_one_another() -> None:
    chip = load_chip("brram-256x64")
    proto = chain(3, 4, 4)
    model, mapping = mapped(proto, chip, objective="arrays")
    assert mapping.arrays == 1
    simulation = simulate(model, mapping, chip)
    free = simulate(model, mapping, chip, without=frozenset({"array"}))
    assert mapping.schedule is not None
    assert simulation.latency_ns == pytest.approx(mapping.schedule.latency_ns)
    assert simulation.latency_ns > 1.5 * free.latency_ns
    assert [contention.kind for contention in simulation.contentions] == ["array"]


def test_contention_can_be_taken_out() -> None:
    chip = chip_with(mvm_start_ns=700.0)
    model, mapping = mapped(chain(3, 4, 4), chip)
    with_it, without = (simulate(model, mapping, chip, without=frozenset(kinds)) for kinds in ((), ("core starts",)))
    assert without.latency_ns == pytest.approx((64 + 2 * 8) * MVM_NS)
    assert with_it.latency_ns > 1.5 * without.latency_ns
    assert not without.contentions


# Against the schedule.


def explained(comparison: Comparison) -> bool:
    return comparison.agrees and (abs(comparison.deviation) <= 0.05 or bool(comparison.causes))


@pytest.mark.parametrize(
    "name",
    ["squeezenet", "resnet18", "googlenet", "shufflenet", "vit_b_32", "autoencoder", "ds_cnn", "mobilenetv2_cifar"],
)
def test_one_copy_agrees_to_one_percent_without_any_cause(name: str) -> None:
    chip = load_chip("brram-256x64")
    model, mapping = mapped(network(name), chip)
    simulation, comparisons = compare(model, mapping, chip, images=4)
    assert mapping.schedule is not None
    assert simulation.buffer_bytes == pytest.approx(mapping.schedule.buffer_bytes, rel=0.04)
    for comparison in comparisons:
        assert comparison.causes == ()
        tolerance = 0.04 if name == "vit_b_32" else 0.01  # where the schedule waits for all patches before the first
        assert abs(comparison.deviation) <= tolerance, comparison


@pytest.mark.parametrize(
    ("name", "chip", "options"),
    [
        ("lenet1", "brram-soc", {"objective": "interval", "arrays": 9}),
        ("vgg8", "brram-256x64", {"objective": "interval", "arrays": 87}),
        ("resnet18", "brram-256x64", {"objective": "interval", "arrays": 1558}),
        ("resnet18", "brram-256x64", {"objective": "latency", "arrays": 1558}),
    ],
)
def test_copies_of_table_2_agree_to_one_percent(name: str, chip: str, options: dict[str, object]) -> None:
    model, mapping = mapped(SHIPPED[name](), load_chip(chip), **options)
    _, comparisons = compare(model, mapping, load_chip(chip))
    for comparison in comparisons:
        assert abs(comparison.deviation) <= 0.01, comparison
        assert comparison.causes == ()


@pytest.mark.parametrize("objective", ["arrays", "interval", "latency"])
@pytest.mark.parametrize("name", ["autoencoder", "ds_cnn", "resnet8"])
def test_packed_and_copied_networks_agree_or_say_why(name: str, objective: str) -> None:
    chip = load_chip("packing-256")
    model, mapping = mapped(network(name), chip, objective=objective)
    _, comparisons = compare(model, mapping, chip)
    assert all(explained(comparison) for comparison in comparisons), comparisons


@pytest.mark.parametrize("objective", [None, "interval", "latency"])
@pytest.mark.parametrize(
    ("name", "chip"),
    [("lenet5", chip) for chip in ("isaac", "puma", "hermes", "neurram", "pimcomp-a")] + [("vgg8", "puma")],
)
def test_published_chips_agree_or_say_why(name: str, chip: str, objective: str | None) -> None:
    model, mapping = mapped(SHIPPED[name](), load_chip(chip), objective=objective)
    _, comparisons = compare(model, mapping, load_chip(chip), images=8)
    assert all(explained(comparison) for comparison in comparisons), comparisons


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    channels=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    kernel=st.sampled_from([1, 3, 5]),
    size=st.integers(4, 8),
    objective=st.sampled_from([None, "interval", "latency", "arrays"]),
    arrays=st.integers(12, 60),
    chip=st.sampled_from(["brram-256x64", "puma", "hermes"]),
)
def test_any_chain_agrees_or_says_why_and_no_resource_is_overbooked(
    channels: list[int], kernel: int, size: int, objective: str | None, arrays: int, chip: str
) -> None:
    options = {} if objective is None else {"objective": objective, "arrays": arrays}
    model, mapping = mapped(chain(3, *channels, size=size, kernel=kernel), load_chip(chip), **options)
    if len(mapping.segments) > 1:
        return
    simulation, comparisons = compare(model, mapping, load_chip(chip))
    assert all(explained(comparison) for comparison in comparisons), comparisons
    busiest = max((busy for _, _, busy in simulation.busy), default=0.0)
    shares = [-(-layer.positions // layer.copies) * load_chip(chip).cost.mvm_us * 1e3 for layer in mapping.layers]
    for least in (busiest, *shares):
        assert simulation.interval_ns >= least * (1 - 1e-9)
        assert simulation.latency_ns >= least * (1 - 1e-9)


@pytest.mark.parametrize("chip", ["puma", "isaac", "pimcomp-a"])
def test_one_image_keeps_the_resources_as_busy_as_the_limits_say(chip: str) -> None:
    model, mapping = mapped(SHIPPED["lenet5"](), load_chip(chip), objective="latency")
    simulation = simulate(model, mapping, load_chip(chip), images=4)
    busiest: dict[str, float] = {}
    for kind, _, busy in simulation.busy:
        busiest[kind] = max(busy, busiest.get(kind, 0.0))
    assert mapping.schedule is not None
    limits = {limit.kind: limit.busy_ns for limit in mapping.schedule.limits}
    assert limits.keys() - busiest.keys() <= {"array", "stage"}
    for kind in {"link", "bus", "vector unit", "global memory"} & limits.keys():
        assert busiest[kind] == pytest.approx(limits[kind], rel=0.02), kind
    # Copies in one array that are not ready together take more starts than the limit counts.
    assert busiest.get("core starts", 0.0) >= limits.get("core starts", 0.0)


def test_a_wrong_schedule_is_found() -> None:
    chip = load_chip("brram-256x64")
    model, mapping = mapped(SHIPPED["vgg8"](), chip)
    schedule = mapping.schedule
    assert schedule is not None
    wrong = schedule.model_copy(
        update={"latency_ns": 0.8 * schedule.latency_ns, "interval_ns": 1.2 * schedule.interval_ns, "critical_path": ()}
    )
    _, comparisons = compare(model, mapping.model_copy(update={"schedule": wrong}), chip)
    assert not any(comparison.agrees for comparison in comparisons)


# What it cannot do.


def test_what_cannot_be_simulated_is_said_in_one_line() -> None:
    chip = load_chip("brram-256x64")
    model, mapping = mapped(SHIPPED["lenet1"](), chip)
    with pytest.raises(CimcError, match="at least 4 images, not 3"):
        simulate(model, mapping, chip, images=3)
    with pytest.raises(CimcError, match="no schedule to compare with"):
        compare(model, mapping.model_copy(update={"schedule": None}), chip)
    segmented = load_chip("aimc-128")
    model, mapping = mapped(SHIPPED["lenet5"](), segmented, objective="latency")
    assert len(mapping.segments) > 1
    with pytest.raises(CimcError, match="segments; choose a larger chip"):
        simulate(model, mapping, segmented)
