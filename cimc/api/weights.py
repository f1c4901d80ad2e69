"""The trained weights of a `.cim` file as a plain float32 network."""

from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from cimc.api.sources import Source, artifact_of
from cimc.api.system_of import state_of, system_of
from cimc.artifact import Artifact
from cimc.errors import CimcError
from cimc.files import replacing, require_different, require_writable
from passes.parameters_of import parameters_of
from passes.plain_network import plain_network
from passes.read import read_network, read_proto
from passes.set_constants import set_constants
from passes.set_float32 import set_float32
from runtime.network.load import load_network
from runtime.system.state import leave_layers_digital

MOST_BYTES = 2**31 - 1  # of a protobuf message


def weights(
    source: Source, original: str | Path | onnx.ModelProto | None = None, *, output: str | Path | None = None
) -> onnx.ModelProto:
    """The network with its trained weights in float32, as any ONNX runtime takes it: `evaluate` with `exact` of it.

    They are those of the digital copy, with the gains of layers and the running statistics of normalisations; what
    the chip makes of them (its errors, the scales of its converters) is in a package.

    Args:
        source: a `.cim` file, its contents, or what `compile` or `train` gave.
        original: the ONNX file that was compiled, or that network in memory: its own graph, names and opset are kept.
            None: the network as it was lowered, of standard operators, whose layers and their constants are called
            as `compile` lists them.
        output: the ONNX file to write; the same contents give the same bytes. None: nothing is written.

    Raises:
        CimcError: the original is another network, or the trained weights cannot be put into it.
    """
    if output is not None:
        for read in (source, original):
            if isinstance(read, str | Path):
                require_different(read, output)
        require_writable(output)
    artifact, name = artifact_of(source)
    network = trained_network(artifact, name)
    if original is None:
        proto = ir.to_proto(network)
        proto.graph.name = artifact.model
    else:
        proto = _with_parameters(original, network)
    if proto.ByteSize() > MOST_BYTES:
        raise CimcError(f"the network of {name} is larger than 2 GiB, which one ONNX file cannot hold")
    if output is not None:
        with replacing(Path(output)) as temporary:
            temporary.write_bytes(proto.SerializeToString(deterministic=True))
    return proto


def trained_network(artifact: Artifact, name: str) -> ir.Model:
    """The network of a `.cim` file with its trained weights, without crossbar layers (`plain_network`).

    name: what errors call the file.
    """
    system = system_of(artifact)
    state, _ = state_of(artifact, system, name, weight_range=None)
    plain = plain_network(artifact.network)
    held = leave_layers_digital(system.network, state, load_network(plain))
    arrays = {**held["digital"], **held["statistics"]}
    return set_constants(plain, {key: array for key, array in arrays.items() if key in plain.graph.initializers})


def read_original(original: str | Path | onnx.ModelProto) -> ir.Model:
    """The network that was compiled, in float32 as then; what it has in Constant nodes are initializers."""
    if not isinstance(original, str | Path | onnx.ModelProto):
        raise CimcError(f"a {type(original).__name__} was given for the network; give its ONNX file or a ModelProto")
    network = read_proto(original) if isinstance(original, onnx.ModelProto) else read_network(Path(original))
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(network)
    set_float32(network)
    return network


def _with_parameters(original: str | Path | onnx.ModelProto, trained: ir.Model) -> onnx.ModelProto:
    """The original network, its parameters those of the trained one."""
    memory = isinstance(original, onnx.ModelProto)
    network = read_original(original)
    found = parameters_of(network, trained, name=network.graph.name or "the network" if memory else str(original))
    return ir.to_proto(set_constants(network, found))
