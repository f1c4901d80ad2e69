"""The operator cases of the `onnx` package: every case of every operator that `cimc ops` lists must pass.

Of the standard's own expansions of operators into others, one of each set of operators runs here, and all of
them with CIMC_ALL_CASES=1 in the environment: most differ only in their numbers, and compile for minutes.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import cache

import pytest

from cimc.operators import OPERATORS
from tests.runtime.conformance import Case, cases, control_flow_cases, run_cases, run_control_flow_case
from tests.runtime.conformance_exceptions import CONTROL_FLOW, EXCEPTIONS

# What the tests are named after; the cases themselves are computed when they are loaded, by the worker that runs them.
EXPANDED = "(expanded)"
NAMES = [EXPANDED, *sorted(name for name, operator in OPERATORS.items() if operator.cases)]
CONTROL_NAMES = ["If", "Loop", "Scan", "lists"]
ALL_CASES = bool(os.environ.get("CIMC_ALL_CASES"))


def grouped(found: Iterable[Case]) -> Mapping[str, list[Case]]:
    """Cases by the operator that they are named after."""
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in found:
        groups[case.operator].append(case)
    return groups


@cache
def by_operator() -> Mapping[str, list[Case]]:
    """All cases that must pass."""
    return grouped(cases())


@cache
def control_flow() -> Mapping[str, list[Case]]:
    """All cases with If, Loop or Scan, or with a list of tensors."""
    return grouped(control_flow_cases())


def exception_for(case: Case) -> str | None:
    """The pattern that excepts a case."""
    return next((pattern for pattern in EXCEPTIONS if re.search(pattern, case.name)), None)


def batched(cases: list[Case]) -> Iterator[list[Case]]:
    """The cases by 16: larger programs compile no faster."""
    for first in range(0, len(cases), 16):
        yield cases[first : first + 16]


@pytest.mark.parametrize("operator", NAMES)
def test_cases_of(operator: str) -> None:
    chosen = by_operator()[operator]
    if operator == EXPANDED and not ALL_CASES:
        chosen = list(
            {frozenset(node.op_type for node in case.model.graph.node): case for case in reversed(chosen)}.values()
        )
    failures, passed = [], 0
    for some in batched(chosen):
        for case, error in zip(some, run_cases(some), strict=True):
            passed += error is None
            if error is not None and exception_for(case) is None:
                first = (str(error).strip().splitlines() or [""])[0]
                failures.append(f"{case.name}: {type(error).__name__}: {first}")
    assert not failures, "\n".join(failures)
    if operator != EXPANDED:
        assert (OPERATORS[operator].passed, OPERATORS[operator].cases) == (passed, len(by_operator()[operator])), (
            "correct the table in cimc/operators.py"
        )


@pytest.mark.parametrize("operator", CONTROL_NAMES)
def test_control_flow(operator: str) -> None:
    failures, passed, seen = [], 0, set()
    for case in control_flow()[operator]:
        combination = frozenset(node.op_type for node in case.model.graph.node)
        if not ALL_CASES and combination in seen:
            continue
        seen.add(combination)
        excepted = any(re.search(pattern, case.name) for pattern in CONTROL_FLOW)
        try:
            run_control_flow_case(case)
        except Exception as error:
            if not excepted:
                failures.append(f"{case.name}: {type(error).__name__}: {error}")
            continue
        assert not excepted, f"{case.name} passes: take it out of the exceptions"
        passed += 1
    assert not failures, "\n".join(failures)
    assert passed or operator == "lists"


def test_every_exception_excepts_a_case() -> None:
    used = Counter(exception_for(case) for found in by_operator().values() for case in found)
    assert set(EXCEPTIONS) == set(used) - {None}


def test_every_case_is_in_a_test_and_the_table_claims_none_that_does_not_exist() -> None:
    assert set(NAMES) == set(by_operator())
    assert set(CONTROL_NAMES) == set(control_flow())
