"""Update policies: found by name, options checked, a new one without touching the others."""

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import load_chip
from cimc.errors import CimcError
from cimc.options import Sync, Write
from runtime.system.state import LAYER_GROUPS
from runtime.training import policies
from runtime.training.options import Policy
from runtime.training.policies import POLICIES, make_rule, mixed_precision, pair_writes
from runtime.training.policies.mixed_precision import MixedPrecision
from runtime.training.policies.pair_writes import PairWrites
from runtime.training.policies.policy import Change, LayerState, Wish
from tests.runtime.one_layer import update_one

COARSE, FEW_STATES = load_chip("brram-256x64"), load_chip("ideal", "soft-bounds-10")


def test_every_policy_is_found_by_its_name_with_default_options() -> None:
    assert {"mixed-precision", "naive"} <= POLICIES.keys()
    for name, policy in POLICIES.items():
        rule = make_rule(name)
        assert rule.policy is policy
        assert isinstance(rule.options, policy.options)
        hash(rule)  # a compiled step is made for it
        rule.policy.check(rule.options, FEW_STATES)


def test_no_policy_calls_its_memory_as_the_state_calls_a_group_of_its_own() -> None:
    """One of them would take the place of the other."""
    for name, policy in POLICIES.items():
        assert {*policy.memory, *make_rule(name).tiles}.isdisjoint({*LAYER_GROUPS, "digital"}), name


def test_the_help_and_the_page_name_every_policy_and_its_options() -> None:
    root = Path(__file__).parents[3]
    page, command = (
        (root / name).read_text(encoding="utf-8") for name in ("docs/policies.md", "cimc/commands/train.py")
    )
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    inherited = {field.name for field in fields(POLICIES["tiki-taka-v2"].options)}
    assert rows.keys() == POLICIES.keys()
    for name, policy in POLICIES.items():
        assert re.search(rf"[ \"]{name}[ ,]", command), name
        own = [field.name for field in fields(policy.options)]
        if name in ("chopped-tiki-taka-v2", "agad"):  # their rows say: and
            own = [option for option in own if option not in inherited]
        assert [option for option in own if f"`{option}`" not in rows[name]] == []


def test_options_that_a_policy_does_not_have_are_told() -> None:
    given = {"threshold": 0.1, "residual": "drop", "write": "pulse", "sync": "readback"}
    for method, none in {
        "mixed-precision": [],
        "naive": ["threshold", "residual"],
        "agad": ["threshold", "residual", "write", "sync"],
        "float": ["threshold", "residual", "write", "sync"],
    }.items():
        assert Policy(method=method).without_effect == []
        assert Policy(method=method, **given).without_effect == none  # type: ignore[arg-type]


def test_options_are_given_as_values_or_texts_and_checked() -> None:
    assert make_rule("mixed-precision", threshold="0.25", sync="target").options == MixedPrecision(
        threshold=0.25, sync=Sync.target
    )
    assert Policy(method="mixed-precision", settings=(("threshold", "0.5"),)).rule.threshold(COARSE) == 0.5
    for settings, message in (
        ({"treshold": 1}, r"no option 'treshold'; it has threshold, residual, write, sync"),
        ({"threshold": "much"}, r"^threshold of the update policy mixed-precision is 'much': "),
        ({"sync": "tarjet"}, r"^sync of the update policy mixed-precision is 'tarjet': "),
    ):
        with pytest.raises(CimcError, match=message) as error:
            make_rule("mixed-precision", **settings)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("method", "message"), [("naive", "naive has no option 'threshold'"), ("float", "float has none")]
)
def test_an_option_that_the_policy_does_not_have_is_refused_not_dropped(method: str, message: str) -> None:
    with pytest.raises(CimcError, match=message):
        Policy(method=method, settings=(("threshold", "0.3"),))


@pytest.mark.parametrize("name", ["Naive", "mixed", "sgd", ""])
def test_a_wrong_name_is_refused_not_trained_as_another(name: str) -> None:
    with pytest.raises(CimcError, match=r"--update is .*, no update policy; choose mixed-precision, naive"):
        Policy(method=name)


@dataclass(frozen=True)
class Every:
    """Options of the test's policy. every: a weight is due when its change was asked for so many times."""

    every: int = 3


def wish_every(options: Every, chip: object, layer: LayerState, change: Change, *rest: object) -> Wish:
    count = layer.memory["count"] + (change.gradient != 0)
    due = count >= options.every
    memory = {"accumulator": layer.memory["accumulator"] + change.step, "count": jnp.where(due, 0, count)}
    return Wish(due, layer.weight, None, memory)


def test_a_policy_with_a_memory_and_options_of_its_own_is_one_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees the gradient, remembers two things a weight, and borrows the writing of mixed precision."""

    def settle(options: Every, chip: object, layer: LayerState, wish: Wish, *rest: object) -> LayerState:
        settled = mixed_precision.settle(MixedPrecision(), chip, layer, wish, *rest)  # type: ignore[arg-type]
        return settled._replace(memory={**settled.memory, "count": wish.memory["count"]})

    every = replace(
        POLICIES["mixed-precision"],
        name="every",
        options=Every,
        memory=("accumulator", "count"),
        check=lambda options, chip: None,
        threshold=lambda options, chip: 0.0,
        update=wish_every,
        aim=lambda options, *rest: mixed_precision.aim(MixedPrecision(), *rest),
        settle=settle,
    )
    monkeypatch.setitem(policies.POLICIES, "every", every)
    rule = Policy(method="every", settings=(("every", "2"),)).rule
    assert rule.options == Every(2)
    shape = (8, 4)
    zeros = jnp.zeros(shape)
    idle = jnp.full((2, *shape), COARSE.cell.conductance_min_uS)
    counts = jnp.zeros(shape, jnp.int32)
    layer = LayerState(zeros, {"accumulator": zeros, "count": zeros}, idle, counts, counts[None] + idle * 0, idle * 0)
    gradient = jnp.asarray(np.arange(32).reshape(shape) % 2, jnp.float32)
    for step in range(2):
        layer = update_one(
            rule,
            COARSE,
            layer,
            Change(gradient * 0.2, gradient),
            weight_range=jnp.float32(1),
            key=jax.random.key(step),
        )
        np.testing.assert_array_equal(layer.updates, gradient * step)
        np.testing.assert_array_equal(layer.memory["count"], gradient * (1 - step))
    written = np.asarray(layer.weight)[np.asarray(gradient) > 0]
    assert abs(written.mean() - 0.4) < 0.05, "both steps, with the errors of write and read"


@pytest.mark.parametrize(
    ("device", "write", "becomes"),
    [
        ("ecram", Write.verify, Sync.target),
        ("ecram", Write.pulse, Sync.readback),
        ("brram", Write.verify, Sync.readback),
    ],
)
def test_a_read_noisier_than_a_step_does_not_become_the_digital_copy(device: str, write: Write, becomes: Sync) -> None:
    # Closed-loop writes would else begin from the noise of the read before: ecram trained to 89 %, not 98.9 %.
    chip = load_chip("ideal", device, settings={"cell": {"read_noise_uS": 2.0}})
    assert pair_writes.synchronised(PairWrites(write=write), chip) is becomes
    for stated in (Sync.target, Sync.readback, Sync.none):
        assert pair_writes.synchronised(PairWrites(write=write, sync=stated), chip) is stated


def walked_uS(sync: Sync) -> float:
    """The sd over 500 weights of fine steps, after 40 steps up and down that leave nothing."""
    chip = load_chip("ideal", "ecram", settings={"cell": {"read_noise_uS": 2.0}})
    rule = make_rule("mixed-precision", sync=sync)

    @jax.jit
    def step(layer: LayerState, by: jax.Array, key: jax.Array) -> LayerState:
        change = Change(jnp.full(500, by), jnp.zeros(500))
        return update_one(rule, chip, layer, change, weight_range=jnp.float32(1), key=key)

    counts = jnp.zeros((2, 500), jnp.int32)
    memory = {pair_writes.ACCUMULATOR: jnp.zeros(500)}
    layer = LayerState(jnp.zeros(500), memory, jnp.full((2, 500), 50.0), counts[0], counts, counts)
    for number in range(40):
        layer = step(layer, jnp.float32(0.002 * (-1) ** number), jax.random.key(number))
    return float(jnp.std(layer.conductance[0] - layer.conductance[1]))


def test_a_weight_of_fine_steps_does_not_walk_with_the_noise_of_its_reads() -> None:
    assert walked_uS(Sync.auto) < 0.2  # one read has 2 uS
    assert walked_uS(Sync.readback) > 2.0
