"""From a sweep's points to tasks: which chip each has, which file it begins with, what points share."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cimc.api.sources import chip_of
from cimc.api.sweep_point import Compilation, Point, Training, layout_text
from cimc.api.sweep_training import training_options
from cimc.artifact import Artifact, read_artifact
from cimc.chip import parse_chip
from cimc.errors import CimcError
from cimc.layer_options import layer_key
from cimc.package import Package, read_package
from cimc.sweep_spec import CHIP_SECTIONS, LAYER, Devices, Do, Fields, SweepSpec
from cimc.sweep_values import Interval, canonical
from passes.read import external_files

DEFAULT_CHIP = "brram-256x64"  # as of `cimc compile`
SOURCE = "source"  # the name of the given .cim file
# What a read does, and nothing else: trained devices and input ranges stay as they are.
READING = ("cell.read_noise_uS", "cell.read_noise_polynomial_uS", "cell.flicker.", "adc.noise_lsb", "energy.")
KEPT = (*READING, "adc.")


@dataclass(frozen=True)
class Planned:
    """A point with what has to be there before it: at most one compilation and one training, by the name of their file.

    error: why it cannot be computed at all.
    """

    number: int
    fields: Fields
    seed: int
    point: Point | None = None
    compilation: tuple[str, Compilation] | None = None
    training: tuple[str, Training] | None = None
    error: str | None = None
    order: tuple[Any, ...] = field(default=())


@dataclass(frozen=True)
class Source:
    """What is swept. contents: of a .cim file or a package; None: an ONNX file."""

    path: Path
    contents: Artifact | Package | None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.path.stem if self.contents is None else self.contents.model

    @property
    def kind(self) -> str:
        """ONNX, compiled, trained or package."""
        if isinstance(self.contents, Package):
            return "package"
        return "ONNX" if self.contents is None else "trained" if self.contents.state else "compiled"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the files; of a package that of its manifest, which holds those of all others."""
        files = [self.path / "manifest.json"] if self.path.is_dir() else [self.path]
        if self.contents is None:
            files += sorted(external_files(self.path))
        digest = hashlib.sha256()
        for file in files:
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
        return digest.hexdigest()


def read_source(path: str | Path) -> Source:
    """The ONNX file, `.cim` file or package folder at a path. Raises CimcError where it is none."""
    path = Path(path)
    if path.is_dir():
        return Source(path, read_package(path))
    if path.suffix != ".onnx":
        return Source(path, read_artifact(path))
    if not path.is_file():
        raise CimcError(f"{path} does not exist; give an ONNX file, a .cim file or a package folder")
    return Source(path, None)


class Planner:
    """Plans points of one source; what it finds out once, such as chips, it keeps."""

    def __init__(self, source: Source, spec: SweepSpec, files: Path, *, here: bool) -> None:
        """here: workers write trained files into `files`; False: they return them."""
        self.source, self.spec, self._files, self._here = source, spec, files, here
        self.trains = any(name.startswith("train.") for name in spec.fields) or spec.do is Do.train
        self.do = spec.do or self._default()
        self._chips: dict[str, tuple[str, str] | CimcError] = {}
        self._check()
        self.written = self._written()

    def plan(self, number: int, fields: Fields, seed: int) -> Planned:
        """The tasks of a point; what is wrong with it alone stands in its `error`."""
        try:
            return self._planned(number, fields, seed)
        except CimcError as error:
            return Planned(number, fields, seed, error=str(error))

    def chips_digest(self) -> str:
        """SHA-256 of the texts of all chips and devices that the sweep names, without what it varies of them."""
        digest = hashlib.sha256()
        named = [self.spec.fields.get(name, ()) for name in ("chip", "export.chip", "device")]
        chips, targets, devices = (() if isinstance(values, Interval) else values for values in named)
        for chip in (*(chips or (None,)), *targets):
            for device in devices or (None,):
                given = {name: value for name, value in (("chip", chip), ("device", device)) if value is not None}
                found = self._chip(given)
                digest.update((str(found) if isinstance(found, CimcError) else found[0]).encode())
        return digest.hexdigest()

    def _planned(self, number: int, fields: Fields, seed: int) -> Planned:
        source, options = self.source, _by_section(fields)
        changed = {name: value for name, value in fields.items() if is_of_chip(name)}
        layers = _of_layers(fields)
        target = options["export"].pop("chip", None)  # other fields of the chip are its own, but where one is trained
        to_export = {"chip": target}
        if target is not None and not self.trains:
            to_export = {**changed, "chip": target}
            changed = {name: value for name, value in changed.items() if name == "chip"}
        text, layout = self._chip_of(changed)
        own = not changed and source.contents is not None  # the file's or package's own chip
        chip = None if own else text
        file: str | None = None if source.kind == "package" else SOURCE
        compilation = training = None
        compiled_with_layers = bool(layers) and source.kind == "ONNX" and target is None
        if layers:
            options["compile" if compiled_with_layers else "export"]["options"] = layers
        if source.kind == "ONNX":
            of_mapper = seed if "objective" in options["compile"] else 0
            # Settings of layers are against the chip's own, which the mapper alone does not read.
            of_chip = text if compiled_with_layers else layout
            file = _named("compiled", source.digest, of_chip, options["compile"], of_mapper)
            place = self._files / file
            compilation = (file, Compilation(source.path, text, options["compile"], of_mapper, place))
        if self.trains:
            training_options(options["train"], seed)
            assert file is not None
            name = _named("trained", source.digest, file, chip, options["train"], seed)
            training = (name, Training(file, chip, options["train"], seed, self._files / name if self._here else None))
            file, chip = name, None
        if target is not None:
            chip = text = self._chip_of(to_export)[0]
        measured = {section: options[section] for section in ("eval", "export", "deploy")}
        point = Point(self.do, file, chip, self.written, seed, measured)
        # Next to each other: what shares a file, a package, or compiled programs, whose shapes follow from these.
        order = (file or "", layout, _without_cell(text), canonical(options["export"]), number)
        return Planned(number, fields, seed, point, compilation, training, order=order)

    def _chip_of(self, changed: Fields) -> tuple[str, str]:
        found = self._chip(changed)
        if isinstance(found, CimcError):
            raise found
        return found

    def _chip(self, changed: Fields) -> tuple[str, str] | CimcError:
        """The TOML of a chip with these fields, and what the mapper reads of it; or why there is none."""
        key = canonical(changed)
        if key not in self._chips:
            contents = self.source.contents
            base: Any = changed.get("chip", DEFAULT_CHIP if contents is None else contents.chip)
            settings = _tables({name: value for name, value in changed.items() if name not in ("chip", "device")})
            try:
                chip, text = chip_of(base, changed.get("device"), settings=settings)
                self._chips[key] = text, layout_text(chip)
            except CimcError as error:
                self._chips[key] = error
        return self._chips[key]

    def _default(self) -> Do:
        sections = {name.partition(".")[0] for name in self.spec.fields}
        if self.source.kind == "package" or sections & {"export", "deploy"}:
            return Do.deploy
        return Do.train if self.trains else Do.eval

    def _check(self) -> None:
        """Raises CimcError for fields that the source or what is done does not have."""
        kind, fields = self.source.kind, self.spec.fields

        def refuse(prefix: str, why: str) -> None:
            for name in fields:
                if name.startswith(prefix):
                    raise CimcError(f"{name} cannot be varied here: {why}")

        if kind != "ONNX":
            refuse("compile.", f"{self.source.path} is compiled already; sweep the ONNX file")
        if kind == "package":
            if self.do is not Do.deploy:
                raise CimcError(f"{self.source.path} is a package, which is deployed; leave out --do {self.do}")
            for prefix in ("train.", "export.", "chip", "device", f"{LAYER}."):
                refuse(prefix, f"{self.source.path} is a package; sweep the .cim file that it was exported from")
        if self.do is Do.deploy:
            refuse("eval.", "packages are deployed; it is an option of --do eval")
        else:
            for prefix in ("export.", "deploy."):
                refuse(prefix, "it is an option of --do deploy")
        if self.do is Do.eval:
            refuse("train.", "it is an option of --do train")
        if kind != "ONNX" and self.do is not Do.deploy:
            refuse(f"{LAYER}.", f"{self.source.path} is compiled already; sweep the ONNX file, or take --do deploy")
        if kind != "ONNX" and "export.chip" in fields and not self.trains:
            refuse("chip", "export.chip says which chip it is")
        if kind == "trained" and self.trains and any(is_of_chip(name) for name in fields):
            raise CimcError(
                "training goes on from the devices of a trained file, those of its own chip; sweep the compiled file"
            )

    def _written(self) -> bool:
        """Whether a trained file's weights are written on the chip of each point."""
        names = [name for name in self.spec.fields if is_of_chip(name)]
        if self.source.kind != "trained" or self.do is not Do.eval or not names:
            return False
        if self.spec.devices is Devices.keep:
            for name in names:
                if not name.startswith(KEPT):
                    raise CimcError(f"--devices keep: {name} changes what devices hold, not how they are read")
            return False
        return self.spec.devices is Devices.write or not all(name.startswith(READING) for name in names)


def is_of_chip(field: str) -> bool:
    """Whether a field is one of the chip or its device."""
    return field in ("chip", "device") or field.partition(".")[0] in CHIP_SECTIONS


def _by_section(fields: Fields) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = {name: {} for name in ("compile", "train", "eval", "export", "deploy")}
    for name, value in fields.items():
        section, _, option = name.partition(".")
        if section in options:
            one_of_several = option in ("digital", "at") and isinstance(value, str | int | float)
            options[section][option] = [value] if one_of_several else value
    return options


def _of_layers(fields: Fields) -> dict[str, Any]:
    """The fields of single layers as the tables of an options file; empty where there are none."""
    tables: dict[str, dict[str, Any]] = {}
    for path, value in fields.items():
        if path.startswith(f"{LAYER}."):
            name, key = layer_key(path.removeprefix(f"{LAYER}."))
            tables.setdefault(name, {})[key] = value
    return {LAYER: tables} if tables else {}


def _tables(settings: Fields) -> dict[str, Any]:
    """Tables from dotted keys. Raises CimcError where a value stands for a section."""
    tables: dict[str, Any] = {}
    for path, value in settings.items():
        *sections, key = path.split(".")
        table: Any = tables
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise CimcError(f"{path} is varied beside the section that it is in; vary one of them")
        table[key] = value
    return tables


def _named(what: str, *parts: Any) -> str:
    return f"{what}-{hashlib.sha256(canonical(list(parts)).encode()).hexdigest()[:24]}.cim"


def _without_cell(text: str) -> str:
    return parse_chip(text, "of a point").model_dump_json(exclude={"cell"})
