"""Whether two checkouts give the same bits: training in all its options, export, `model.onnx` and deployment.

    python -m tests.benchmarks.same_bits --against OTHER_CHECKOUT [--seeds 0 1] [--only NAME ...]

Every run is compiled, trained, evaluated, exported and deployed by the commands of either checkout, on the synthetic
digits; all arrays of the trained file and of the package, the history and the figures are compared by digest. Run it
before and after a change that should change no number. `--record FILE` alone writes the digests of this checkout.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SHORT = ("--epochs", "2", "--steps-per-epoch", "30")
LEVELS = "levels-4.toml"
# name: (model, chip, options of `cimc train`)
RUNS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "default-soc": ("lenet1", "brram-soc", ()),
    "default-256x64": ("lenet1", "brram-256x64", ("--batch-size", "8")),
    "lenet5": ("lenet5", "brram-256x64", ("--schedule", "constant")),
    "hermes": ("lenet1", "hermes", ("--schedule", "plateau")),
    "levels": ("lenet1", LEVELS, ()),
    "naive": ("lenet1", "brram-soc", ("--method", "naive")),
    "naive-target": ("lenet1", "brram-soc", ("--method", "naive", "--sync", "target")),
    "float": ("lenet1", "brram-soc", ("--method", "float")),
    "drop": ("lenet1", "brram-256x64", ("--residual", "drop")),
    "target": ("lenet1", "brram-256x64", ("--sync", "target", "--threshold", "0.1")),
    "pulse": ("lenet1", "brram-soc", ("--write", "pulse")),
    "pulse-target": ("lenet1", "brram-soc", ("--write", "pulse", "--sync", "target", "--residual", "drop")),
    "analog": ("lenet1", "brram-256x64", ("--backward", "analog")),
    "analog-none": ("lenet1", "brram-256x64", ("--backward", "analog", "--sync", "none")),
    "pulse-none": ("lenet1", "brram-soc", ("--write", "pulse", "--backward", "analog", "--sync", "none")),
}
# Figures that are wall times, or name files and versions.
UNEQUAL = ("_s", "images_per_s", "seconds", "clock", "time", "version", "tool", "output", "package", "report")


def command(*words: str) -> dict[str, Any]:
    """Run a command of the checkout in this process; its JSON."""
    sys.argv = ["cimc", *words, "--json"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        runpy.run_module("cimc", run_name="__main__")
    figures: dict[str, Any] = json.loads(printed.getvalue())
    return figures


def digest(content: bytes) -> str:
    """The start of the SHA-256 of a content."""
    return hashlib.sha256(content).hexdigest()[:16]


def timeless(value: Any) -> Any:
    """Figures without those that are never equal."""
    if isinstance(value, dict):
        return {key: timeless(part) for key, part in value.items() if not key.endswith(UNEQUAL)}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def of_figures(figures: Any) -> str:
    """Digest of figures."""
    return digest(json.dumps(timeless(figures), sort_keys=True).encode())


def of_trained(path: Path) -> dict[str, str]:
    """Digests of the arrays of a `.cim` file and of its history's epochs."""
    import zipfile

    from safetensors.numpy import load

    with zipfile.ZipFile(path) as archive:
        arrays = load(archive.read("state.safetensors"))
        history = json.loads(archive.read("history.json"))
    found = {f"state {name}": digest(array.tobytes()) for name, array in sorted(arrays.items())}
    return {**found, "history": of_figures(history.get("epochs", history))}


def of_package(folder: Path) -> dict[str, str]:
    """Digests of all files of a package but those with dates and versions, `digital.safetensors` array by array."""
    from safetensors.numpy import load

    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".safetensors":
            arrays = load(path.read_bytes())
            found |= {f"package {name} {key}": digest(array.tobytes()) for key, array in sorted(arrays.items())}
        elif path.suffix in (".npy", ".csv", ".onnx", ".npz"):
            found[f"package {name}"] = digest(path.read_bytes())
    return found


def record(seeds: list[int], only: list[str]) -> dict[str, dict[str, str]]:
    """Digests of all runs of this checkout."""
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        text = (Path("cimc") / "chips" / "brram-256x64.toml").read_text(encoding="utf-8")
        lines = ["levels = 4" if line.startswith("granularity_uS") else line for line in text.splitlines()]
        (folder / LEVELS).write_text("\n".join(lines), encoding="utf-8")
        for name in only:
            model, chip, options = RUNS[name]
            chip = str(folder / chip) if chip.endswith(".toml") else chip
            compiled = folder / f"{name}.cim"
            command("compile", f"models/{model}.onnx", "--chip", chip, "-o", str(compiled))
            for seed in seeds:
                trained, package = folder / f"{name}-{seed}.cim", folder / f"{name}-{seed}"
                end = ("--seed", str(seed))
                figures = command(
                    "train", str(compiled), "--data", "digits", *SHORT, *options, *end, "-o", str(trained)
                )
                found[f"{name} {seed}"] = {
                    **of_trained(trained),
                    "train": of_figures(figures),
                    "eval": of_figures(command("eval", str(trained), "--data", "digits", *end)),
                    "export": of_figures(command("export", str(trained), "-o", str(package), *end)),
                    **of_package(package),
                    "deploy": of_figures(command("deploy", str(package), "--data", "digits", "--chips", "2", *end)),
                }
                print(name, seed, figures["accuracy"], file=sys.stderr, flush=True)
    return found


def recorded(checkout: Path, seeds: list[int], only: list[str]) -> dict[str, dict[str, str]]:
    """Digests of a checkout, from a process of its own."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        words = ["--record", file.name, "--seeds", *map(str, seeds), "--only", *only]
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        subprocess.run([sys.executable, str(Path(__file__)), *words], cwd=checkout, env=environment, check=True)
        found: dict[str, dict[str, str]] = json.loads(Path(file.name).read_text(encoding="utf-8"))
    return found


def main() -> None:
    """Record this checkout, or compare it with another and say where they differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--reference", type=Path, help="digests of the other checkout, recorded before")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=list(RUNS), default=list(RUNS))
    options = parser.parse_args()
    if options.record is not None:
        options.record.write_text(json.dumps(record(options.seeds, options.only), indent=1), encoding="utf-8")
        return
    if options.reference is not None:
        before = json.loads(options.reference.read_text(encoding="utf-8"))
    elif options.against is not None:
        before = recorded(options.against.resolve(), options.seeds, options.only)
    else:
        parser.error("give --against CHECKOUT, --reference FILE or --record FILE")
    after = recorded(ROOT, options.seeds, options.only)
    print("| run | arrays and figures | different |\n|---|---|---|")
    different = 0
    for name, found in after.items():
        names = sorted(found.keys() | before[name].keys())
        wrong = [key for key in names if found.get(key) != before[name].get(key)]
        different += len(wrong)
        print(f"| {name} | {len(names)} | {', '.join(wrong) or 'none'} |")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
