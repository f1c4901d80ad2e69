"""Trained networks that public packages ship, through every command of the tool, beside onnxruntime.

    python -m tests.benchmarks.networks --work DIR [NAME ...] [--chip CHIP] [--only STEP ...] [--again]

Installs the packages into DIR, makes inputs, and for each network of `networks.toml`: runs the original in
onnxruntime, compiles, evaluates, exports, runs the package's `model.onnx` in onnxruntime, and deploys five chips, each
in a process of its own with a time limit. What was done is kept in DIR and not done again; `--again` repeats what
failed. Prints the table; writes it to `docs/measured/networks.md` where `--write` is given.
"""

import argparse
import datetime
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.networks.listed import Network, Work, read_list
from tests.benchmarks.networks.measure import Measured, measure, read_measured
from tests.benchmarks.networks.packages import PHOTOS, install
from tests.benchmarks.networks.table import tables

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "measured" / "networks.md"
Command = tuple[str, list[str]]


def commands(network: Network, work: Work, chip: str) -> Iterator[Command]:
    """Each step of a network with its command; a later step is asked for after an earlier one was done."""

    def file(name: str) -> str:
        return str(work.of(network, name))

    def module(name: str, *arguments: str) -> list[str]:
        return [sys.executable, "-m", f"tests.benchmarks.networks.{name}", *arguments]

    def cimc(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "cimc", *arguments, "--json"]

    model, inputs, compiled, package = (
        str(work.model(network)),
        file("inputs.npz"),
        file("network.cim"),
        file("package"),
    )
    constants = [f"{name}={value}" for name, value in network.constants.items()]
    yield "inputs", module("inputs", str(work.folder), network.name, inputs)
    yield "original", module("original", model, inputs, file("original.npz"), *constants)
    made = read_measured(work.of(network, "inputs.json")).figures
    options = ["--chip", chip, "--input-range", f"{made['low']},{made['high']}"]
    options += [part for shape in network.shapes for part in ("--shape", shape)]
    options += [part for constant in constants for part in ("--set", constant)]
    yield "compile", cimc("compile", model, *options, "-o", compiled)
    yield "eval", cimc("eval", compiled, "--data", inputs)
    yield "export", cimc("export", compiled, "--data", inputs, "-o", package)
    yield "model.onnx", module("original", f"{package}/model.onnx", inputs, file("exported.npz"))
    yield "agreement", module("agreement", file("original.npz"), file("exported.npz"))
    yield "deploy", cimc("deploy", package, "--data", inputs, "--chips", "5")


def work_off(network: Network, work: Work, options: argparse.Namespace) -> dict[str, Measured]:
    """Do the steps of a network that are not done, up to the first that fails; the outcome of each."""
    done: dict[str, Measured] = {}
    for step, command in commands(network, work, options.chip):
        path = work.of(network, f"{step}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and (read_measured(path).status == 0 or not options.again):
            done[step] = read_measured(path)
        else:
            found = measure(command, limit_s=options.limit, limit_mb=options.memory, folder=ROOT)
            done[step] = replace(found, said=found.said.replace(f"{work.folder}/", ""))
            done[step].write(path)
            outcome = done[step].said if done[step].status else "done"
            print(f"{network.name} {step}: {done[step].seconds} s, {done[step].peak_mb} MB, {outcome}", flush=True)
        if done[step].status or step == options.until:
            break
    return done


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks of the list; default: all")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "cimc-networks")
    parser.add_argument("--chip", default="brram-256x64", help="of all commands; another one needs another --work")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one command")
    parser.add_argument("--memory", type=int, default=8192, help="MB that one command may take")
    parser.add_argument("--until", help="the last step, such as compile")
    parser.add_argument("--again", action="store_true", help="repeat what failed")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    return parser.parse_args()


def main() -> None:
    """Install, run, print."""
    options = parse_options()
    networks, work = read_list(options.names), Work(options.work.resolve())
    missing = {}
    for package in sorted({*PHOTOS, *(network.package for network in networks)}):
        if said := install(package, work):
            missing[package] = said
    absent = Measured(1, 0, 0, {}, "")
    done = {
        network.name: {"install": absent} if network.package in missing else work_off(network, work, options)
        for network in networks
    }
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    state = f"{datetime.date.today()}, commit {commit.stdout.strip() or 'not known'}"
    text = tables(networks, done, chip=options.chip, state=state)
    print(text)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
