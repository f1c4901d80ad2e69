"""What a worker measures, and how it talks to the command: one work a process, one round a line."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

# Runs at least that many steps (training) or batches (inference), waits until they are done, and returns how many.
Runner = Callable[[int], int]
ROUND_SECONDS = 2.0


@dataclass(frozen=True)
class Work:
    """One measurement.

    tool: module worker_<tool>. network: lenet5, vgg8, resnet18. mode: train or infer. array: rows of square arrays that
    layers are split over, None: one array a layer. bits: of inputs and ADC, None: float. noise: of reads and ADC.
    slices: arrays that share the bits of a weight. serial: inputs bit by bit, each converted, and weights of 8 bits
    with an offset that is subtracted digitally. cpu: counts the time of the process, for a busy machine, not the clock.
    """

    tool: str
    network: str = "lenet5"
    mode: str = "train"
    batch: int = 64
    array: int | None = None
    input_bits: int | None = 7
    adc_bits: int | None = 9
    noise: bool = True
    slices: int = 1
    serial: bool = False
    cpu: bool = False
    threads: int = 1

    def dumps(self) -> str:
        """As one command-line argument."""
        return json.dumps(asdict(self))


def serve(prepare: Callable[[Work], Runner]) -> None:
    """Measure the work in argv: after each line on stdin one round of about two seconds, answered by a line of JSON."""
    work = Work(**json.loads(sys.argv[1]))
    # The tools' own libraries talk on stdout: only the answers may.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if work.threads == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    run = prepare(work)
    run(2)
    clock = time.process_time if work.cpu else time.perf_counter
    step_seconds = _timed(run, 3, clock)
    _answer(answers, ready=True)
    for _ in sys.stdin:
        step_seconds = _timed(run, max(2, round(ROUND_SECONDS / step_seconds)), clock)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        _answer(answers, rate=work.batch / step_seconds, peak_mb=peak)


def _timed(run: Runner, steps: int, clock: Callable[[], float]) -> float:
    """Seconds a step."""
    began = clock()
    done = run(steps)
    return (clock() - began) / done


def _answer(file: Any, **figures: Any) -> None:
    print(json.dumps(figures), file=file, flush=True)
