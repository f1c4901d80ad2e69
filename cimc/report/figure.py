"""A figure of the report: a drawing, and links that save it as SVG and the numbers behind it as CSV."""

import base64
import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from cimc.report.svg import LIGHT

Cell = str | float | int | bool | None


@dataclass(frozen=True)
class Figure:
    """A drawing with its numbers.

    title: what it shows, as text; each figure of a page has one of its own. svg: the drawing. head, rows: the numbers
    behind it, as a table. caption: what stands over it where a heading says the rest; else the title. framed: whether
    it keeps its size in a frame.
    """

    title: str
    svg: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    framed: bool = False

    @property
    def csv(self) -> str:
        """The numbers as CSV (RFC 4180), with a head line."""
        text = io.StringIO()
        csv.writer(text).writerows([self.head, *self.rows])
        return text.getvalue()

    @property
    def standalone_svg(self) -> str:
        """The drawing as a file of its own: what the page's style sheet colours has the colours of light paper."""
        coloured = re.sub(r"var\(--(\w+)\)", lambda found: LIGHT[found[1]], self.svg)
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{coloured}\n'

    @property
    def html(self) -> str:
        """The figure on the page, with its links. A wide one scrolls sideways on a narrow screen."""
        name, title = slug(self.title), escape(self.title)
        links = "".join(
            f'<a download="{name}.{kind.lower()}" href="{_data_url(mime, text)}" '
            f'aria-label="{kind} of: {title}">{kind}</a>'
            for kind, mime, text in (
                ("SVG", "image/svg+xml", self.standalone_svg),
                ("CSV", "text/csv;charset=utf-8", self.csv),
            )
        )
        frame = "plot framed" if self.framed else "plot"
        return (
            f"<figure><figcaption>{escape(self.caption or self.title)}{links}</figcaption>"
            f'<div class="{frame}" tabindex="0" role="group" aria-label="{title}">{self.svg}</div></figure>'
        )


def _data_url(mime: str, text: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(text.encode()).decode()}"


def figures(found: Iterable[Figure], kind: str = "side") -> str:
    """Figures beside each other; kind: `side` (of any width) or `cells` (many small ones)."""
    return f"<div class={kind}>{''.join(figure.html for figure in found)}</div>"


def slug(title: str) -> str:
    """A title as a name of a file or a place on the page: letters and digits, joined by hyphens."""
    return "-".join(re.findall(r"[a-z0-9]+", title.lower())) or "figure"
