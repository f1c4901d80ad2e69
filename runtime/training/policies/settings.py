"""Options by name, as `--set FIELD=VALUE` gives them, checked against the frozen dataclass that has them."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from cimc.errors import CimcError

Options = TypeVar("Options")


def make_options(kind: type[Options], what: str, settings: Mapping[str, Any]) -> Options:
    """Options of values, or of texts of them; those left out by default.

    Args:
        kind: their dataclass; each has a default.
        what: has them, as errors call it.
        settings: by name.

    Raises:
        CimcError: there is no such option, or a value is none of the option's.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for setting in settings:
        if setting not in known:
            raise CimcError(f"{what} has no option {setting!r}; it has {', '.join(known)}")
    try:
        return TypeAdapter(kind).validate_python(dict(settings))
    except ValidationError as error:
        first = error.errors()[0]
        setting = ".".join(map(str, first["loc"][:1]))
        raise CimcError(f"{setting} of {what} is {first['input']!r}: {first['msg'].lower()}") from None
