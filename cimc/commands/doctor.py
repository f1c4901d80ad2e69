"""`cimc doctor`: what this machine has, and what is broken."""

import importlib.util
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from cimc.commands.options import Json, emit

REQUIRED = [
    "jax",
    "jaxlib",
    "numpy",
    "scipy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "optax",
    "networkx",
    "pydantic",
    "safetensors",
    "protobuf",
    "typer",
    "rich",
]
# Extra of cimc -> the package that it brings, and the module of it.
EXTRAS = {
    "cluster": ("distributed", "distributed"),
    "cuda": ("jax-cuda12-plugin", "jax_cuda12_plugin"),
    "sweep": ("optuna", "optuna"),
    "torch": ("torch", "torch"),
    "track": ("tensorboardX", "tensorboardX"),
}


def doctor(as_json: Json = False) -> None:
    """Show versions, the devices that JAX sees, caches and data sets; say what is broken, with exit status 1.

    Example: cimc doctor
    """
    found = figures()
    emit(found, lambda: _show(found), as_json=as_json)
    if found["problems"]:
        raise typer.Exit(1)


def figures() -> dict[str, Any]:
    """JSON of `doctor`."""
    from cimc.commands import cache
    from cimc.commands.data import found_sets
    from cimc.version import __version__

    problems: list[str] = []
    versions = {"cimc": __version__, "python": sys.version.split()[0]}
    for name in REQUIRED:
        versions[name] = _version(name) or ""
        if not versions[name]:
            problems.append(f"{name} is missing; pip install {name}")
    return {
        "versions": versions,
        "devices": _devices(problems),
        "processors": os.cpu_count(),
        "cache": {**cache.figures(), "writable": _cache_writable(problems)},
        "data": found_sets(),
        "extras": {extra: _version(package) if _there(module) else None for extra, (package, module) in EXTRAS.items()},
        "chips": _chips(problems),
        "problems": problems,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _devices(problems: list[str]) -> list[str]:
    """The devices that JAX sees, if it computes on them and onnxruntime can be loaded beside it."""
    try:
        import jax
        import jax.numpy as jnp
        import onnxruntime  # noqa: F401

        devices = jax.devices()
        for device in devices:
            if float(jax.device_put(jnp.float32(2.0), device) * 3) != 6.0:
                problems.append(f"JAX computes wrongly on {device}; install it again")
    except Exception as error:  # whatever a broken installation raises
        problems.append(f"JAX or onnxruntime does not run ({type(error).__name__}: {error!s:.150})")
        return []
    return [f"{device.platform}:{device.id} ({device.device_kind})" for device in devices]


def _cache_writable(problems: list[str]) -> bool:
    """Whether the cache, or the first folder above it that there is, can be written."""
    from cimc.xla_cache import xla_cache

    folder = xla_cache()
    place = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    writable = place.is_dir() and os.access(place, os.W_OK | os.X_OK)
    if not writable:
        problems.append(f"{folder} cannot be written: every run compiles anew; set $XDG_CACHE_HOME")
    return writable


def _chips(problems: list[str]) -> int:
    """How many chips can be read, those of plug-ins among them."""
    from cimc.chip import chip_names, load_chip
    from cimc.errors import CimcError

    count = 0
    try:
        for name in chip_names():
            load_chip(name)
            count += 1
    except CimcError as error:
        problems.append(str(error))
    return count


def _show(found: dict[str, Any]) -> None:
    from cimc.commands import cache, data
    from cimc.commands.console import print_figures, say

    print_figures("versions", {name: version or "missing" for name, version in found["versions"].items()})
    machine = {"devices of JAX": ", ".join(found["devices"]) or "none", "processors": str(found["processors"])}
    print_figures("machine", {**machine, "chips that can be read": str(found["chips"])})
    print_figures("compilation cache", cache.texts(found["cache"]))
    print_figures("data sets", data.rows(found["data"]))
    extras = {name: version or f"pip install 'cimc[{name}]'" for name, version in found["extras"].items()}
    print_figures("optional", extras)
    for problem in found["problems"]:
        say(f"broken: {problem}")
    if not found["problems"]:
        say("all is well")
