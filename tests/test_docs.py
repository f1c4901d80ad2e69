"""README.md and docs/: short, linked, and what they name is there; the outputs shown are those of now."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cimc.chip import chip_text, parse_chip
from cimc.chip_cell import Cell
from cimc.commands.main import app

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"
CHIP_FILES = ROOT / "docs" / "chip-files.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_glossary_has_one_line_a_word_and_no_word_twice() -> None:
    lines = [line for line in GLOSSARY.read_text(encoding="utf-8").splitlines()[3:] if line]
    entries = [line for line in lines if not line.startswith("## ")]
    found = [re.fullmatch(r"\* \*\*([^*]+|A\\\*)\*\*: \S.*\.", line) for line in entries]
    assert [line for line, match in zip(entries, found, strict=True) if match is None] == []
    words = [match[1] for match in found if match]
    assert len(words) > 40
    assert len(set(words)) == len(words)


def links(page: Path) -> list[tuple[str, str]]:
    """(file, anchor) of a page's links to files here; an empty file is the page itself."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [(link.partition("#")[0], link.partition("#")[2]) for link in found if "://" not in link]


def anchors(page: Path) -> set[str]:
    """What a link can name on a page: its headings, as code hosts write them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_here_lead_somewhere(page: Path) -> None:
    for link, anchor in links(page):
        target = page.parent / link if link else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), f"{link}#{anchor}"


def test_every_page_is_linked_from_the_front_door() -> None:
    linked = {(ROOT / link).resolve() for link, _ in links(ROOT / "README.md")}
    measured = ROOT / "docs" / "measured"
    linked |= {(measured / link).resolve() for link, _ in links(measured / "README.md")}
    assert [page.name for page in PAGES if page.resolve() not in linked | {ROOT / "README.md"}] == []
    assert (ROOT / "CITATION.cff").resolve() in linked


def test_front_door_fits_on_120_lines_and_has_the_two_commands() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert "    pip install . && cimc quickstart" in lines
    assert "    pip install -e '.[test]' && python -m pytest -n 2" in lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_of_the_source_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    files = re.findall(r"`((?:cimc|passes|runtime|tests|docs|models)/[\w./-]+)`", text)
    assert [name for name in files if "NAME" not in name and not (ROOT / name).exists()] == []
    modules = [name.replace(".", "/") for name in re.findall(r"python -m ((?:tests|docs)[\w.]+)", text)]
    runnable = [f"{name}.py" if (ROOT / f"{name}.py").exists() else f"{name}/__main__.py" for name in modules]
    assert [name for name in runnable if not (ROOT / name).exists()] == []


def test_options_that_pages_name_exist() -> None:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    context = group.make_context("cimc", [], resilient_parsing=True)
    commands = [group.get_command(context, name) for name in group.list_commands(context)]
    commands += [one for own in commands if isinstance(own, typer.core.TyperGroup) for one in own.commands.values()]
    commands.append(group)
    known = {option for one in commands if one for parameter in one.params for option in parameter.opts}
    known |= {option for one in commands if one for parameter in one.params for option in parameter.secondary_opts}
    assert "--objective" in known
    named = {
        option
        for page in PAGES
        if page.parent != ROOT / "docs" / "measured"
        for span in re.findall(r"`(--[^`\n]+)`", page.read_text(encoding="utf-8"))
        for option in re.findall(r"--[a-z][a-z-]*", span)
    }
    assert len(named) > 15
    assert named - known == set()


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
