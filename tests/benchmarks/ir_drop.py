"""IR drop: how near its short cuts are to nodal analysis, and what they cost LeNet-5 inference.

    python -m tests.benchmarks.ir_drop [--parts drop,per-input,speed] [--rounds 7]

Errors are mean absolute differences of column currents, of the largest column current of the exact solution, in %;
word lines and bit lines have the same resistance a cell. dmr: W' = diag(a) G diag(b) from row and column means, as
published (github.com/alambertini01/Crossbar_Models_Comparison, 2025). Times are processor time.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from cimc.api.compile import compile
from cimc.chip import Wires, load_chip
from cimc.dataset import Preprocess, Samples
from runtime.crossbar.currents import currents
from runtime.crossbar.ir_drop import effective_conductances, less_ir_drop
from runtime.crossbar.keys import new_key
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.inference import predict
from runtime.system.products import state_as_read
from runtime.system.state import State, System, build_system, initial_state, program
from tests.nodal import column_currents

T = TypeVar("T")
Doubles = npt.NDArray[np.float64]
MODEL = Path(__file__).parents[2] / "models" / "lenet5.onnx"
SIZES = ((64, 64), (128, 128), (256, 64), (256, 256))
OHMS = (0.35, 1.0)
MOST_uS = 100.0
IMAGES, CASES = 1024, 20
seen = jax.jit(effective_conductances, static_argnames=("wires", "most_uS"))


def cells_of(kind: str, rows: int, columns: int) -> Doubles:
    """Cells in uS: pairs of normal weights, evenly spread, all fully on."""
    random = np.random.default_rng(0)
    if kind == "pairs":
        share = np.clip(random.normal(0, 0.3, (rows, columns // 2)), -1, 1)
        both = np.stack([np.maximum(share, 0), np.maximum(-share, 0)], axis=-1)
        return 10 + 90 * both.reshape(rows, columns)
    return random.uniform(10, 100, (rows, columns)) if kind == "spread" else np.full((rows, columns), 100.0)


def inputs_of(rows: int) -> dict[str, Doubles]:
    """Voltages [rows, cases] of the word lines."""
    random = np.random.default_rng(1)
    even = random.uniform(size=(rows, CASES))
    return {
        "even": even,
        "30 % driven": even * (random.uniform(size=even.shape) < 0.3),
        "both signs": random.normal(size=even.shape),
    }


def dmr(cells: Doubles, wires: Wires) -> Doubles:
    """The published closed form."""
    of_rows = _divided(cells.mean(axis=1), wires.bit_line_ohm * 1e-6)
    of_columns = _divided(cells.mean(axis=0)[::-1], wires.word_line_ohm * 1e-6)[::-1]
    return of_rows[:, None] * cells * of_columns


def _divided(mean: Doubles, step: float) -> Doubles:
    """Share of the voltage at each node of a line of equal wires, counted from the end that is not held."""
    place = np.arange(len(mean))
    before = np.maximum(place[:, None] - place, 0) @ mean
    return (1 + step * before) / (1 + step * np.sum((len(mean) - place) * mean))


def error(found: Doubles, exact: Doubles) -> str:
    """In %."""
    percent = 100 * np.abs(found - exact).mean() / np.abs(exact).max()
    return f"{percent:.2g}" if percent < 100 else f"{percent:.0f}"


def drop() -> None:
    """Errors of what is found once a programming, for each kind of inputs."""
    print(f"Errors: inputs {' / '.join(inputs_of(1))}.\n")
    print("| array | ohm | cells | no drop | dmr | static | exact | static, ms | exact, ms | nodal, ms |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for (rows, columns), ohm, kind in product(SIZES, OHMS, ("pairs", "spread", "all on")):
        cells, tried = cells_of(kind, rows, columns), inputs_of(rows)
        wires = Wires(word_line_ohm=ohm, bit_line_ohm=ohm, ir_drop="static")
        voltages = np.concatenate(list(tried.values()), axis=1)
        judged, spent = timed(partial(column_currents, cells, wires, voltages))
        static, exact = (effective(cells, wires.model_copy(update={"ir_drop": name})) for name in ("static", "exact"))
        errors = [
            " / ".join(
                error(matrix.T @ some, wanted)
                for some, wanted in zip(tried.values(), np.split(judged, len(tried), axis=1), strict=True)
            )
            for matrix in (cells, dmr(cells, wires), static[0], exact[0])
        ]
        times = [f"{1000 * value:.2g}" for value in (static[1], exact[1], spent)]
        print(f"| {rows} x {columns} | {ohm} | {kind} | {' | '.join([*errors, *times])} |", flush=True)


def effective(cells: Doubles, wires: Wires) -> tuple[Doubles, float]:
    """Effective conductances of an array, and the time that they take once compiled."""
    array = jnp.asarray(cells, jnp.float32)[None]
    jax.block_until_ready(seen(array, wires, most_uS=MOST_uS))
    found, spent = timed(lambda: jax.block_until_ready(seen(array, wires, most_uS=MOST_uS)))
    return np.asarray(found[0], np.float64), spent


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """The result, and its processor time in seconds."""
    began = time.process_time()
    return work(), time.process_time() - began


def per_input() -> None:
    """Errors of the input-dependent rule where it is meant: bit lines alone, on or off, off cells cut off."""
    print("| array | ohm | cells | driven | largest drop, V of 1 | no drop | per-input |")
    print("|---|---|---|---|---|---|---|")
    for rows, columns in ((64, 64), (256, 64)):
        for ohm in (0.1, 0.35, 1.0):
            for kind, share in (("pairs", 0.5), ("spread", 0.5), ("spread", 0.1)):
                wires, cells = Wires(bit_line_ohm=ohm, ir_drop="per-input"), cells_of(kind, rows, columns)
                on = (np.random.default_rng(1).uniform(size=(rows, CASES)) < share).astype(np.float64)
                exact = np.stack([column_currents(cells * one[:, None], wires, one[:, None])[:, 0] for one in on.T], 1)
                bit_lines, vectors = jnp.asarray(cells, jnp.float32)[None], jnp.asarray(on, jnp.float32)[None]
                found = less_ir_drop(currents(vectors, bit_lines), vectors, bit_lines, wires, top=1)[0]
                drops = [error(matrix, exact) for matrix in (cells.T @ on, np.asarray(found, np.float64))]
                far = (np.arange(rows, 0, -1) * ohm * 1e-6) @ (cells.mean(axis=1) * share)
                print(
                    f"| {rows} x {columns} | {ohm} | {kind} | {share:.0%} | {far:.2f} | {' | '.join(drops)} |",
                    flush=True,
                )


def lenet5(kind: str) -> tuple[System, State]:
    """LeNet-5 on brram-256x64 with wires of 0.35 ohm, programmed."""
    wires = {"word_line_ohm": 0.35, "bit_line_ohm": 0.35, "ir_drop": kind}
    chip = load_chip("brram-256x64", settings={"wires": wires})
    artifact = compile(MODEL, chip, verify=False).artifact
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    state, _ = program(system, initial_state(system), new_key(0))
    images = np.random.default_rng(0).random((32, 1, 28, 28), np.float32)
    return system, calibrate(
        system, state, Samples({next(iter(system.network.inputs)): images}), Preprocess(), new_key(1)
    )


def as_reads_see(system: System, state: State) -> None:
    """What is found once a programming."""
    jax.block_until_ready(state_as_read(system, state)["conductance"])


def speed(rounds: int) -> None:
    """LeNet-5 inference with converters and noise; the kinds in turn, the times of one round over those of `none`."""
    kinds = ("none", "static", "exact", "per-input")
    built = {kind: lenet5(kind) for kind in kinds}
    images = np.random.default_rng(2).random((IMAGES, 1, 28, 28), np.float32)
    first: dict[str, float] = {}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}

    def run(kind: str) -> float:
        system, state = built[kind]
        samples = Samples({next(iter(system.network.inputs)): images})
        return timed(lambda: predict(system, state, samples, Preprocess(), key=new_key(2)))[1]

    for kind in kinds:
        run(kind)  # compiled now, and so is what follows
        system, state = built[kind]
        fresh = {**state, "conductance": {name: held + 0 for name, held in state["conductance"].items()}}
        first[kind] = timed(partial(as_reads_see, system, fresh))[1]
    for _ in range(rounds):
        for kind in kinds:
            times[kind].append(run(kind))
    print(
        "| IR drop | images / s of processor time, median | time over none: median (min-max) | once a programming, ms |"
    )
    print("|---|---|---|---|")
    for kind in kinds:
        ratios = [a / b for a, b in zip(times[kind], times["none"], strict=True)]
        median = statistics.median(times[kind])
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"| {kind} | {IMAGES / median:.0f} | {spread} | {1000 * first[kind]:.0f} |")


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="drop,per-input,speed")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    parts = options.parts.split(",")
    if "drop" in parts:
        drop()
    if "per-input" in parts:
        per_input()
    if "speed" in parts:
        speed(options.rounds)


if __name__ == "__main__":
    main()
