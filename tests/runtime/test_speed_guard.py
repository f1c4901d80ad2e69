"""What a training step costs, counted instead of timed: operations, bytes, compilations and calls from Python.

The limits are the counts of 2026-11 plus a tenth (bytes and temporary memory: a quarter, because they depend on the
version of XLA); the two reads before a write, and what follows from them, are 150 of the operations, and the figures,
each cut out of their argument, 236. Whoever makes them grow has made training slower: find out why before raising them.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from cimc.api.compile import compile_model
from cimc.dataset import Dataset, Preprocess
from runtime.crossbar import figures, xla
from runtime.network.load import load_network
from runtime.system.state import System, build_system, initial_state
from runtime.training import pace
from runtime.training.options import TrainingOptions
from runtime.training.start import start
from runtime.training.train import train
from tests.training_step import trace_steps

BATCH = 64
PIXELS = Preprocess(1 / 255)
EQUATIONS = 1980  # 1815
MEGABYTES_A_STEP = 112.0  # 89.7
TEMPORARY_MEGABYTES = 12.4  # 9.9


@pytest.fixture(scope="module")
def system() -> System:
    return lenet1()


def lenet1() -> System:
    model = Path(__file__).parents[2] / "models" / "lenet1.onnx"
    artifact = compile_model(model, "brram-256x64", verify=False).artifact
    return build_system(load_network(artifact.network), artifact.mapping, artifact.chip)


def data() -> Dataset:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (640, 1, 28, 28), np.uint8)
    labels = random.integers(0, 10, 640).astype(np.int32)
    return Dataset.of_images("random", images, labels, images[:1], labels[:1], synthetic=True, classes=10)


def lowered_step(system: System) -> Any:
    return trace_steps(system, data(), TrainingOptions(batch_size=BATCH))


def equations(jaxpr: Any) -> int:
    """All operations of a program, those of its inner programs included."""
    return sum(1 + sum(map(equations, jaxprs_in_params(eqn.params))) for eqn in jaxpr.eqns)


def test_a_training_step_does_not_grow(system: System) -> None:
    traced = lowered_step(system)
    assert equations(traced.jaxpr.jaxpr) < EQUATIONS
    if jax.default_backend() != "cpu":
        pytest.skip("bytes are those of the CPU compiler")
    compiled = traced.lower().compile()
    # Barriers that XLA drops (see runtime/crossbar/xla.py) make it compute each conversion several times.
    assert "opt-barrier" in compiled.as_text()
    costs = compiled.cost_analysis()
    costs = costs[0] if isinstance(costs, list) else costs
    assert costs["bytes accessed"] / 1e6 < MEGABYTES_A_STEP
    assert compiled.memory_analysis().temp_size_in_bytes / 1e6 < TEMPORARY_MEGABYTES


def test_python_is_called_once_in_twenty_steps_and_each_function_compiled_once(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    programs: list[tuple[str, Any]] = []  # what jax.jit returns counts what it compiled
    for forget in xla.kept_programs:
        forget()

    class Counted(figures.Program[Any]):
        def __init__(self, function: Any, *given: Any) -> None:
            super().__init__(function, *given)
            self.name = function.__name__
            programs.append((self.name, self.compiled))

        def __call__(self, *dynamic: Any) -> Any:
            if self.name == "train_steps":
                calls.append(int(dynamic[-1]))
            return super().__call__(*dynamic)

    monkeypatch.setattr(figures, "Program", Counted)
    # 130 steps: the first call has one; ranges are looked at every 5 of the first 100; an epoch ends a call.
    monkeypatch.setattr(pace, "CALL_S", 1e9)  # not by the clock
    options = TrainingOptions(epochs=2, steps_per_epoch=65, batch_size=BATCH)
    train(system, start(system, initial_state(system), options), options, data())
    assert calls == [1, 4] + [5] * 19 + [20, 10]
    names = [name for name, _ in programs]
    assert sorted(names) == ["_choose", "_look", "_start", "outputs_of", "train_steps"]
    assert all(compiled._cache_size() == 1 for _, compiled in programs)


def test_another_process_finds_the_compiled_step_in_the_cache() -> None:
    """The program must not depend on the hash of strings, such as by the order of a set: each start would compile."""
    script = (
        "import hashlib\n"
        "from tests.runtime import test_speed_guard as guard\n"
        "print(hashlib.sha256(guard.lowered_step(guard.lenet1()).lower().as_text().encode()).hexdigest())\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]
    first, second = (run.communicate()[0].strip() for run in runs)
    assert first
    assert first == second
