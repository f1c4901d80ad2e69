"""The pages of docs/: linked from README.md; the glossary has a word a line, the outputs shown are those of now."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cimc.chip import chip_text, parse_chip
from cimc.chip_cell import Cell
from cimc.commands.main import app

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
CHIP_FILES = ROOT / "docs" / "chip-files.md"


def test_glossary_has_one_line_a_word_and_no_word_twice() -> None:
    lines = [line for line in GLOSSARY.read_text(encoding="utf-8").splitlines()[3:] if line]
    entries = [line for line in lines if not line.startswith("## ")]
    found = [re.fullmatch(r"\* \*\*([^*]+|A\\\*)\*\*: \S.*\.", line) for line in entries]
    assert [line for line, match in zip(entries, found, strict=True) if match is None] == []
    words = [match[1] for match in found if match]
    assert len(words) > 40
    assert len(set(words)) == len(words)


def test_links_of_readme_and_docs_to_files_here_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    links = [
        (page, link.partition("#")[0])
        for page in pages
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
        if "://" not in link and not link.startswith("#")
    ]
    for name in sorted((ROOT / "docs").glob("*.md")):
        assert (ROOT / "README.md", f"docs/{name.name}") in links
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []


def blocks(page: str, start: str) -> list[str]:
    """The indented blocks of a page that begin with those words, without the indent."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", page, re.MULTILINE)
    texts = ["\n".join(line[4:] for line in block.strip("\n").splitlines()) for block in found]
    return [text for text in texts if text.startswith(start)]


def test_chip_files_page_shows_a_valid_cell_and_names_its_keys() -> None:
    page = CHIP_FILES.read_text(encoding="utf-8")
    assert len(page.splitlines()) <= 80
    (cell,) = blocks(page, "[cell]")
    text = chip_text("brram-256x64")
    before, _, rest = text.partition("[cell]\n")
    after = rest[rest.index("\n[input]") :]
    shown = parse_chip(f"{before}{cell}\n{after}", "docs").cell
    assert shown != parse_chip(text, "brram-256x64").cell
    for key in ("levels", "level_uS", "granularity_uS", "limits_uS"):
        assert key in Cell.model_fields
        assert f"`{key}`" in page


def test_chip_files_page_shows_lines_that_explain_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    (shown,) = blocks(CHIP_FILES.read_text(encoding="utf-8"), "$ cimc chips brram-soc --explain")
    printed = [
        line.rstrip() for line in CliRunner().invoke(app, ["chips", "brram-soc", "--explain"]).output.splitlines()
    ]
    lines = [line for line in shown.splitlines()[1:] if line != "..."]
    assert len(lines) > 8
    places = [printed.index(line) for line in lines]
    assert all(before < after for before, after in pairwise(places))
