"""Write the pages that follow from the code, chips.md and operators.md: `python -m docs.generate`.

A test compares the pages with what this prints (tests/test_generated_docs.py).
"""

import inspect
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from cimc.chip import CHIPS_FOLDER, Chip, parse_chip
from cimc.operators import OPERATORS, Operator

DOCS = Path(__file__).parent
WIDTH = 120
GENERATED = "<!-- Written by `python -m docs.generate`: change the code, not this page. -->"
# The unit of a key is its last part; of rates (bytes_per_ns) the last three.
UNITS = {
    "uS": "uS",
    "uA": "uA",
    "V": "V",
    "us": "us",
    "ns": "ns",
    "nj": "nJ",
    "pj": "pJ",
    "fj": "fJ",
    "ohm": "ohm",
    "mm2": "mm²",
    "lsb": "codes",
    "bits": "bits",
    "bytes": "bytes",
}
PLAIN = frozenset({"place", "trainable", "passed", "cases"})  # fields of an operator with a column of their own


def pages() -> dict[Path, str]:
    """Every generated page and its text."""
    return {DOCS / "chips.md": chips_page(), DOCS / "operators.md": operators_page()}


def chips_page() -> str:
    """The keys of a chip file, section by section from the schema, and the built-in chips."""
    schema = Chip.model_json_schema()
    lines = [
        "# Chips",
        GENERATED,
        "Every key of a chip file, and the chips that come with `cimc`. `cimc chips` lists them, `cimc chips NAME` "
        "prints one with its sources, `cimc chips NAME --explain` what follows from it. A walk through a device: "
        "[chip-files.md](chip-files.md).",
        "## Keys",
        "TOML; a key without a section stands at the top of the file. A key that is left out takes its default; "
        "*needed*: it must be there; *none*: its description says what then holds. A wrong key or unit is refused with "
        "the right one.",
    ]
    for title, section in sections(schema, schema):
        text = section.get("description", "").partition("\n")[0]
        lines += [f"### {title}", *([text] if text else []), key_table(schema, section)]
    return paragraphs([*lines, "## Built-in chips", *built_in_chips()])


def sections(schema: Mapping[str, Any], section: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """(title, JSON schema) of a section and of those within it, depth first; of one that is one of several laws, what
    all have in common, then each with its own keys.
    """
    yield f"`[{path}]`" if path else "At the top", section
    for key, entry in section["properties"].items():
        inner_path = f"{path}.{key}" if path else key
        if (inner := section_of(schema, entry)) is not None:
            yield from sections(schema, inner, inner_path)
        elif (named := named_section_of(schema, entry)) is not None:
            yield from sections(schema, named, f"{inner_path}.NAME")
        elif laws := laws_of(schema, entry):
            common = {name: one for name, one in laws[0]["properties"].items() if all_have(laws, name)}
            yield f"`[{inner_path}]`, keys of every law", {"properties": common, "required": laws[0]["required"]}
            for law in laws:
                own = {name: one for name, one in law["properties"].items() if name not in common}
                name = f"`[{inner_path}]`, law `{law['properties']['law']['const']}`"
                yield name, {**law, "properties": own}


def laws_of(schema: Mapping[str, Any], entry: Mapping[str, Any]) -> list[Any]:
    """The sections of which a key holds one; none where it holds something else."""
    options = [one for part in (entry, *entry.get("anyOf", ())) for one in part.get("oneOf", ())]
    return [definition_of(schema, one) for one in options]


def all_have(laws: Sequence[Mapping[str, Any]], key: str) -> bool:
    """Whether a key means the same in every law."""
    return all(law["properties"].get(key) == laws[0]["properties"][key] for law in laws)


def section_of(schema: Mapping[str, Any], entry: Mapping[str, Any]) -> Any:
    """The schema of the section that a key holds; None: it holds a value."""
    definition = definition_of(schema, entry)
    return definition if "properties" in definition else None


def named_section_of(schema: Mapping[str, Any], entry: Mapping[str, Any]) -> Any:
    """The schema of the sections of which a key holds any number by name; None: it holds something else."""
    named = entry.get("additionalProperties")
    return section_of(schema, named) if isinstance(named, dict) else None


def definition_of(schema: Mapping[str, Any], entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a key's entry refers to: a section or a choice; else the entry itself."""
    references = [one["$ref"] for one in (entry, *entry.get("anyOf", ())) if "$ref" in one]
    found: Mapping[str, Any] = schema["$defs"][references[0].rpartition("/")[2]] if references else entry
    return found


def key_table(schema: Mapping[str, Any], section: Mapping[str, Any]) -> str:
    """The keys of a section that hold values."""
    needed = section.get("required", ())
    rows = []
    for key, entry in section["properties"].items():
        inner = section_of(schema, entry) or named_section_of(schema, entry)
        if inner is None and not laws_of(schema, entry):
            default = "*needed*" if key in needed else default_text(entry.get("default"))
            rows.append(
                [
                    f"`{key}`",
                    unit_of(key),
                    values_text(definition_of(schema, entry)),
                    default,
                    escaped(entry["description"]),
                ]
            )
    return table(["key", "unit", "values", "default", "what it is"], rows)


def unit_of(key: str) -> str:
    """The unit in a key's name; empty where it is a count or a choice."""
    stem, _, rate = key.partition("_per_")
    if stem.endswith("bytes") and rate == "ns":
        return "bytes/ns"
    return UNITS.get(key.rpartition("_")[2], "")


def values_text(entry: Mapping[str, Any]) -> str:
    """What a key may hold, in a few words."""
    options = [one for one in entry.get("anyOf", (entry,)) if one.get("type") != "null"]
    one = options[0]
    if "const" in one:
        return f"`{one['const']}`"
    if "enum" in one:
        return ", ".join(f"`{value}`" for value in one["enum"])
    low, high = one.get("minimum", one.get("exclusiveMinimum")), one.get("maximum")
    kind = {"integer": "integer", "number": "number", "string": "text", "array": "list of numbers"}.get(
        one.get("type", ""), "number or list"
    )
    if low is None:
        return kind
    if high is not None:
        if one["type"] == "integer":
            return f"{kind}, {low + ('exclusiveMinimum' in one)} to {high}"
        return f"{kind}, {'above ' if 'exclusiveMinimum' in one else ''}{low:g} to {high:g}"
    return f"{kind} {'>' if 'exclusiveMinimum' in one else '≥'} {low:g}"


def default_text(value: object) -> str:
    """A default as a chip file would state it."""
    return "*none*" if value is None else f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def built_in_chips() -> Iterator[str]:
    """A table of the main figures, then each chip with the head of its file, which names its sources."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in CHIPS_FOLDER.glob("*.toml")}
    chips = {name: parse_chip(texts[name], name) for name in sorted(texts)}
    head = ["chip", "array", "arrays", "device", "window uS", "levels", "weight", "DAC", "ADC", "MVM us", "simulated"]
    yield (
        "A chip that is not simulated can be compiled for, inspected and reported; `train`, `eval`, `export` and "
        "`deploy` refuse it."
    )
    yield table(head, [chip_row(chip) for chip in chips.values()])
    for name, chip in chips.items():
        yield f"### `{name}`"
        yield f"{escaped(chip.description[0].upper() + chip.description[1:])}."
        if comment := head_comment(texts[name]):
            yield escaped(comment)
        if chip.not_simulated is not None:
            yield f"Not simulated: {chip.not_simulated}."


def chip_row(chip: Chip) -> list[str]:
    """The main figures of a chip."""
    cell, weights = chip.cell, chip.weights
    levels = cell.programmable_uS
    bits = "" if weights.bits is None else f", {weights.bits} bits in {weights.slices}"
    return [
        f"`{chip.name}`",
        f"{chip.array.rows} x {chip.array.columns}",
        f"{chip.array.per_chip:,}",
        cell.technology,
        f"{cell.conductance_min_uS:g} to {cell.conductance_max_uS:g}",
        "any" if levels is None else str(len(levels)),
        f"{weights.scheme}{bits}",
        "ideal" if chip.input.bits is None else f"{chip.input.bits} bit, {chip.input.encoding}",
        "ideal" if chip.adc.bits is None else f"{chip.adc.bits} bit",
        f"{chip.cost.mvm_us:g}",
        "yes" if chip.not_simulated is None else "no",
    ]


def head_comment(text: str) -> str:
    """The comment that a chip file begins with, as one paragraph."""
    head: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# ").rstrip())
    return " ".join(head)


def operators_page() -> str:
    """Every operator that runs here with its traits."""
    passed, cases = (sum(getattr(one, key) for one in OPERATORS.values()) for key in ("passed", "cases"))
    traits = [one.name for one in fields(Operator) if one.name not in PLAIN]
    rows = [
        [name, one.place, shown(one.trainable), *(shown(getattr(one, key)) for key in traits), cases_text(one)]
        for name, one in OPERATORS.items()
    ]
    return paragraphs(
        [
            "# Operators",
            GENERATED,
            f"The {len(OPERATORS)} operators of ONNX that run here (`cimc ops`), opsets 7 to the newest; a row an "
            "operator, a column a trait.",
            "CI runs every test case of the `onnx` package for them and counts those that pass "
            f"({passed} of {cases:,}; the others need strings, 4- and 8-bit floats, training mode, or sizes known only "
            "at run time: `tests/runtime/conformance_exceptions.py`).",
            "An operator outside this table still runs in `eval` and `deploy`, in onnxruntime, node by node; `train` "
            "refuses it only where a gradient must pass through it. What cannot run is refused with node, operator and "
            "remedy: loops whose length is not known before, sizes that depend on data.",
            *(escaped(" ".join(part.split())) for part in (inspect.getdoc(Operator) or "").split("\n\n")[1:]),
            table(["operator", "runs", "trainable", *(key.replace("_", " ") for key in traits), "cases passed"], rows),
        ]
    )


def cases_text(operator: Operator) -> str:
    """The standard's cases that an operator passes."""
    return f"{operator.passed} of {operator.cases}"


def shown(value: object) -> str:
    """A trait as a cell of a table: yes or no, members separated by commas, nothing for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(str(one) for one in value)
    return "" if value is None else escaped(str(value))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    first, *others = (f"| {' | '.join(row)} |" for row in [head, *rows])
    return "\n".join([first, "|---" * len(head) + "|", *others])


def escaped(text: str) -> str:
    """Text for a cell of a table."""
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")


def paragraphs(parts: Sequence[str]) -> str:
    """A page: its parts with an empty line between them."""
    kept = [part if part.startswith(("|", "<!--")) else wrapped(part) for part in parts]
    return "\n\n".join(kept) + "\n"


def wrapped(text: str) -> str:
    """Running text in lines of at most `WIDTH` characters."""
    return "\n".join(textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False))


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(DOCS.parent)}")
