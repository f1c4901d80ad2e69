"""Numbers of a chip or of options as an argument of a compiled function, in place of constants of its program.

A function that is compiled for a network, a chip and options (`jit_with_figures`) takes the numbers that it wraps in
`figure` as values: chips and options that differ in these alone are one program to XLA, compiled once and then found in
its cache, in this process or another. A number that nobody wraps is a constant as before, and its change a new program.
"""

import threading
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jax import Array

from runtime.crossbar.xla import jit, kept_programs

R = TypeVar("R")

# Numbers of a program: those of LeNet-5's training have 53 to 125. What does not fit is constant.
MOST_FIGURES = 1 << 13
PROGRAMS = 4  # of each function that are kept, with the networks and chips that they are for


class _Recorder:
    """The numbers of a program in the order in which it is traced, and the argument that stands for them."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self.argument: Array | None = None

    def take(self, value: Any) -> Any:
        """The part of the argument that stands for numbers; themselves where there is no room."""
        numbers = np.asarray(value, np.float32)
        first, end = len(self.values), len(self.values) + numbers.size
        if self.argument is None or end > MOST_FIGURES:
            return value
        self.values += numbers.ravel().tolist()
        return jax.lax.slice(self.argument, (first,), (end,)).reshape(numbers.shape)

    def all_values(self) -> np.ndarray:
        """[MOST_FIGURES]"""
        return np.pad(np.array(self.values, np.float32), (0, MOST_FIGURES - len(self.values)))


_recorder: ContextVar[_Recorder | None] = ContextVar("_recorder", default=None)


def figure(value: Any) -> Any:
    """A number or array of numbers, float32, as a value of the program that is being traced; elsewhere as it is.

    Whether it is 0 or left out must be decided before, on the number itself. Not for functions that are jitted by
    themselves and called in such a program: they would keep its argument.
    """
    recorder = _recorder.get()
    return value if recorder is None else recorder.take(value)


class Program(Generic[R]):
    """A function with its static arguments, compiled when it is called first; called with the others.

    Traced again, for other shapes, its figures are constants.
    """

    def __init__(self, function: Callable[..., R], static: dict[int, Any], donate_argnums: tuple[int, ...]) -> None:
        def with_numbers(numbers: Array, *dynamic: Any) -> R:
            recorder, given = _recorder.get(), iter(dynamic)
            if recorder is not None:
                recorder.argument = numbers
            return function(*(static[n] if n in static else next(given) for n in range(len(static) + len(dynamic))))

        with_numbers.__name__ = function.__name__
        donated = tuple(1 + n - sum(other < n for other in static) for n in donate_argnums)
        self.compiled: Any = jit(with_numbers, donate_argnums=donated)
        self._numbers: np.ndarray | None = None
        self._tracing = threading.Lock()  # of threads that share a program one traces it

    def __call__(self, *dynamic: Any) -> R:
        """The function's result."""
        result: R = self.compiled(self.numbers(*dynamic), *dynamic)
        return result

    def numbers(self, *dynamic: Any) -> np.ndarray:
        """The figures in the order in which the function takes them, found by tracing it; a call finds that trace."""
        with self._tracing:
            if self._numbers is None:
                recorder = self._recorded(dynamic)
                if recorder.argument is None:  # a trace was there, and what had recorded it was interrupted
                    self.compiled.clear_cache()
                    recorder = self._recorded(dynamic)
                self._numbers = recorder.all_values()
            return self._numbers

    def _recorded(self, dynamic: tuple[Any, ...]) -> _Recorder:
        recorder = _Recorder()
        token = _recorder.set(recorder)
        try:
            self.compiled.eval_shape(recorder.all_values(), *dynamic)
        finally:
            _recorder.reset(token)
        return recorder


class WithFigures(Generic[R]):
    """`runtime.crossbar.xla.jit` of a function with positional arguments, whose figures are values."""

    def __init__(
        self, function: Callable[..., R], static_argnums: tuple[int, ...], donate_argnums: tuple[int, ...]
    ) -> None:
        self._static_argnums = static_argnums

        @lru_cache(maxsize=PROGRAMS)
        def program_of(*static: Any) -> Program[R]:
            return Program(function, dict(zip(static_argnums, static, strict=True)), donate_argnums)

        self._program_of = program_of
        kept_programs.append(program_of.cache_clear)

    def __call__(self, *args: Any) -> R:
        """The function's result."""
        program, dynamic = self.program(*args)
        return program(*dynamic)

    def program(self, *args: Any) -> tuple[Program[R], list[Any]]:
        """The program of the static ones of these arguments, and the others."""
        static = [args[n] for n in self._static_argnums]
        return self._program_of(*static), [arg for n, arg in enumerate(args) if n not in self._static_argnums]


def jit_with_figures(
    static_argnums: tuple[int, ...], donate_argnums: tuple[int, ...] = ()
) -> Callable[[Callable[..., R]], WithFigures[R]]:
    """A decorator that makes a function a `WithFigures`."""
    return lambda function: WithFigures(function, static_argnums, donate_argnums)
