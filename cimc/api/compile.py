"""Compile: from an ONNX file to a verified mapping on a chip. Needs no JAX unless it measures, so it starts at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import onnx
import onnx_ir as ir

from cimc.api.input_range import range_of
from cimc.api.lay_out import lay_out, note_without_groups
from cimc.api.progress import Note, unsaid
from cimc.api.sources import chip_of, require_data
from cimc.artifact import Artifact, write_artifact
from cimc.by_layer import MOST_FILLED_ROWS, check_by_layer
from cimc.chip import Chip
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.files import require_different
from cimc.html_table import html_table
from cimc.layer_options import layer_options
from cimc.options import RowSplit, ShareWeights, check_choice, check_number
from passes.crossbar_functions import crossbar_layers
from passes.leave_digital import leave_digital, left_by_chip, matching_layers
from passes.mapper.options import MappingOptions
from passes.notes import notes_of
from passes.pipeline import lower
from passes.read import external_files, read_network, read_proto
from passes.set_float32 import set_float32
from passes.set_inputs import set_inputs
from passes.set_shapes import Sizes, set_shapes
from passes.verify import random_inputs
from passes.verify_mapping import Verification, verify_mapping
from passes.watch import Watch, all_of, save_passes, verify_each

if TYPE_CHECKING:
    from cimc.api.choose_digital import DigitalChoice
    from cimc.api.choose_layout import LayoutChoice

MOST_DB = 120.0  # float32 has no more
VERIFIED_BYTES = 2**30  # onnxruntime holds several copies of the weights
VERIFIED_LAYERS = 3000  # with more, onnxruntime takes minutes to load the mapped network


@dataclass(frozen=True)
class Compiled:
    """Result of `compile`. verification: how far the outputs are from onnxruntime's on the original network; None when
    not verified. notes: one line for each thing that was decided on the way and that the user should know.
    digital_choice: what was measured and chosen for `digital_budget`; layout_choice: for a target.
    """

    artifact: Artifact
    verification: Verification | None
    notes: tuple[str, ...] = ()
    digital_choice: "DigitalChoice | None" = None
    layout_choice: "LayoutChoice | None" = None

    @property
    def verify_ideal(self) -> float | None:
        """The largest absolute difference with ideal converters; None when not verified."""
        return None if self.verification is None else self.verification.ideal

    @property
    def verify_chip(self) -> float | None:
        """The largest absolute difference with the chip's converters; None when not verified or not simulated."""
        return None if self.verification is None else self.verification.chip

    def _repr_html_(self) -> str:
        mapping, cost = self.artifact.mapping, self.artifact.mapping.cost
        rows = [
            (mapped.name, f"{mapped.rows} x {mapped.columns}", len(mapped.blocks), one.energy_mj)
            for mapped, one in zip(mapping.layers, cost.layers, strict=True)
        ]
        total = ("total", f"{cost.weights:,}", cost.crossbars, cost.energy_mj)
        title = f"{self.artifact.model} on {self.artifact.chip.name}, {cost.pipelined_latency_ms:.3g} ms an input"
        return html_table(title, ("layer", "weights", "array blocks", "mJ an input"), [*rows, total])


def compile(
    model: str | Path | onnx.ModelProto,
    chip: str | Path | Chip,
    *,
    device: str | Path | None = None,
    output: str | Path | None = None,
    input_range: tuple[float, float] | None = None,
    calibrate: Dataset | None = None,
    max_chips: int | None = None,
    row_split: RowSplit | str | None = None,
    rows_per_read: int | Mapping[str, int] | None = None,
    groups_per_read: int | Mapping[str, int] | None = None,
    verify: bool | None = None,
    shapes: Mapping[str, Sizes] = MappingProxyType({}),
    constants: Mapping[str, npt.ArrayLike] = MappingProxyType({}),
    verify_passes: bool = False,
    passes_folder: str | Path | None = None,
    objective: str | None = None,
    arrays: int | None = None,
    seed: int = 0,
    mapper_seconds: float | None = None,
    share_weights: ShareWeights | str = ShareWeights.auto,
    fill_rows: int | Mapping[str, int] | None = None,
    digital: Sequence[str] = (),
    digital_budget: float | None = None,
    target_snr: float | None = None,
    min_agreement: float | None = None,
    curve: bool = False,
    options: str | Path | Mapping[str, Any] | None = None,
    note: Note = unsaid,
) -> Compiled:
    """Lower an ONNX network, map it on a chip, and compare it with onnxruntime.

    Args:
        model: the ONNX file, or the network in memory, such as `from_torch` gives.
        chip: name of a built-in chip, path of a TOML file, or a chip in memory.
        device: name or path of a device in place of the whole of the chip's `[cell]`.
        output: the `.cim` file to write; None: nothing is written.
        input_range: least and greatest value of the network's inputs; a negative one makes the first layer signed.
            None: 0 to 1, or what `calibrate` says.
        calibrate: data to take the input range from: what the network sees of all its samples.
        max_chips: refuse a network that needs more chips.
        row_split: channel or flat, in place of the chip's own.
        rows_per_read: most weight rows of an array that are driven at once; the others follow in further reads, which
            cost time and energy, and spare the ADC's range. A number for all layers, or numbers by layer ("" stands for
            all others); None: all rows.
        groups_per_read: as much of the groups of a convolution that lie in one array: with their rows driven at once, a
            column has the idle current of the rows of the others. None: all, and cells between them carry no current.
        verify: run the comparison; None: unless the weights are larger than `VERIFIED_BYTES`, or
            there are more layers than `VERIFIED_LAYERS`.
        shapes: sizes of inputs by name, in place of those that are not static.
        constants: values of inputs by name, which are no inputs any more, such as a sample rate.
        verify_passes: compare after every network pass too, and name the first that changes the outputs.
        passes_folder: keep the network after every pass there.
        objective: what copies are for, a name in `passes/mapper/objectives/` or of a plug-in; None: one copy each.
        arrays: the budget of the objective; None: those of one chip.
        seed: of the mapper's search.
        mapper_seconds: after which no further layout is tried for the objective: the best so far is taken, with its
            bound, and the file depends on the machine's speed. None: the search has no such end.
        share_weights: whether a weight that several products use is one layer, with one trained value; auto: unless
            all its elements are equal, or an exporter stored equal parameters of different names once.
        fill_rows: weight rows that layers with fewer rows fill: each row is held as often as fits, so that few rows use
            more of the ADC's codes, and what devices and reads err is averaged; more than an array has are further
            arrays, whose codes are added; as `rows_per_read`.
        digital: layers left to the digital side, by name or pattern (`*`, `?`).
        digital_budget: of all multiply-accumulates the share, 0 to 1, that more layers may have which are left digital:
            those whose error costs the outputs most, measured on training samples of `calibrate`. With a target: in
            place of the budgets that are tried.
        target_snr: of the outputs on a chip with its noise against float32, in dB: the cheapest setting of fill_rows,
            rows_per_read and digital layers that has it on samples of `calibrate` is taken (`choose_layout`).
        min_agreement: the same for the share of cases, 0 to 1, with the same largest entry of the output.
        curve: measure all settings, although a cheap one reaches the target.
        options: of single layers, an options file or its tables: {"layer": {"conv1": {"adc": {"bits": 10}}}}. What
            they say goes before what the options above say of all layers (`cimc.layer_options`).
        note: called with a line for each setting that was measured.

    Raises:
        CimcError: one line for everything that can be wrong with the options, the files and the network.
    """
    if output is not None:
        for read in (chip, device, options):
            if isinstance(read, Path) or (isinstance(read, str) and read.endswith(".toml")):
                require_different(read, output)
    if calibrate is not None:
        require_data(calibrate, "calibrate")
    if input_range is not None and calibrate is not None:
        raise CimcError("--input-range and --calibrate both set the input range; leave one of them out")
    mapping_options = MappingOptions(
        input_range=(0.0, 1.0) if input_range is None else input_range,
        max_chips=max_chips,
        row_split=None if row_split is None else check_choice(RowSplit, "row_split", row_split),
        rows_per_read=check_by_layer("rows_per_read", rows_per_read, 1),
        groups_per_read=check_by_layer("groups_per_read", groups_per_read, 1),
        objective=objective,
        arrays=arrays,
        seed=seed,
        seconds=mapper_seconds,
    )
    if digital_budget is not None:
        digital_budget = check_number("--digital-budget", digital_budget, 0.0, 1.0)
        if calibrate is None:
            raise CimcError("--digital-budget measures what layers cost the outputs; give it data with --calibrate")
    target_snr = None if target_snr is None else check_number("--target-snr", target_snr, 0.0, MOST_DB)
    min_agreement = None if min_agreement is None else check_number("--min-agreement", min_agreement, 0.0, 1.0)
    wanted = target_snr is not None or min_agreement is not None
    if wanted and calibrate is None:
        raise CimcError("--target-snr and --min-agreement are measured on data; give it with --calibrate")
    if curve and not wanted:
        raise CimcError("--curve measures all settings for a target; add --target-snr or --min-agreement")
    filled = check_by_layer("fill_rows", fill_rows, 1, MOST_FILLED_ROWS)
    sharing = check_choice(ShareWeights, "share_weights", share_weights)
    description, text = chip_of(chip, device)
    network, name = _read(model, output)
    set_float32(network)
    set_inputs(network, constants)
    set_shapes(network, shapes)
    said: tuple[str, ...] = ()
    if calibrate is not None:
        found, line = range_of(network, calibrate)
        mapping_options, said = replace(mapping_options, input_range=found), (line,)
    watches: list[Watch] = []
    if passes_folder is not None:
        watches.append(save_passes(Path(passes_folder)))
    if verify_passes:
        lower(network, share_weights=sharing)  # what is wrong with the network itself is said before a pass is blamed
        watches.append(verify_each(network, random_inputs(network, 2, 0, mapping_options.input_range)))
    lowered = lower(network, all_of(watches) if watches else None, share_weights=sharing)
    reasons = left_by_chip(lowered, description) | dict.fromkeys(matching_layers(lowered, digital), "--digital")
    of_layers = layer_options(options, crossbar_layers(lowered), chip=description, digital=reasons)
    plain = leave_digital(lowered, reasons | dict.fromkeys(of_layers.digital, "--options"))
    mapping_options = replace(
        mapping_options,
        rows_per_read={**of_layers.numbers["rows_per_read"], **mapping_options.rows_per_read},
        groups_per_read={**of_layers.numbers["groups_per_read"], **mapping_options.groups_per_read},
        settings=of_layers.settings,
    )
    filled = {**of_layers.numbers["fill_rows"], **filled}
    layout = choice = None
    if wanted and calibrate is not None:
        from cimc.api.choose_layout import Target, choose_layout  # needs JAX

        layout, missed = choose_layout(
            plain,
            description,
            mapping_options,
            calibrate,
            Target(target_snr, min_agreement),
            fill_rows=filled,
            digital_budget=digital_budget,
            curve=curve,
            note=note,
        )
        lowered, mapping = layout.chosen.network, layout.chosen.mapping
        said = said if missed is None else (*said, missed)
    else:
        lowered, mapping = lay_out(plain, description, mapping_options, filled, {})
        if digital_budget is not None and calibrate is not None:
            from cimc.api.choose_digital import choose_digital  # needs JAX

            choice = choose_digital(
                plain, description, mapping_options, calibrate, digital_budget, fill_rows=filled, seed=seed
            )
            lowered, mapping = lay_out(plain, description, mapping_options, filled, choice.reasons)
    said += note_without_groups(mapping, mapping_options.groups_per_read)
    if verify is None:
        verify = _weight_bytes(lowered) <= VERIFIED_BYTES and len(mapping.layers) <= VERIFIED_LAYERS
    verification = verify_mapping(network, lowered, mapping, description) if verify else None
    history = {} if layout is None else {"layout": layout.figures}
    artifact = Artifact(name, lowered, description, text, mapping, history=history)
    if output is not None:
        write_artifact(output, artifact)
    return Compiled(artifact, verification, (*said, *notes_of(lowered)), choice, layout)


compile_model = compile  # its earlier name


def _read(model: str | Path | onnx.ModelProto, output: str | Path | None) -> tuple[ir.Model, str]:
    """The network and its name. Raises CimcError: it cannot be read, or the output is one of its files."""
    if isinstance(model, onnx.ModelProto):
        return read_proto(model), model.graph.name or "network"
    if output is not None:
        require_different(model, output)
    network = read_network(Path(model))
    if output is not None and Path(output).resolve() in external_files(Path(model)):
        raise CimcError(f"cannot write {output}: it holds the weights of {model}; choose another name with -o")
    return network, Path(model).stem


def _weight_bytes(model: ir.Model) -> int:
    tensors = [value.const_value for value in model.graph.initializers.values()]
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)
