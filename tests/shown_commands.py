"""The command lines that README.md and docs/ show, and how to run them in a folder of their own.

A line of an indented or fenced block that begins with `cimc`, after a `$` or an `&&` too, is a command line; what
follows ` # ` is a comment, what follows ` > ` the file that takes its output.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx.parser
from onnx import helper, save

from cimc.data.digits import digits
from tests.networks import network_proto, weights

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
# Of a page's own names, what stands for them: the data of others, and a network of theirs.
SUBSTITUTES = {"mnist": "digits", "input=Nx3x224x224": "image=Nx1x28x28"}
# What makes the slow commands short.
SHORT = {"--epochs": "1", "--steps-per-epoch": "20", "--chips": "2"}


@dataclass(frozen=True)
class Shown:
    """A command line. arguments: those of `cimc`. to: the file that takes its output, or None."""

    page: str
    arguments: tuple[str, ...]
    to: str | None = None

    @property
    def command(self) -> str:
        """The command's name."""
        return self.arguments[0]

    def __str__(self) -> str:
        return f"{self.page}: cimc {shlex.join(self.arguments)}"


def shown_in_blocks(page: Path) -> list[Shown]:
    """The command lines of a page's blocks, in order."""
    return [line for text in _block_lines(page.read_text(encoding="utf-8")) for line in _commands(page.name, text)]


def shown_in_text(page: Path) -> list[Shown]:
    """The command lines in code spans of a page's text; `cimc NAME` alone is the name of a command."""
    spans = re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
    return [line for span in spans for line in _commands(page.name, span)]


def _block_lines(text: str) -> Iterator[str]:
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()


def _commands(page: str, line: str) -> Iterator[Shown]:
    for part in line.removeprefix("$ ").partition(" # ")[0].split("&&"):
        words = shlex.split(part) if part.strip().startswith("cimc ") else []
        if words:
            ends = words.index(">") if ">" in words else len(words)
            yield Shown(page, tuple(words[1:ends]), words[ends + 1] if ends < len(words) else None)


def prepare(folder: Path, *, short: bool) -> None:
    """Put into a folder what the pages take for granted: the source's networks, and a network and data of one's own.

    short: a network of one layer in the place of LeNet-1, which compiles in half the time.
    """
    shutil.copytree(ROOT / "models", folder / "models")
    if short:
        nodes = [
            helper.make_node("Flatten", ["image"], ["flat"], name="flatten"),
            helper.make_node("Gemm", ["flat", "w", "b"], ["y"], name="fc"),
        ]
        constants = {"w": weights(784, 10), "b": weights(10)}
        one_layer = network_proto(nodes, {"image": ["N", 1, 28, 28]}, {"y": ["N", 10]}, constants)
        save(one_layer, folder / "models" / "lenet1.onnx")
    shutil.copy(folder / "models" / "lenet1.onnx", folder / "model.onnx")
    save(_speech(), folder / "speech.onnx")
    x_train, y_train, x_test, y_test = digits()
    np.savez(folder / "mydata.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    np.savez(folder / "speech.npz", input=weights(20, 512))
    (folder / "options.toml").write_text('[layer."*"]\nadc.bits = 10\n', encoding="utf-8")
    (folder / "dies").mkdir()
    for fault_map in (folder / "map.csv", folder / "dies" / "die7.csv"):
        fault_map.write_text("array,row,column,kind\n0,3,0,stuck-low\n0,5,1,stuck-high\n", encoding="utf-8")


def _speech() -> onnx.ModelProto:
    """A network of one layer, its rows by the sample rate, for any number of samples, with a state."""
    return onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
      speech (float[N,samples] input, float[N,1] state, int64 sr) => (float[N,1] output, float[N,1] stateN)
      <float[512] w = {WEIGHTS}, int64 high = {16000}> {
        fast = Equal (sr, high)
        half = If (fast) <
          then_branch = a () => (float[N,samples] x) { x = Identity (input) },
          else_branch = b () => (float[N,samples] y) { y = Neg (input) }
        >
        both = Constant <value_ints = [512, 1]> ()
        column = Reshape (w, both)
        product = MatMul (half, column)
        sum = Add (product, state)
        stateN = Tanh (sum)
        output = Sigmoid (stateN)
      }""".replace("WEIGHTS", ",".join(map(str, weights(512))))
    )


def substituted(shown: Shown, *, short: bool) -> list[str]:
    """The arguments with embedded data for sets that must be fetched; short: one epoch of 20 steps, two chips."""
    words = [SUBSTITUTES.get(word, word) for word in shown.arguments]
    if not short:
        return words
    for option, value in SHORT.items():
        if option in words:
            words[words.index(option) + 1] = value
    if shown.command == "train" and "--steps-per-epoch" not in words:
        words += ["--steps-per-epoch", SHORT["--steps-per-epoch"]]
    return words
