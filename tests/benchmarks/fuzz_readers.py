"""Coverage-guided fuzzing of what reads files; each must work or refuse in one line. Needs `pip install atheris`.

    python -m tests.benchmarks.fuzz_readers [--seconds 60] [--readers cim package ...] [--found FOLDER]

libFuzzer changes valid files and keeps changes that reach other lines of cimc, passes and tomllib. What stands under
digests (`.cim`, packages, members of an NPZ) is changed inside and sealed anew, so that its reader is reached. What
counts as a fault is what `fuzz.py` counts: another exception than CimcError, a message of several lines, memory that
grows by more than 1 GB, and 60 s without an end. Each reader runs in a process of its own; the first input of every
fault is kept in FOLDER.
"""

import argparse
import contextlib
import hashlib
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.mutated_files import Good

INSTRUMENTED = ["cimc", "passes", "tomllib"]
SECONDS_AN_INPUT = 60
LARGEST = 60_000  # bytes of an input


@dataclass(frozen=True)
class Reader:
    """Valid inputs, and what reads a changed one."""

    seeds: list[bytes]
    read: Callable[[bytes], object]


def _texts(parse: Callable[[str], object], texts: list[str]) -> Reader:
    return Reader([text.encode() for text in texts], lambda data: parse(data.decode("utf-8", "replace")))


def _written(path: Path, read: Callable[[Path], object], seeds: list[bytes]) -> Reader:
    def use(data: bytes) -> None:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        read(path)

    return Reader(seeds, use)


def _members(names: list[str], members: dict[str, bytes], read: Callable[[str, bytes], object]) -> Reader:
    """The first byte of an input says which member is changed, the others are what it holds."""
    seeds = [bytes([number]) + members[name] for number, name in enumerate(names)]
    return Reader(seeds, lambda data: read(names[data[0] % len(names)], data[1:]) if data else None)


def readers(folder: Path, good: "Good") -> dict[str, Callable[[], Reader]]:
    """What makes each reader."""
    import numpy as np

    from cimc.artifact import read_artifact
    from cimc.chip import chip_names, chip_text, parse_chip
    from cimc.data.load import load
    from cimc.data.measured import read_measurements
    from cimc.device_file import device_names, device_text, parse_device
    from cimc.fault_map import read_fault_map, read_measured
    from cimc.mapping_file import parse_mapping
    from cimc.package import SEAL, read_package
    from passes.mapper.map_network import map_network
    from tests.mutated_files import SWEEP, fault_map_texts, idx_files, measurement_texts, read_sweep_file
    from tests.sealing import members_of, redigested, sealed

    def chip(text: str) -> None:
        mapping = map_network(good.lowered, parse_chip(text, "chip.toml"))
        assert parse_mapping(mapping.model_dump_json(), "out.cim") == mapping

    def cim(name: str, data: bytes) -> None:
        whole = {**members_of(good.artifact), name: data}
        members = whole if name == "manifest.json" else redigested(good.artifact, name, data)
        (folder / "changed.cim").write_bytes(sealed(members))
        read_artifact(folder / "changed.cim")

    def package(name: str, data: bytes) -> None:
        files = {"manifest.json": good.package["manifest.json"], name: data}
        if name != "manifest.json":
            manifest = json.loads(files["manifest.json"])
            manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
            files["manifest.json"] = json.dumps(manifest).encode()
        files[SEAL] = f"{hashlib.sha256(files['manifest.json']).hexdigest()}  manifest.json\n".encode()
        for file, content in files.items():
            (folder / "package" / file).write_bytes(content)  # where `make_good` has written it
        try:
            read_package(folder / "package")
        finally:
            (folder / "package" / name).write_bytes(good.package[name])

    arrays = members_of(good.data)

    def npz(name: str, data: bytes) -> None:
        (folder / "data.npz").write_bytes(_zipped({**arrays, name: data}))
        load(str(folder / "data.npz"))

    def idx(name: str, data: bytes) -> None:
        (folder / "mnist").mkdir(exist_ok=True)
        for file, content in {**idx_files(), name: data}.items():
            (folder / "mnist" / file).write_bytes(content)
        load("mnist", folder / "mnist")

    def cells(read: Callable[[Path], object]) -> Callable[[str, bytes], object]:
        def use(name: str, data: bytes) -> None:
            (folder / name).write_bytes(data)
            read(folder / name)

        return use

    index = np.arange(6)
    listed = io.BytesIO()
    np.savez(listed, array=index * 0, row=index, column=index, conductance_uS=index + 1.0)
    by_kind, by_value = (text.encode() for text in fault_map_texts())
    maps = {"kinds.csv": by_kind, "values.csv": by_value, "map.npz": listed.getvalue()}
    in_package = [name for name in sorted(good.package) if not name.endswith((".csv", SEAL, ".md"))]
    return {
        "chip": lambda: _texts(chip, [chip_text(name) for name in chip_names()]),
        "device": lambda: _texts(
            lambda text: parse_device(text, "device.toml"), [device_text(name) for name in device_names()]
        ),
        "cim": lambda: _members(sorted(members_of(good.artifact)), members_of(good.artifact), cim),
        "package": lambda: _members(in_package, good.package, package),
        "arrays": lambda: _members(sorted(arrays), arrays, npz),
        "npz": lambda: _written(folder / "whole.npz", lambda path: load(str(path)), [good.data]),
        "idx": lambda: _members(sorted(idx_files()), idx_files(), idx),
        "measurements": lambda: _written(
            folder / "measured.csv",
            lambda path: read_measurements(path, 0.2),
            [text.encode() for text in measurement_texts()],
        ),
        "fault map": lambda: _members(
            sorted(maps), maps, cells(lambda path: read_fault_map(path, good.mapping, chip=good.chip))
        ),
        "measured": lambda: _members(
            sorted(maps), maps, cells(lambda path: read_measured(path, good.mapping, chip=good.chip, arrays=1))
        ),
        "sweep file": lambda: _written(folder / "sweep.toml", read_sweep_file, [SWEEP.encode()]),
    }


NAMES = (
    *("chip", "device", "cim", "package", "arrays", "npz", "idx", "measurements", "fault map", "measured"),
    "sweep file",
)


def _zipped(members: dict[str, bytes]) -> bytes:
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def work(name: str, seconds: int, found: Path) -> None:
    """A worker: fuzz one reader; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from tests.benchmarks.fuzz import judged
        from tests.mutated_files import make_good
    seen: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="cimc-fuzz-") as temporary:
        folder = Path(temporary)
        with contextlib.redirect_stdout(io.StringIO()), atheris.instrument_imports(include=INSTRUMENTED):
            reader = readers(folder, make_good(folder))[name]()
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(reader.seeds):
            (corpus / str(number)).write_bytes(seed)
        words = sorted({word for seed in reader.seeds for word in re.findall(rb"[A-Za-z_]{3,40}", seed)})
        dictionary = folder / "words"
        dictionary.write_text("".join(f'"{word.decode()}"\n' for word in words[:500]))

        def test(data: bytes) -> None:
            with contextlib.redirect_stderr(io.StringIO()):
                result = judged(lambda: reader.read(data))
            if result.startswith("FAULT") and result not in seen:
                seen.add(result)
                place = found / f"{name.replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:12]}"
                place.write_bytes(data)
                print(f"{result}, kept as {place}", flush=True)

        limits = [f"-max_total_time={seconds}", f"-timeout={SECONDS_AN_INPUT}", "-rss_limit_mb=6000"]
        named = [f"-dict={dictionary}"] if words else []  # libFuzzer refuses an empty one
        where = [f"-artifact_prefix={found}/", f"-max_len={LARGEST}", str(corpus)]
        atheris.Setup([name, *limits, *named, *where], test)
        atheris.Fuzz()


def main() -> None:
    """Fuzz the readers one after the other and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--readers", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--found", type=Path, default=Path(tempfile.gettempdir()), help="where faults are kept")
    parser.add_argument("--work", choices=NAMES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.seconds, options.found)
        return
    try:
        import atheris  # noqa: F401
    except ImportError:
        raise SystemExit("atheris is not installed: pip install atheris") from None
    options.found.mkdir(parents=True, exist_ok=True)
    faults = 0
    print("| reader | inputs | edges: first, last | inputs kept | faults |\n|---|---|---|---|---|")
    for name in options.readers:
        command = [sys.executable, "-m", "tests.benchmarks.fuzz_readers", "--work", name]
        command += ["--seconds", str(options.seconds), "--found", str(options.found)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("FAULT")]
        steps = re.findall(r"^#(\d+)\s+(\w+)\s+cov: (\d+) ft: \d+ corp: (\d+)/", done.stderr, re.MULTILINE)
        if done.returncode or not steps:
            lines.append(f"FAULT the process ended with {done.returncode}: {done.stderr[-400:]!r}")
        faults += len(lines)
        first = next((step for step in steps if step[1] == "INITED"), None)
        inputs, edges, kept = (steps[-1][0], f"{first and first[2]}, {steps[-1][2]}", steps[-1][3]) if steps else "???"
        print(f"| {name} | {inputs} | {edges} | {kept} | {len(lines)} |", *lines, sep="\n", flush=True)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
