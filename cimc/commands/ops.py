"""`cimc ops`."""

from cimc.commands.options import Json, emit


def ops(as_json: Json = False) -> None:
    """List the operators of ONNX that run here: on crossbars or digitally, trainable or not, standard cases passed.

    All others run in onnxruntime, node by node, where their sizes are static; they pass no gradient.

    Example: cimc ops --json
    """
    from dataclasses import asdict

    from cimc.operators import OPERATORS

    emit({name: asdict(operator) for name, operator in OPERATORS.items()}, show, as_json=as_json)


def show() -> None:
    """The operators the runtime has, and the totals of the standard's cases."""
    from cimc.commands.console import print_table, say
    from cimc.operators import OPERATORS

    rows = [
        [name, operator.place, "yes" if operator.trainable else "no", f"{operator.passed} of {operator.cases}"]
        for name, operator in OPERATORS.items()
    ]
    print_table("Operators", ["operator", "runs", "trainable", "standard cases passed"], rows)
    passed, total = (sum(getattr(operator, key) for operator in OPERATORS.values()) for key in ("passed", "cases"))
    say(f"{len(OPERATORS)} operators; {passed} of {total} standard cases pass; all others run in onnxruntime")
