"""Pieces of the report's page: a section with its title and note, and a table."""

from collections.abc import Iterable, Sequence
from html import escape


def section(title: str, note: str, *content: str) -> str:
    """A titled part of the page; `title` and `note` are text, `content` is HTML."""
    return f"\n<h2>{escape(title)}</h2>\n<p class=note>{escape(note)}</p>\n" + "\n".join(content)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str] = ()) -> str:
    """Cells are HTML; the first column is text."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    last = f"<tr class=total>{''.join(f'<td>{cell}</td>' for cell in total)}</tr>" if total else ""
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}{last}</tbody></table>"
