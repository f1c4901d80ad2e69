"""The options of the mapper, checked when they are made."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cimc.by_layer import check_by_layer
from cimc.errors import CimcError
from cimc.layer_settings import Settings
from cimc.options import RowSplit, check_choice, check_number, check_range, check_seed, check_whole
from passes.mapper.objective import find_objective, objective_names

MOST_ARRAYS = 2**31


@dataclass(frozen=True, kw_only=True)
class MappingOptions:
    """How a network is mapped on a chip.

    Attributes:
        input_range: least and greatest value of the network's input; decides whether the first layer needs two phases.
        max_chips: an upper limit on the chips.
        row_split: "channel" or "flat", in place of the chip's own rule.
        rows_per_read: most weight rows of an array that are driven at once, by layer; "" stands for all others.
        groups_per_read: most groups of an array that are driven at once, by layer.
        settings: converters that differ from the chip's, by layer.
        objective: what copies and packing are for, a name in `passes/mapper/objectives/` or of a plug-in; None: one
            copy each, one block an array, in network order, over as many chips as it takes.
        arrays: the budget of an objective; None: those of one chip. A network that does not fit it, packed, is cut
            into segments.
        seed: of the local search that places the cores.
        seconds: after which no further layout is tried for the objective; the result then depends on the machine.

    Raises:
        CimcError: a value that is not among these, or a budget without an objective.
    """

    input_range: tuple[float, float] = (0.0, 1.0)
    max_chips: int | None = None
    row_split: RowSplit | None = None
    rows_per_read: Mapping[str, int] = field(default_factory=dict)
    groups_per_read: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Settings] = field(default_factory=dict)
    objective: str | None = None
    arrays: int | None = None
    seed: int = 0
    seconds: float | None = None

    def __post_init__(self) -> None:
        checked: dict[str, object] = {
            "input_range": check_range("input_range", self.input_range),
            "rows_per_read": check_by_layer("rows_per_read", self.rows_per_read, 1),
            "groups_per_read": check_by_layer("groups_per_read", self.groups_per_read, 1),
        }
        if self.row_split is not None:
            checked["row_split"] = check_choice(RowSplit, "row_split", self.row_split)
        if self.objective is not None:
            find_objective(self.objective)
        for name, least in (("max_chips", 1), ("arrays", 1)):
            if getattr(self, name) is not None:
                checked[name] = check_whole(name, getattr(self, name), least, MOST_ARRAYS)
        checked["seed"] = check_seed(self.seed)
        if self.seconds is not None:
            checked["seconds"] = check_number("mapper_seconds", self.seconds, 0.0)
            if self.objective is None:
                raise CimcError(
                    "--mapper-seconds bounds the search for an objective; add --objective "
                    f"{' or '.join(objective_names())}"
                )
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.arrays is not None and self.objective is None:
            raise CimcError(f"--arrays is the budget of an objective; add --objective {' or '.join(objective_names())}")
