"""The files of `soak.py`: what the commands read, what an output holds, and disks that are soon full."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.benchmarks.soak_sweep import RESULTS, rows_of, without_times


def write_inputs(folder: Path) -> None:
    """A network of one layer and a few digits."""
    from cimc.data.digits import digits

    random = np.random.default_rng(0)
    weight = numpy_helper.from_array(random.normal(0, 0.05, (784, 10)).astype(np.float32), "w")
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 28, 28])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "net", [x], [y], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
    x_train, y_train, x_test, y_test = digits(160, 80)
    np.savez(folder / "data.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def digest(place: Path) -> str:
    """The digest of a file, or of all files of a folder, of a sweep's table its rows; empty: nothing is there."""
    if not place.exists():
        return ""
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    total = sha256()
    for path in files:
        if path.is_file():
            total.update(path.name.encode())
            total.update(repr(without_times(rows_of(place))).encode() if path.name == RESULTS else path.read_bytes())
    return total.hexdigest()


def is_whole(place: Path) -> str:
    """Empty, or what `cimc.verify` has against an output; a page must have its end."""
    import cimc

    if place.suffix == ".html":
        return "" if place.read_text().rstrip().endswith("</html>") else "the page has no end"
    try:
        cimc.verify(place)
    except cimc.CimcError as error:
        return str(error)
    return ""


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path | None]:
    """A file system in memory of such a size; None where it cannot be mounted."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)
