"""What the site needs beside the pages of docs/: the README as its front page, the notebooks, and linked files.

Pages link to files of the whole repository, as a code host shows them. Here every such file becomes part of the site,
and the links lead there; those to folders lead to their README.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the front page, the notebooks, and what pages link to outside of docs/, and so on from there."""
    for notebook in sorted((DOCS / "notebooks").glob("*.py")):
        text = markdown_of(notebook.read_text(encoding="utf-8"))
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
    waiting, seen = [ROOT / "README.md", *DOCS.rglob("*.md")], set[Path]()
    while waiting:
        page = waiting.pop()
        seen.add(page)
        if DOCS not in page.parents:
            files.append(File.generated(config, place_of(page), abs_src_path=str(page)))
        if page.suffix == ".md":
            found = {
                target for link in LINK.findall(page.read_text(encoding="utf-8")) for target in target_of(page, link[0])
            }
            waiting += [target for target in found if target not in seen and DOCS not in target.parents]
            seen |= found
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let the links of a page lead to where their files are on the site."""
    source = ROOT / "README.md" if page.file.src_uri == "index.md" else origin_of(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        for target in target_of(source, match[1]):
            place = posixpath.relpath(place_of(target), posixpath.dirname(page.file.src_uri) or ".")
            return f"]({place}{match[2] or ''})"
        return match[0]

    return LINK.sub(moved, markdown)


def place_of(path: Path) -> str:
    """Where a file of the repository is on the site."""
    if path == ROOT / "README.md":
        return "index.md"
    if DOCS in path.parents:
        inside = path.relative_to(DOCS)
        return str(inside.with_suffix(".md")) if inside.parts[0] == "notebooks" else str(inside)
    return f"repository/{path.relative_to(ROOT)}"


def origin_of(place: str) -> Path:
    """The file of the repository that is there on the site."""
    inside = place.removeprefix("repository/")
    return ROOT / inside if inside != place else DOCS / place


def target_of(page: Path, link: str) -> Iterator[Path]:
    """The file that a link of a page names, if it is one of the repository."""
    if "://" in link:
        return
    target = (page.parent / link).resolve()
    if target.is_dir():
        target /= "README.md"
    if target.is_file():
        yield target


def markdown_of(notebook: str) -> str:
    """A notebook in the percent format as Markdown: its text, and its code in fences."""
    parts = []
    for cell in re.split(r"^# %%", notebook, flags=re.MULTILINE)[1:]:
        head, _, body = cell.partition("\n")
        if "[markdown]" in head:
            parts.append("\n".join(line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()))
        else:
            parts.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(parts) + "\n"
