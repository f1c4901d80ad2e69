"""Small pieces of SVG as text, and the colours and units that the drawings of the report share."""

import math
from collections.abc import Iterable, Sequence
from html import escape

INK, MUTED, LINE, PAPER = "#1f2933", "#66727f", "#d5dbe1", "#ffffff"
BLUE, ORANGE, GREY, UNUSED = "#2a6fbb", "#d9762b", "#9aa5b1", "#eef1f4"
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


def pale(colour: str) -> str:
    """A colour `#rrggbb` mixed with four parts of white."""
    return "#" + "".join(f"{(int(colour[place : place + 2], 16) + 4 * 255) // 5:02x}" for place in (1, 3, 5))


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def drawing(width: float, height: float, parts: Iterable[str], label: str) -> str:
    """An SVG of that size in pixels; `label` is read out in place of the picture."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(label)}">\n{body}\n</svg>'
    )


def rectangle(
    x: float, y: float, width: float, height: float, fill: str, stroke: str = "", title: str = "", radius: float = 0
) -> str:
    """A rectangle; `title` shows under the pointer."""
    outline = f' stroke="{stroke}"' if stroke else ""
    corner = f' rx="{radius:g}"' if radius else ""
    shape = f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{fill}"{outline}{corner}'
    return f"{shape}><title>{escape(title)}</title></rect>" if title else f"{shape}/>"


def text(x: float, y: float, content: str, size: float = 11, anchor: str = "start", fill: str = INK) -> str:
    """One line of text; y is its base line."""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}"{place} fill="{fill}">{escape(content)}</text>'


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
    return f"{shape}><title>{escape(title)}</title></circle>" if title else f"{shape}/>"


def shortened(content: str, characters: int) -> str:
    """The text cut to that many characters, its middle replaced by an ellipsis."""
    if len(content) <= characters:
        return content
    head = (characters - 1) // 2
    return f"{content[:head]}…{content[len(content) - (characters - 1 - head) :]}"


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
