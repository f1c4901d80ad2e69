"""Small pieces of SVG as text, and the colours and units that the drawings of the report share."""

import math
import re
from collections.abc import Iterable, Sequence
from html import escape

# Colours by name, on light and on dark paper. Drawings name them as variables of the page's style sheet.
LIGHT = {
    "ink": "#1f2933", "muted": "#5a6672", "line": "#d5dbe1", "paper": "#ffffff", "stripe": "#f4f6f8",
    "unused": "#e6eaee", "link": "#1f5fa6", "grey": "#8592a0", "blue": "#2a6fbb", "orange": "#c7611a",
    "green": "#2f8557", "purple": "#8250c4", "red": "#c03a4b", "teal": "#16808d",
}  # fmt: skip
DARK = {
    "ink": "#e4e9ee", "muted": "#a3b0bd", "line": "#3a444e", "paper": "#14191e", "stripe": "#1b2127",
    "unused": "#2b343d", "link": "#84b9f5", "grey": "#7d8a98", "blue": "#5b9fe8", "orange": "#ee9350",
    "green": "#58bd86", "purple": "#b08ef0", "red": "#f07a88", "teal": "#4cbccb",
}  # fmt: skip
INK, MUTED, LINE, PAPER = "var(--ink)", "var(--muted)", "var(--line)", "var(--paper)"
BLUE, ORANGE, GREY, UNUSED = "var(--blue)", "var(--orange)", "var(--grey)", "var(--unused)"
# Of lines in a chart, each readable on the paper.
SERIES = tuple(f"var(--{name})" for name in ("blue", "orange", "green", "purple", "red", "teal"))
ON_COLOUR = LIGHT["ink"]  # of text on the colour of a layer
# Widths of characters over the font size, those of DejaVu Sans, which is among the widest that a system may use.
_NARROW, _WIDE, _WIDEST = set("ijl.,:;|!' ()[]/ftrI-"), set("mwMW%@—…"), 1.02
_GOLDEN_ANGLE = 137.508  # neighbours in a list get hues far apart


def layer_colour(index: int) -> str:
    """Fill of the layer of that index in network order: light enough for dark text on it, whatever the hue (OKLCH)."""
    lightness, chroma = 0.80 - 0.035 * (index % 3), 0.10 + 0.015 * (index % 2)
    hue = math.radians(255 + index * _GOLDEN_ANGLE)
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long, medium, short = (
        (lightness + x * a + y * b) ** 3 for x, y in ((0.3963, 0.2158), (-0.1056, -0.0639), (-0.0895, -1.2915))
    )
    linear = (
        4.0767 * long - 3.3077 * medium + 0.2310 * short,
        -1.2684 * long + 2.6098 * medium - 0.3413 * short,
        -0.0042 * long - 0.7034 * medium + 1.7076 * short,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(1.0, max(0.0, part)))):02x}" for part in linear)


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def _escaped(content: str) -> str:
    """Text as XML has it; a character that XML cannot hold is a question mark."""
    return escape(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]", "?", content))


def drawing(width: float, height: float, parts: Iterable[str], label: str) -> str:
    """An SVG of that size in pixels; `label` is read out in place of the picture."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, sans-serif" role="img" '
        f'aria-label="{_escaped(label)}">\n{body}\n</svg>'
    )


def rectangle(
    x: float,
    y: float,
    width: float,
    height: float,
    fill: str,
    stroke: str = "",
    title: str = "",
    radius: float = 0,
    opacity: float = 1,
) -> str:
    """A rectangle; `title` shows under the pointer. opacity: of its fill."""
    outline = (f' fill-opacity="{opacity:.3g}"' if opacity < 1 else "") + (f' stroke="{stroke}"' if stroke else "")
    corner = f' rx="{radius:g}"' if radius else ""
    shape = f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}"{outline}{corner}'
    return f"{shape}><title>{_escaped(title)}</title></rect>" if title else f"{shape}/>"


def text(x: float, y: float, content: str, size: float = 11, anchor: str = "start", fill: str = INK) -> str:
    """One line of text; y is its base line."""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"{place} fill="{fill}">{_escaped(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str = LINE, width: float = 1) -> str:
    """A straight line."""
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="{stroke}" stroke-width="{width:g}" fill="none"/>'


def polyline(points: Sequence[tuple[float, float]], stroke: str, width: float = 1.5) -> str:
    """A line through points (x, y) in pixels."""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{path}" stroke="{stroke}" stroke-width="{width:g}" stroke-linejoin="round" fill="none"/>'


def dot(x: float, y: float, radius: float, fill: str, title: str = "") -> str:
    """A filled circle; `title` shows under the pointer."""
    shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}"'
    return f"{shape}><title>{_escaped(title)}</title></circle>" if title else f"{shape}/>"


def shortened(content: str, characters: int) -> str:
    """The text cut to that many characters, its middle replaced by an ellipsis."""
    if len(content) <= characters:
        return content
    head = (characters - 1) // 2
    return f"{content[:head]}…{content[len(content) - (characters - 1 - head) :]}"


def text_width(content: str, size: float) -> float:
    """Pixels that a text takes at most, in the fonts that systems usually have."""
    return size * sum(map(_width, content))


def _width(character: str) -> float:
    if character in _NARROW:
        return 0.42
    if character in _WIDE or ord(character) >= 0x1100:  # Chinese, Japanese, Korean and what is as wide
        return _WIDEST
    return 0.76 if character.isupper() else 0.64


def fitted(content: str, width: float, size: float = 11) -> str:
    """The text, its middle replaced by an ellipsis as far as it would be wider than that many pixels."""
    characters = len(content)
    while characters > 1 and text_width(shortened(content, characters), size) > width:
        characters -= 1
    return shortened(content, characters)


def duration(ns: float) -> str:
    """A time with its unit."""
    for limit, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if ns >= limit:
            return f"{ns / limit:.3g} {unit}" if ns < 1e3 * limit or unit == "s" else f"{ns / limit:.0f} {unit}"
    return f"{ns:.3g} ns"


def energy(mj: float) -> str:
    """An energy with its unit."""
    for factor, unit in ((1e-3, "J"), (1.0, "mJ"), (1e3, "µJ"), (1e6, "nJ"), (1e9, "pJ")):
        if abs(mj) * factor >= 1 or unit == "pJ":
            return f"{mj * factor:.3g} {unit}"
    return f"{mj:.3g} mJ"


def ticks_between(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers, equally far apart, of which the first and last enclose `low` to `high`."""
    room = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(room / count))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= room / count * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * index for index in range(first, max(last, first + 1) + 1)]


def ticks(most: float, count: int = 6) -> list[float]:
    """About `count` round numbers from 0 to at most `most`."""
    if most <= 0:
        return [0.0]
    raw = most / count
    power = 10.0 ** len(str(int(raw))) / 10 if raw >= 1 else 1.0
    while power > raw:
        power /= 10
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    return [step * index for index in range(int(most / step + 1e-9) + 1)]
