"""What a sweep found: its rows, means over seeds, and the points that no other one beats."""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cimc.durations import parse_time
from cimc.errors import CimcError
from cimc.files import replacing
from cimc.html_table import html_table
from cimc.pareto import pareto_front
from cimc.shares import LOWER_IS_BETTER, is_share
from cimc.sweep_results import DONE, Row, read_rows, read_spec
from cimc.sweep_spec import OBJECTIVES, Objective, parse_objective
from cimc.sweep_values import canonical, value_text

AFTER = "_after_"  # between a figure and the time of which it is
EVALUATED = ("accuracy", "agreement", "snr_db")  # what is looked at where no objective is found


@dataclass(frozen=True)
class Group:
    """A point over its seeds.

    mean, sd: of each figure, sd with n - 1, 0 of one seed. count: seeds that gave figures. error: why one gave none.
    """

    fields: Mapping[str, Any]
    mean: Mapping[str, float]
    sd: Mapping[str, float]
    count: int
    error: str | None


@dataclass(frozen=True)
class SweepResult:
    """Result of `sweep`.

    name: of what was swept. varied: the fields with several values, in order. rows: one a point and seed, by number.
    objectives: the figures that are looked at. complete: no point is missing, or failed for a reason that may pass.
    """

    name: str
    varied: tuple[str, ...]
    rows: tuple[Row, ...]
    objectives: tuple[Objective, ...]
    complete: bool = True

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows without figures."""
        return tuple(row for row in self.rows if row.error is not None)

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of all figures, in their order."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.figures))

    @property
    def groups(self) -> tuple[Group, ...]:
        """The points, each over its seeds, in their order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(canonical(row.fields), []).append(row)
        return tuple(map(_grouped, found.values()))

    def aims(self) -> tuple[Objective, ...]:
        """The objectives of which there are figures; where none has any, the first measure, to be large.

        Where none were given and all points have the figure after some time, that after the longest.
        """
        if self.objectives == OBJECTIVES and (latest := self._latest()) is not None:
            return (latest,)
        found = tuple(one for one in self.objectives if one.figure in self.figures)
        if found or not self.figures:
            return found
        return (Objective(next((name for name in EVALUATED if name in self.figures), self.figures[0]), True),)

    def _latest(self) -> Objective | None:
        """The figure after the longest time that all points have, to be large, or of errors small."""
        told = [set(row.figures) for row in self.rows if row.error is None]
        names = set.intersection(*told) if told else set()
        late = [name for name in names if name.rpartition(AFTER)[0] in names]
        if not late:
            return None
        name = max(late, key=lambda one: parse_time(one.rpartition(AFTER)[2]))
        return Objective(name, name.rpartition(AFTER)[0] not in LOWER_IS_BETTER)

    def pareto(self, objectives: Sequence[Objective | str] | None = None) -> tuple[Group, ...]:
        """The points on the front of these objectives (None: `aims`), by means; `FIGURE:max` or `FIGURE:min`.

        Raises:
            CimcError: an objective that is none, or of which no point has figures.
        """
        aims = self.aims()
        if objectives is not None:
            aims = tuple(one if isinstance(one, Objective) else parse_objective(one) for one in objectives)
        for one in aims:
            if one.figure not in self.figures:
                raise CimcError(f"no point has {one.figure}; there are {', '.join(self.figures) or 'no figures'}")
        groups = self.groups
        if not groups or not aims:
            return ()
        front = pareto_front(
            [[group.mean.get(one.figure, math.nan) for one in aims] for group in groups], [one.largest for one in aims]
        )
        return tuple(group for group, on in zip(groups, front.tolist(), strict=True) if on)

    def to_csv(self, path: str | Path | None = None) -> str:
        """The rows as CSV: number, fields, seed, figures, error. Written where a path is given.

        Raises:
            CimcError: the file cannot be written.
        """
        fields = list(dict.fromkeys(name for row in self.rows for name in row.fields))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["point", *fields, "seed", *self.figures, "error"])
        for row in self.rows:
            stated = [_cell(row.fields.get(name)) for name in fields]
            found = [_cell(row.figures.get(name)) for name in self.figures]
            writer.writerow([row.number, *stated, row.seed, *found, row.error or ""])
        if path is not None:
            with replacing(Path(path)) as temporary:
                temporary.write_text(text.getvalue(), encoding="utf-8")
        return text.getvalue()

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Head and rows of a table: a row a point, its varied fields, and mean and sd of the figures looked at."""
        aims = [one.figure for one in self.aims()]
        front = {canonical(group.fields) for group in self.pareto()} if len(aims) > 1 else set()
        rows = []
        for group in self.groups:
            cells = [value_text(group.fields.get(name)) for name in self.varied]
            cells += [figure_text(name, group) for name in aims]
            cells += ["*" if canonical(group.fields) in front else ""] if front else []
            rows.append([*cells, *([group.error or ""] if self.failed else [])])
        head = [*self.varied, *(name.replace("_", " ") for name in aims), *(["front"] if front else [])]
        return [*head, *(["error"] if self.failed else [])], rows

    def _repr_html_(self) -> str:
        """For notebooks."""
        head, rows = self.table()
        return html_table(f"sweep of {self.name}", head, rows)


def read_sweep(folder: str | Path, objective: Sequence[str] = ()) -> SweepResult:
    """The rows of a sweep's folder so far, with these objectives, or the sweep's own. Raises CimcError without one."""
    stated, rows = read_spec(folder), read_rows(Path(folder))
    varied = [name for name, values in stated["vary"].items() if isinstance(values, str) or len(values) > 1]
    aims = map(parse_objective, objective or stated.get("objectives") or ["accuracy:max"])
    complete = stated.get(DONE, False) or len(rows) >= stated["points"]
    return SweepResult(stated["source"], tuple(varied), tuple(rows), tuple(aims), complete)


def figure_text(name: str, group: Group) -> str:
    """Mean and sd of a figure of a point; shares in percent."""
    if name not in group.mean:
        return "-"
    mean, sd = group.mean[name], group.sd[name]
    share = is_share(name)
    texts = [f"{100 * value:.2f}" if share else f"{value:.4g}" for value in (mean, sd)]
    return (f"{texts[0]} ± {texts[1]}" if group.count > 1 else texts[0]) + (" %" if share else "")


def _grouped(rows: Sequence[Row]) -> Group:
    found = [row.figures for row in rows if row.error is None]
    names = [name for name in (found[0] if found else {}) if all(name in one for one in found)]
    values = {name: [float(one[name]) for one in found] for name in names}
    return Group(
        fields=rows[0].fields,
        mean={name: statistics.fmean(of) for name, of in values.items()},
        sd={name: statistics.stdev(of) if len(of) > 1 else 0.0 for name, of in values.items()},
        count=len(found),
        error=next((row.error for row in rows if row.error is not None), None),
    )


def _cell(value: Any) -> Any:
    """A value as CSV holds it; numbers with all their digits."""
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else value if isinstance(value, str | int) else canonical(value)
