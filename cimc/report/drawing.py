"""What pictures by matplotlib share: colours, and how a figure becomes a file. No state of pyplot is used."""

from pathlib import Path
from typing import TYPE_CHECKING

from cimc.errors import CimcError
from cimc.files import replacing

if TYPE_CHECKING:  # names are looked at where nothing is drawn
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#2a6fbb", "#d9762b", "#8a8a8a"
DPI = 130
FORMATS = ("png", "pdf", "svg")


def picture_format(path: str | Path) -> str:
    """The format that the name of a picture asks for; without a suffix it is PNG.

    Raises:
        CimcError: the name ends otherwise than in .png, .pdf or .svg.
    """
    suffix = Path(path).suffix.lstrip(".").lower() or "png"
    if suffix not in FORMATS:
        raise CimcError(f"cannot write {path}: pictures are PNG, PDF or SVG; let the name end in .png, .pdf or .svg")
    return suffix


def save_picture(figure: "Figure", path: str | Path) -> None:
    """Write a figure in the format of its name, whole or not at all. Raises CimcError as `picture_format`."""
    picture = picture_format(path)
    with replacing(Path(path)) as temporary:
        figure.savefig(temporary, dpi=DPI, format=picture)
