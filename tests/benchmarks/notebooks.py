"""Run every notebook of docs/notebooks as plain Python, each in a process and a folder of its own, and time it.

    python -m tests.benchmarks.notebooks [NAME ...]

my_network needs the extra `torch`. Exits with 1 where one fails.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))


def main() -> None:
    wanted = sys.argv[1:]
    chosen = [path for path in NOTEBOOKS if not wanted or path.stem in wanted]
    failed = False
    print("| notebook | seconds | processor seconds | ends with |")
    print("|---|---|---|---|")
    for path in chosen:
        with tempfile.TemporaryDirectory() as folder:
            before, began = os.times(), time.perf_counter()
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
            command = [sys.executable, str(path)]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            after, seconds = os.times(), time.perf_counter() - began
        used = after.children_user - before.children_user + after.children_system - before.children_system
        text = done.stdout if done.returncode == 0 else done.stderr
        failed |= done.returncode != 0
        last = (text.strip().splitlines() or ["nothing printed"])[-1]
        print(f"| {path.stem} | {seconds:.0f} | {used:.0f} | {'' if done.returncode == 0 else 'FAILED: '}{last} |")
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
