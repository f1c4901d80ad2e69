"""Run every command line that README.md and docs/ show, in order, page after page in one folder, as a user would.

    python -m tests.benchmarks.commands [--short] [--real]

Data that must be fetched are replaced by the embedded digits (--real: left as they are, found by $CIMC_DATA). --short:
a network of one layer, one epoch of 20 steps, two chips. Ends with status 1 at the first line that fails.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.shown_commands import PAGES, ROOT, prepare, shown_in_blocks, substituted


def main() -> None:
    """Run them all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--short", action="store_true", help="one layer, one epoch of 20 steps, two chips")
    parser.add_argument("--real", action="store_true", help="the data sets named, not the embedded digits")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, short=options.short)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for line in (line for page in PAGES for line in shown_in_blocks(page)):
            words = list(line.arguments) if options.real else substituted(line, short=options.short)
            began = time.perf_counter()
            result = subprocess.run(
                [sys.executable, "-m", "cimc", *words], cwd=folder, env=environment, capture_output=True, text=True
            )
            print(f"{time.perf_counter() - began:7.1f} s  {line}", flush=True)
            if result.returncode:
                print(result.stdout, result.stderr, sep="\n", file=sys.stderr)
                raise SystemExit(1)
            if line.to is not None:
                (folder / line.to).write_text(result.stdout, encoding="utf-8")


if __name__ == "__main__":
    main()
