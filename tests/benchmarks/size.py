"""Compile transformers of 10 million to 1.3 billion parameters, each in a process of its own: one table.

    python -m tests.benchmarks.size [--millions 10 40 160 600 1300] [--folder DIR]

The networks are decoder blocks in standard operators, float32, weights as external data (5.2 GB for the largest; the
folder must have twice that). Memory is the growth of anonymous pages (RssAnon), so beyond the mapped files.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

LENGTH = 64
# parameters in millions: (width, blocks); a block has 12 width^2 weights
SIZES = {10: (512, 3), 40: (768, 6), 160: (1152, 10), 600: (2048, 12), 1300: (2048, 26)}


def write_transformer(path: Path, width: int, blocks: int) -> int:
    """Write the network and its weights beside it; returns the number of parameters."""
    nodes: list[onnx.NodeProto] = []
    tensors: list[onnx.TensorProto] = []
    random = np.random.default_rng(0)
    chunk = random.normal(0, width**-0.5, 2**20).astype(np.float32).tobytes()
    count = 0

    with path.with_suffix(".data").open("wb") as data:

        def weight(*shape: int) -> str:
            nonlocal count
            name = f"w{len(tensors)}"
            size = int(np.prod(shape))
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=1)
            offset = data.tell()
            for start in range(0, 4 * size, len(chunk)):
                data.write(chunk[: min(len(chunk), 4 * size - start)])
            for key, value in (("location", path.with_suffix(".data").name), ("offset", offset), ("length", 4 * size)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            count += size
            return name

        def op(operator: str, *inputs: str, **attributes: object) -> str:
            output = f"v{len(nodes)}"
            nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
            return output

        def ints(*values: int) -> str:
            tensors.append(helper.make_tensor(f"w{len(tensors)}", TensorProto.INT64, [len(values)], values))
            return tensors[-1].name

        def linear(x: str, inputs: int, outputs: int) -> str:
            return op("Add", op("MatMul", x, weight(inputs, outputs)), weight(outputs))

        x, heads = "x", width // 64
        for _ in range(blocks):
            y = op("LayerNormalization", x, weight(width), weight(width), axis=-1)
            parts = [op("Reshape", linear(y, width, width), ints(0, 0, heads, 64)) for _ in range(3)]
            q, v = (op("Transpose", parts[n], perm=[0, 2, 1, 3]) for n in (0, 2))
            k = op("Transpose", parts[1], perm=[0, 2, 3, 1])
            mixed = op("MatMul", op("Softmax", op("MatMul", q, k), axis=-1), v)
            joined = op("Reshape", op("Transpose", mixed, perm=[0, 2, 1, 3]), ints(0, 0, width))
            x = op("Add", x, linear(joined, width, width))
            y = op("LayerNormalization", x, weight(width), weight(width), axis=-1)
            x = op("Add", x, linear(op("Gelu", linear(y, width, 4 * width)), 4 * width, width))
    graph = helper.make_graph(
        nodes,
        "transformer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", LENGTH, width])],
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, ["N", LENGTH, width])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    path.write_bytes(model.SerializeToString())
    return count


def measure(command: list[str]) -> tuple[float, float, int]:
    """CPU seconds, wall seconds, and the peak of anonymous memory in MB of a command that must succeed."""
    before, began, peak = os.times(), time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            peak = max(peak, int(status.partition("RssAnon:")[2].split()[0]))
        except (OSError, IndexError, ValueError):
            pass
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.perf_counter() - began, peak // 1024


def main() -> None:
    """Measure and print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--millions", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--folder", type=Path, help="where the files go; default: a temporary folder")
    options = parser.parse_args()
    print("| parameters | file MB | CPU s | wall s | peak memory beyond the files, MB | .cim MB |")
    print("|---|---|---|---|---|---|", flush=True)
    for millions in options.millions:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            model, artifact = Path(folder, "model.onnx"), Path(folder, "model.cim")
            parameters = write_transformer(model, *SIZES[millions])
            file = model.with_suffix(".data").stat().st_size / 1e6
            command = [sys.executable, "-m", "cimc", "compile", str(model), "-o", str(artifact), "--json"]
            cpu, wall, peak = measure([*command, "--no-verify"])
            written = artifact.stat().st_size / 1e6
            print(
                f"| {parameters / 1e6:.0f} M | {file:.0f} | {cpu:.1f} | {wall:.1f} | {peak} | {written:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
