"""Words for error messages: how a node is called, and one line out of many."""

import onnx_ir as ir

_LIMIT = 240


def describe(node: ir.Node) -> str:
    """Name `node` for an error message: its operator, and its name or what it computes."""
    domain = f"{node.domain}." if node.domain else ""
    if node.name:
        return f"{domain}{node.op_type} '{node.name}'"
    outputs = ", ".join(f"'{value.name}'" for value in node.outputs if value.name)
    return f"{domain}{node.op_type} that computes {outputs or 'nothing'}"


def one_line(error: object) -> str:
    """The first line of `error`, or of its cause, that says something; cut to a readable length, without a stop."""
    while isinstance(error, BaseException) and error.__cause__ is not None:
        error = error.__cause__
    lines = (line.strip() for line in str(error).splitlines())
    line = next((line for line in lines if line), type(error).__name__)
    if len(line) > _LIMIT:
        line = line[: _LIMIT - 3] + "..."
    return line.rstrip(" .:;")
