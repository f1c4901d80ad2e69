"""How results show themselves in notebooks: small tables in HTML."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape


def html_figures(title: str, figures: Mapping[str, object]) -> str:
    """A title and a row a figure; all of it is text. Figures that are None are left out."""
    return html_table(title, (), [[name, value] for name, value in figures.items() if value is not None])


def html_table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A titled table; all of it is text, the first column to the left."""
    top = f"<thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(_cell(index, cell) for index, cell in enumerate(row))}</tr>" for row in rows)
    return f"<table><caption>{escape(title)}</caption>{top}<tbody>{body}</tbody></table>"


def _cell(index: int, value: object) -> str:
    side = "left" if index == 0 else "right"
    return f'<td style="text-align: {side}">{escape(_text(value))}</td>'


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
