"""Read a mapping from JSON, and whether its parts fit together: a file may be damaged, or made by hand."""

import math
from collections.abc import Iterator

from pydantic import ValidationError

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.layer_settings import KIND, SETTABLE_KEYS, chip_of_layer
from cimc.mapping import MappedLayer, Mapping

MOST_WHOLE, MOST = 2**53, 1e30  # of any whole number in it, and of any other


def parse_mapping(text: str | bytes, source: str) -> Mapping:
    """Read a mapping from JSON. Raises CimcError naming `source` when it is not one, or its parts do not fit."""
    try:
        mapping = Mapping.model_validate_json(text)
        where = next((place for place, fits in _conditions(mapping) if not fits), None)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "top"
    if where is not None:
        raise CimcError(f"{source} holds no valid mapping (at {where}); compile the model again")
    return mapping


def require_settings(mapping: Mapping, chip: Chip, source: str) -> None:
    """Raises CimcError naming `source` where a layer has settings that the chip cannot have, or arrays of another size
    than the chip's kinds.
    """
    for layer in mapping.layers:
        try:
            chip_of_layer(chip, layer.settings)
        except CimcError as error:
            raise CimcError(f"{source}: layer {layer.name} on {chip.name}: {error}") from None
    if mapping.kinds:
        if mapping.all_kinds != {kind: chip.of_kind(kind).arrays_per_chip for kind in chip.sizes}:
            raise CimcError(
                f"{source}: its mapping has other kinds of arrays than {chip.name}; compile the model again"
            )
        require_fitting(mapping, chip, source)


def require_fitting(mapping: Mapping, chip: Chip, source: str) -> None:
    """Raises CimcError naming `source` where a block reaches beyond the array that it lies in."""
    for layer in mapping.layers:
        array, offsets = chip.of_kind(layer.kind).array, chip.weights.offset_columns
        for block in layer.blocks:
            rows, columns = mapping.lines_of(block)
            if rows.stop > array.rows or columns.stop > array.columns - array.spare_columns - offsets:
                raise CimcError(
                    f"{source}: a block of layer {layer.name} takes word lines to {rows.stop - 1} and bit lines to "
                    f"{columns.stop - 1} of array {block.array}, which has {array.rows} x {array.columns}, of them "
                    f"{array.spare_columns + offsets} columns spare or for the offset; compile the model again"
                )


def _conditions(mapping: Mapping) -> Iterator[tuple[str, bool]]:
    """(place, whether what is there fits): the conditions that everyone who reads a mapping relies on."""
    yield "numbers", _all_numbers(mapping.model_dump())
    for name in ("arrays_per_chip", "arrays", "columns_per_weight", "rows_per_weight", "physical_per_array"):
        yield name, getattr(mapping, name) >= 1
    yield "input_range", mapping.input_range[0] < mapping.input_range[1]
    yield "layers", 0 < len({layer.name for layer in mapping.layers}) == len(mapping.layers)
    for index, layer in enumerate(mapping.layers):
        yield f"layers.{index}", _fits(layer, mapping.arrays)
        keys = [f"{section}.{key}" for section, key, _ in layer.settings]
        yield f"layers.{index}.settings", len(set(keys)) == len(keys) and set(keys) <= {*SETTABLE_KEYS, ".".join(KIND)}
        of_kinds = all(isinstance(value, str) == ((section, key) == KIND) for section, key, value in layer.settings)
        yield f"layers.{index}.settings", of_kinds and layer.kind in mapping.all_kinds
    yield "kinds", len(mapping.all_kinds) == 1 + len(mapping.kinds) and min(mapping.all_kinds.values()) >= 1
    # Layers that share an array are of one kind.
    of_array: dict[int, str] = {}
    yield (
        "layers",
        all(
            of_array.setdefault(block.array, layer.kind) == layer.kind
            for layer in mapping.layers
            for block in layer.blocks
        ),
    )
    yield "segments", not (mapping.kinds and mapping.segments)
    if mapping.placement is not None:
        placement = mapping.placement
        spots = placement.mesh_rows * placement.mesh_columns
        yield "placement.mesh_rows", placement.mesh_rows >= 1 and placement.mesh_columns >= 1
        yield "placement.cores", len(placement.cores) == mapping.arrays
        yield "placement.cores", all(0 <= core < spots for core in placement.cores)
        yield "placement.links", all(0 <= end < spots for link in placement.links for end in link[:2])
    for index, segment in enumerate(mapping.segments):
        inside = segment.first_array >= 0 and segment.arrays >= 1
        yield f"segments.{index}", inside and segment.first_array + segment.arrays <= mapping.arrays
    if mapping.schedule is not None:
        stages = {stage.name for stage in mapping.schedule.stages}
        yield "schedule.stages", bool(stages) and len(stages) == len(mapping.schedule.stages)
        for index, stage in enumerate(mapping.schedule.stages):
            known = all((not one.source or one.source in stages) and one.source_rows >= 1 for one in stage.inputs)
            yield f"schedule.stages.{index}", known and stage.rows >= 1
        yield "schedule.critical_path", all(step.stage in stages for step in mapping.schedule.critical_path)
        yield "schedule.limits", bool(mapping.schedule.limits)


def _fits(layer: MappedLayer, arrays: int) -> bool:
    """Whether a layer has blocks, and they are of its weights."""
    counts = (layer.rows, layer.columns, layer.kernel_size, layer.groups, layer.positions, layer.row_copies)
    per_read = (layer.rows_per_read, layer.groups_per_read)
    return (
        min(*counts, layer.copies) >= 1
        and all(number is None or number >= 1 for number in per_read)
        and bool(layer.blocks)
        and all(
            0 <= block.row_start < block.row_stop <= layer.rows
            and 0 <= block.column_start < block.column_stop <= layer.columns
            and 0 <= block.array < arrays
            and min(block.array_row, block.array_column) >= 0
            and 0 <= block.copy < layer.copies
            for block in layer.blocks
        )
    )


def _all_numbers(values: object) -> bool:
    """Whether all numbers in nested dictionaries and sequences are finite and within their bounds."""
    if isinstance(values, dict):
        return all(map(_all_numbers, values.values()))
    if isinstance(values, list | tuple):
        return all(map(_all_numbers, values))
    if isinstance(values, int):
        return abs(values) <= MOST_WHOLE
    return not isinstance(values, float) or (math.isfinite(values) and abs(values) <= MOST)
