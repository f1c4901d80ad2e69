"""Pieces of the report's page: the page itself, a section with its title and note, a table, names and shares."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from cimc.files import replacing
from cimc.report.figure import slug
from cimc.report.style import STYLE
from cimc.report.svg import layer_colour, shortened

NAME = 48  # characters of a name in a table
FEW = 4  # sections; a page of more has a list of them


def page_of(title: str, note: str, sections: Sequence[str]) -> str:
    """The whole page, without scripts and without a reference to another file. `sections`: HTML; `note`: text."""
    body = "".join(sections)
    named = re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', body)
    listed = "".join(f'<li><a href="#{name}">{text}</a></li>' for name, text in named)
    nav = f"<nav aria-label=Sections><ul>{listed}</ul></nav>" if len(named) > FEW else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1><p class=note>{escape(note)}</p>{nav}</header>\n"
        f"<main>{body}</main></body></html>\n"
    )


def write_page(page: str, output: str | Path) -> None:
    """Write a page. Raises CimcError when `output` cannot be written."""
    with replacing(Path(output)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def section(title: str, note: str, *content: str) -> str:
    """A titled part of the page; `title` and `note` are text, `content` is HTML. Titles differ on a page."""
    heading = f'\n<h2 id="{slug(title)}">{escape(title)}</h2>\n<p class=note>{escape(note)}</p>\n'
    return heading + "\n".join(content)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], total: Sequence[str] = ()) -> str:
    """Cells are HTML, `head` is text; the first column is text."""
    top = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    last = f"<tr class=total>{''.join(f'<td>{cell}</td>' for cell in total)}</tr>" if total else ""
    label = escape(f"table: {', '.join(head)}")
    return (
        f'<div class=table tabindex=0 role=group aria-label="{label}"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}{last}</tbody></table></div>"
    )


def tiles(shown: Iterable[tuple[str, str]]) -> str:
    """Figures in large type: (value, what it is), both text."""
    cells = (f"<div class=tile><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in shown)
    return f"<div class=tiles>{''.join(cells)}</div>"


def short_name(name: str, characters: int = NAME) -> str:
    """A name as HTML; of a long one the middle is left out, and it shows under the pointer."""
    if len(name) <= characters:
        return escape(name)
    return f'<span title="{escape(name)}">{escape(shortened(name, characters))}</span>'


def meter(share: float) -> str:
    """A share as a number with a bar."""
    return f'{share:.0%}<span class=meter><i style="width:{100 * min(1.0, max(0.0, share)):.1f}%"></i></span>'


def key(index: int, text: str) -> str:
    """The colour of the layer (or cause) of that index before a text in HTML."""
    return f'<span class=key style="background:{layer_colour(index)}"></span>{text}'


def legend(entries: Iterable[str]) -> str:
    """Entries in HTML, in as many columns as fit."""
    return f"<div class=legend>{''.join(f'<div>{entry}</div>' for entry in entries)}</div>"
