"""Install the packages that ship the networks, each in a folder of its own, without what they depend on."""

import subprocess
import sys

from tests.benchmarks.networks.listed import Work

PHOTOS = ("scikit-image==0.26.0", "scikit-learn==1.9.1")  # for their photographs alone


def install(package: str, work: Work) -> str | None:
    """Install name==version unless it is there; what the installer said when it failed."""
    target = work.packages / package
    if target.exists():
        return None
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", str(target)]
    done = subprocess.run([*command, package], capture_output=True, text=True)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (errors or ["failed"])[-1] if done.returncode else None
