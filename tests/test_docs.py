"""The glossary: a word a line, no word twice, linked from README.md."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
GLOSSARY = ROOT / "docs" / "glossary.md"


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
    assert (ROOT / "README.md", "docs/glossary.md") in links
    assert [(page.name, link) for page, link in links if not (page.parent / link).exists()] == []
