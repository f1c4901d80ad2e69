"""The pages that `python -m docs.generate` writes: fresh, complete, and what they say is what the code says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from cimc.chip import CHIPS_FOLDER, Chip
from cimc.device_pulse import LAWS
from cimc.operators import OPERATORS
from docs.generate import pages, unit_of, values_text

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.name))
def test_generated_page_is_fresh(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == PAGES[path], "run python -m docs.generate"


def page(name: str) -> str:
    return next(path for path in PAGES if path.name == name).read_text(encoding="utf-8")


def models(annotation: Any) -> list[type[BaseModel]]:
    """The sections that a key may hold: one, or one a law."""
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [model for option in get_args(annotation) for model in models(option)]


def keys(model: type[BaseModel], path: str = "") -> Iterator[tuple[str, str, str]]:
    """(section, key, description) of every value of a chip file."""
    for key, field in model.model_fields.items():
        inner = models(field.annotation)
        named = ".NAME" if get_origin(field.annotation) is dict else ""  # any number of sections by name
        for section in inner:
            yield from keys(section, f"{path}.{key}{named}".removeprefix("."))
        yield path, "" if inner else key, field.description or ""


def test_every_field_of_the_schema_says_what_it_is() -> None:
    found = list(keys(Chip))
    assert len(found) > 70
    assert [(section, key) for section, key, description in found if len(description) < 8] == []


def test_page_of_chips_has_every_key_in_its_section_and_every_built_in_chip() -> None:
    sections: dict[str, list[str]] = {}
    for part in re.split(r"^### ", page("chips.md"), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        found = sections.setdefault(title.partition("]")[0].strip("`["), [])
        found += re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    for section, key, _ in keys(Chip):
        if key:
            assert key in sections[section or "At the top"]
    assert {path.stem for path in CHIPS_FOLDER.glob("*.toml")} <= set(sections)


def test_page_of_chips_has_a_table_for_every_pulse_law() -> None:
    text = page("chips.md")
    tables = re.findall(r"^### `\[cell\.pulse\]`, law `([\w-]+)`$", text, re.MULTILINE)
    assert sorted(tables) == sorted(get_args(law.model_fields["law"].annotation)[0] for law in LAWS)


def test_units_come_from_keys() -> None:
    assert unit_of("conductance_min_uS") == "uS"
    assert unit_of("mvm_nj") == "nJ"
    assert unit_of("link_bytes_per_ns") == "bytes/ns"
    assert unit_of("columns_per_adc") == ""


def test_values_are_those_that_the_schema_takes() -> None:
    assert values_text({"type": "integer", "exclusiveMinimum": 0, "maximum": 9}) == "integer, 1 to 9"
    assert values_text({"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]}) == "number ≥ 0"
    assert values_text({"enum": ["channel", "flat"], "type": "string"}) == "`channel`, `flat`"


def test_table_of_operators_is_that_of_the_code() -> None:
    text = page("operators.md")
    head = next(line for line in text.splitlines() if line.startswith("| operator |"))
    columns = [cell.strip() for cell in head.strip("|").split("|")]
    rows = [line for line in text.splitlines() if re.match(r"\| [A-Z]", line)]
    listed = {}
    for row in rows:
        cells = dict(zip(columns, (cell.strip() for cell in row.strip("|").split("|")), strict=True))
        one = OPERATORS[cells["operator"]]
        assert cells["runs"] == one.place
        assert cells["trainable"] == ("yes" if one.trainable else "no")
        assert cells["cases passed"] == f"{one.passed} of {one.cases}"
        listed[cells["operator"]] = one
    assert listed == OPERATORS
    assert len(rows) == len(OPERATORS)
    passed, cases = sum(one.passed for one in OPERATORS.values()), sum(one.cases for one in OPERATORS.values())
    assert f"({passed} of {cases:,};" in " ".join(text.split())
