"""Processor time and memory until each hostile network is refused, or handled and drawn.

    python -m tests.benchmarks.hostile

What is handled goes through `cimc report` too, whose page may hold no element or attribute that is not the tool's own.
"""

import tempfile
from html.parser import HTMLParser
from pathlib import Path

import onnx

from tests.benchmarks.long_networks import measure
from tests.hostile import hostile_networks


class _Foreign(HTMLParser):
    """Collects elements and attributes that run or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note scripts, images and frames, and what would run code."""
        if tag in ("script", "img", "iframe", "object", "embed", "link"):
            self.found.append(tag)
        self.found += [name for name, value in attrs if name.startswith("on") or "javascript:" in (value or "")]


def main() -> None:
    """Measure and print the table."""
    print("| network | processor time, s | MB | result |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        network, compiled, page = (Path(folder) / name for name in ("net.onnx", "net.cim", "page.html"))
        for name, proto in hostile_networks().items():
            onnx.save(proto, network)
            seconds, memory, result = measure("compile", str(network), "-o", str(compiled))
            if result == "done":
                _, _, drawn = measure("report", str(compiled), "-o", str(page))
                foreign = _Foreign()
                foreign.feed(page.read_text())
                result = f"handled; report: {drawn}, {len(foreign.found)} foreign elements"
            print(f"| {name} | {seconds:.1f} | {memory} | {result[:160].replace('|', '/')} |", flush=True)


if __name__ == "__main__":
    main()
