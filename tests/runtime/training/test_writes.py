"""The write scheduler against a plain simulation of rows and ports, weight by weight and row by row."""

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from cimc.api.compile import compile_model
from cimc.chip import Chip, load_chip
from cimc.errors import CimcError
from cimc.mapping import Mapping
from cimc.options import Sync, Write
from cimc.units import device_targets
from runtime.devices.device import NONE
from runtime.system.state import trials_of_columns
from runtime.training.options import Policy
from runtime.training.policies.policy import Change, LayerState
from runtime.training.row_writes import Lines, account, lines_of, no_totals, total, word_lines
from runtime.training.update import update_layers
from runtime.training.vectors import pack, packing, unpack
from runtime.training.writes import Scheduler, no_schedule, scheduler_of
from tests.networks import network_proto, weights

THRESHOLD, RANGE = 0.25, 1.0
POLICY = Policy(threshold=THRESHOLD, sync=Sync.target)
WRITE = {"line_us": 0.5, "line_nj": 0.25, "read_us": 0.125, "read_nj": 2.0}
PROGRAMMING = {"pulse_us": 1.0, "pulse_nj": 0.5}


@cache
def mapped(ports: int | None, ports_of: str = "chip", copies: bool = False) -> tuple[Mapping, Chip]:
    """A convolution and a layer after it on arrays of 16 x 8, so that both take several."""
    settings: dict[str, Any] = {
        "array": {"rows": 16, "columns": 8, "per_chip": 64},
        "cores": {"count": 4, "mesh_rows": 2, "mesh_columns": 2},
        "cell": {"programming": PROGRAMMING},
        "write": {**WRITE, "ports_of": ports_of, **({} if ports is None else {"ports": ports})},
    }
    chip = load_chip("brram-soc", settings=settings)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c"], name="conv", strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w2"], ["y"], name="fc"),
    ]
    constants = {"w1": weights(6, 2, 3, 3), "w2": weights(24, 5)}
    model = network_proto(nodes, {"x": ["N", 2, 5, 5]}, {"y": ["N", 5]}, constants)
    more: dict[str, Any] = {"arrays": 20, "objective": "latency"} if copies else {}
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, f"{folder}/small.onnx")
        mapping = compile_model(f"{folder}/small.onnx", chip, verify=False, **more).artifact.mapping
    assert (max(layer.copies for layer in mapping.layers) > 1) == copies
    return mapping, chip


class Case(NamedTuple):
    """A mapping and how its weights are scheduled."""

    mapping: Mapping
    chip: Chip
    scheduler: Scheduler

    def shapes(self) -> dict[str, tuple[int, int]]:
        return {layer.name: (layer.rows, layer.columns) for layer in self.mapping.layers}

    def lines(self) -> Lines:
        return lines_of(self.mapping, self.chip, self.packing())

    def packing(self) -> Any:
        return packing({name: jnp.zeros(shape) for name, shape in self.shapes().items()})


def case_of(
    budget: str | None, every: int, *, ports: int | None = 2, ports_of: str = "chip", copies: bool = False
) -> Case:
    mapping, chip = mapped(ports, ports_of, copies)
    return Case(mapping, chip, scheduler_of(POLICY.rule, chip, mapping, budget, every))


@cache
def step_of(case: Case) -> Any:
    def step(layers: Any, changes: Any, schedule: Any, key: Any) -> Any:
        return update_layers(
            POLICY.rule,
            case.chip,
            layers,
            changes,
            ranges=[jnp.float32(RANGE)] * len(layers),
            traits=[NONE] * len(layers),
            lines=case.lines(),
            scheduler=case.scheduler,
            schedule=schedule,
            key=key,
        )

    return jax.jit(step)


def steps(
    case: Case, seed: int, count: int = 4, asked_in: int = 99
) -> Iterator[tuple[dict[str, Any], dict[str, Any], Any, Any]]:
    """State before and after each step, the change asked for, by layer, and the schedule after it."""
    random, weights_packed, shapes = np.random.default_rng(seed), case.packing(), case.shapes()
    weight = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    vectors = pack(weights_packed, weight)
    layers: Any = tuple(
        LayerState(
            vector,
            {"accumulator": vector * 0},
            device_targets(vector, jnp.float32(RANGE), case.chip),
            jnp.zeros(vector.shape, jnp.int32),
            jnp.zeros((2, *vector.shape), jnp.int32),
            jnp.zeros((2, *vector.shape), jnp.int32),
        )
        for vector in vectors
    )
    schedule = no_schedule(case.scheduler, case.lines())

    def named(layers: Any) -> dict[str, Any]:
        groups = {
            "weight": [layer.weight for layer in layers],
            "accumulator": [layer.memory["accumulator"] for layer in layers],
            **{g: [getattr(layer, g) for layer in layers] for g in ("conductance", "updates", "trials")},
        }
        return {g: jax.device_get(unpack(weights_packed, arrays)) for g, arrays in groups.items()}

    for number in range(count):
        share = 0.4 if number < asked_in else 0.0
        asked: dict[str, Any] = {
            name: (random.uniform(-0.4, 0.4, shape) * (random.random(shape) < share)).astype(np.float32)
            for name, shape in shapes.items()
        }
        changes = [Change(vector, vector) for vector in pack(weights_packed, asked)]
        before = named(layers)
        layers, schedule = step_of(case)(layers, changes, schedule, jax.random.key(seed + number))
        yield before, named(layers), asked, jax.device_get(schedule)


# --- The judge: rows and ports, one after the other ---


def rows_of(mapping: Mapping) -> list[tuple[str, int, slice]]:
    """Layer, row and columns of each word line, in order."""
    return [
        (layer.name, row, slice(block.column_start, block.column_stop))
        for layer in mapping.layers
        for block in layer.blocks
        if block.copy == 0
        for row in range(block.row_start, block.row_stop)
    ]


def port_name(case: Case, array: int) -> tuple[Any, ...]:
    write, placement = case.chip.write, case.mapping.placement
    if write.ports is None:
        return ("array", array)
    if write.ports_of == "chip":
        return ("chip", array % write.ports)
    per_core = case.chip.arrays_per_core
    if placement is None:
        return ("core", array // per_core, array % per_core % write.ports)
    return ("core", placement.cores[array], array % write.ports)


def worst(case: Case) -> tuple[float, float]:
    """The most time and energy of a row: two phases of two trials on all devices, a read after each."""
    return 2 * (0.5 + 2 * (1.0 + 0.125)), 2 * (0.25 + 2 * 2.0) + 4 * 8 * 0.5


def expected_grants(case: Case, score: dict[int, float], budget: str | None) -> set[int]:
    """Lines that are written, of those with a due weight and its largest |accumulator|."""
    lines, copies = rows_of(case.mapping), {layer.name: layer.copies for layer in case.mapping.layers}
    order = sorted(score, key=lambda line: (-score[line], line))
    cost = {line: copies[lines[line][0]] for line in order}
    if budget is None:
        return set(order)
    unit, pools = "rows", defaultdict[Any, float](float)
    if budget.endswith("%"):
        share = np.float32(np.float32(float(budget[:-1]) / 100) * np.float32(sum(cost.values())))
        most = max(float(np.ceil(share)), float(cost[order[0]]) if order else 0.0)
    elif budget.endswith("us"):
        unit, most = "us", float(budget[:-2])
    elif budget.endswith("nJ"):
        unit, most = "nJ", float(budget[:-2])
    else:
        most = float(budget)
    each = {"rows": 1.0, "us": worst(case)[0], "nJ": worst(case)[1]}[unit]
    one_pool = unit != "us" or max(copies.values()) > 1
    granted, full = set[int](), set[Any]()
    for line in order:
        name, row, columns = lines[line]
        block = next(
            b
            for b in case.mapping.layer(name).blocks
            if b.copy == 0 and b.row_start <= row < b.row_stop and b.column_start == columns.start
        )
        pool = "all" if one_pool else port_name(case, block.array)
        pools[pool] += cost[line] * each
        if pools[pool] > most * (1 + 1e-9):
            full.add(pool)
        if pool not in full:
            granted.add(line)
    return granted


BUDGETS = [
    ({"budget": None, "every": 1}, {}),
    ({"budget": "5", "every": 1}, {}),
    ({"budget": "30%", "every": 2}, {"ports": None}),
    ({"budget": "12us", "every": 1}, {"ports": 2, "ports_of": "core"}),
    ({"budget": "120nJ", "every": 1}, {"ports": 1}),
    ({"budget": "9", "every": 1}, {"copies": True}),
]


@pytest.mark.parametrize(("limit", "chip"), BUDGETS, ids=lambda value: "-".join(map(str, value.values())))
def test_rows_and_ports_are_those_of_a_plain_simulation(limit: dict[str, Any], chip: dict[str, Any]) -> None:
    case = case_of(**limit, **chip)

    @settings(deadline=None, max_examples=4)
    @given(seed=st.integers(0, 2**31))
    def check(seed: int) -> None:
        simulate(case, limit["budget"], limit["every"], seed)

    check()


def simulate(case: Case, budget: str | None, every: int, seed: int) -> None:
    lines = rows_of(case.mapping)
    copies = {layer.name: layer.copies for layer in case.mapping.layers}
    figures = {name: np.zeros(4) for name in copies}
    busy_in_all: defaultdict[Any, float] = defaultdict(float)
    time = energy = pulses_in_all = 0.0
    waiting: dict[tuple[str, int, int], int] = {}
    waits: list[int] = []
    for number, (before, after, asked, schedule) in enumerate(steps(case, seed)):
        # What lies beyond the range of a weight can never be programmed.
        room = {name: (-RANGE - weight, RANGE - weight) for name, weight in before["weight"].items()}
        wanted = {name: np.clip(before["accumulator"][name] + asked[name], *room[name]) for name in asked}
        due = {name: np.abs(a) > np.float32(THRESHOLD) for name, a in wanted.items()}
        score = {
            line: float(np.abs(wanted[name][row, columns])[due[name][row, columns]].max())
            for line, (name, row, columns) in enumerate(lines)
            if due[name][row, columns].any()
        }
        granted = expected_grants(case, score, budget) if (number + 1) % every == 0 else set()
        may = {name: np.zeros(shape, bool) for name, shape in case.shapes().items()}
        for line in granted:
            name, row, columns = lines[line]
            may[name][row, columns] = True
        step_of_port: defaultdict[Any, float] = defaultdict(float)
        of_layer: defaultdict[tuple[str, Any], float] = defaultdict(float)
        for name in due:
            written = due[name] & may[name]
            assert np.array_equal(after["updates"][name] - before["updates"][name], written)
            held_back = ~written
            # Nothing that is due or not yet due is lost, and no device is touched.
            assert np.array_equal(after["accumulator"][name][held_back], wanted[name][held_back])
            assert np.array_equal(after["conductance"][name][:, held_back], before["conductance"][name][:, held_back])
            for place in zip(*np.nonzero(written), strict=True):
                waits.append(waiting.pop((name, *map(int, place)), 0))
            late = {(name, *map(int, place)) for place in zip(*np.nonzero(due[name] & ~written), strict=True)}
            for key in [key for key in waiting if key[0] == name and key not in late]:
                del waiting[key]
            for key in late:
                waiting[key] = waiting.get(key, 0) + 1
        for line in granted:
            name, row, columns = lines[line]
            goal = np.asarray(device_targets(jnp.asarray(after["weight"][name]), jnp.float32(RANGE), case.chip))
            trials = (after["trials"][name] - before["trials"][name])[:, row, columns]
            up = (goal > before["conductance"][name])[:, row, columns]
            took = [int(trials[up].max(initial=0)), int(trials[~up].max(initial=0))]
            phases, longest = sum(n > 0 for n in took), sum(took)
            us = sum(0.5 + n * (1.0 + 0.125) for n in took if n)
            pulses_in_all += copies[name] * trials.sum()
            energy += copies[name] * (0.25 * phases + 0.5 * trials.sum() + 2.0 * longest)
            figures[name][:3] += copies[name] * np.array([1, phases, longest])
            for block in case.mapping.layer(name).blocks:
                if block.row_start <= row < block.row_stop and block.column_start == columns.start:
                    port = port_name(case, block.array)
                    step_of_port[port] += us  # one after the other: a port is never used twice at a time
                    of_layer[name, port] += us
        for name in figures:
            figures[name][3] += max([us for (layer, _), us in of_layer.items() if layer == name], default=0.0)
        for port, us in step_of_port.items():
            busy_in_all[port] += us
        busiest = max(step_of_port.values(), default=0.0)
        time += busiest
        if budget is not None and budget.endswith("us"):
            assert busiest <= float(budget[:-2])
        counted = total(schedule["layers"])
        np.testing.assert_allclose(counted, np.stack(list(figures.values())), rtol=1e-6)
        assert total(schedule["steps"])[0] == pytest.approx(time, rel=1e-6)
        ports = sorted(us for us in total(schedule["ports"]) if us)
        np.testing.assert_allclose(ports, sorted(busy_in_all.values()), rtol=1e-6)
        rows, phases, longest = counted[:, :3].sum(axis=0)
        assert case.scheduler.cost.energy_nj(rows, phases, longest, pulses_in_all) == pytest.approx(energy, rel=1e-6)
        if case.scheduler.holds_back:
            assert total(schedule["waits"]).tolist() == [sum(waits), len(waits)]
            assert int(schedule["longest_wait"]) >= max([*waits, *waiting.values()], default=0)
            still = sum(int(np.count_nonzero(a)) for n, a in schedule.items() if n.startswith("waiting_"))
            assert still == len(waiting)


def test_what_waits_is_written_later_until_nothing_waits() -> None:
    """All that is asked for comes in the first step; five rows a step are written, until none is left."""
    states = list(steps(case_of("5", 1), 5, count=8, asked_in=1))
    rows = np.diff([0.0, *(total(schedule["layers"])[:, 0].sum() for *_, schedule in states)])
    assert rows[0] == rows[1] == 5
    assert rows[-1] == 0
    asked, last = states[0][2], states[-1][1]
    for name, change in asked.items():
        assert np.array_equal(last["updates"][name], np.abs(change) > THRESHOLD)
        np.testing.assert_allclose(last["weight"][name] + last["accumulator"][name], change, atol=1e-3)


def test_each_array_has_one_port_and_word_lines_are_rows_of_blocks() -> None:
    mapping, _ = mapped(2)
    lines = word_lines(mapping)
    seen: set[int] = set()
    for layer in mapping.layers:
        for block in layer.blocks:
            part = lines[layer.name][block.row_start : block.row_stop, block.column_start : block.column_stop]
            assert (part == part[:, :1]).all(), "one word line in a row of a block"
            assert len(np.unique(part)) == len(part), "another one in each row"
            assert seen.isdisjoint(part.ravel().tolist())
            seen.update(part.ravel().tolist())
    assert seen == set(range(len(seen)))


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("0", "lets nothing be written"),
        ("-3", "give row writes a step"),
        ("2.5", "whole number"),
        ("120%", "at most 100%"),
        ("5 days", "give row writes a step"),
        ("", "give row writes a step"),
        ("nan", "give row writes a step"),
        ("1us", r"less than a row write can take, 5.5us each"),
        ("3nJ", r"less than a row write can take"),
    ],
)
def test_a_bad_budget_is_one_clear_line(budget: str, message: str) -> None:
    with pytest.raises(CimcError, match=message) as error:
        case_of(budget, 1)
    assert "\n" not in str(error.value)


def test_a_policy_that_keeps_nothing_cannot_wait() -> None:
    mapping, chip = mapped(2)
    limits: list[tuple[str | None, int, str]] = [("5", 1, "--write-budget"), (None, 2, "--write-every")]
    for budget, every, option in limits:
        with pytest.raises(CimcError, match=f"{option} lets due weights wait .* --update naive keeps none"):
            scheduler_of(Policy(method="naive").rule, chip, mapping, budget, every)
    with pytest.raises(CimcError, match="which blind pulses do not tell"):
        scheduler_of(Policy(write=Write.pulse).rule, chip, mapping, "20us", 1)


def test_counts_of_large_layers_are_beyond_32_bits() -> None:
    """A layer of 2.4 million weights at 500 pulses a device; lines of a hundred million pulses each."""
    of_devices = jnp.broadcast_to(jnp.int32(500), (2, 2304, 1024))
    assert int(np.sum(np.asarray(trials_of_columns(of_devices)), dtype=np.int64)) == 2 * 2304 * 1024 * 500 > 2**31
    mapping, chip = mapped(None)
    shapes = {layer.name: jnp.zeros((layer.rows, layer.columns)) for layer in mapping.layers}
    lines = lines_of(mapping, chip, packing(shapes))
    longest = jnp.full((1, 2, len(lines.layer)), 100_000_000, jnp.int32)
    scheduler = scheduler_of(POLICY.rule, chip, mapping, None, 1)
    pulses = total(account(scheduler.cost, lines, longest, no_totals(lines))["layers"])[:, 2]
    of_layer = np.bincount(np.asarray(lines.layer), np.asarray(lines.copies))
    np.testing.assert_allclose(pulses, 2e8 * of_layer, rtol=1e-6)
    assert pulses.max() > 2**31
