"""What is wrong with a description, in one line: which key, what is wrong, which key was meant."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

UNITS = frozenset(["s", "ms", "us", "ns", "v", "mv", "a", "ma", "ua", "na", "j", "mj", "uj", "nj", "pj", "fj"])


def explain_invalid(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of values that are no `model`."""
    problems = error.errors()
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    location, section = _follow(first["loc"], model)
    where = ".".join(location) or "the description"
    if first["type"] == "extra_forbidden":
        known = list(section.model_fields)
        key = location[-1]
        stem = _without_unit(key)
        same = [k for k in known if _without_unit(k) == stem and k != key]
        if same:
            # Of several keys with that stem (mvm_us, mvm_nj) the one that ends most alike is meant.
            return f"{where}: wrong unit; the key is {max(same, key=lambda k: _likeness(k, key))}"
        close = difflib.get_close_matches(key, known, n=1)
        return f"unknown key {where}; " + (f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}")
    if first["type"] == "missing":
        return f"{where} is missing; add it"
    if first["type"] == "union_tag_invalid":
        given, known_tags = first["ctx"]["tag"], first["ctx"]["expected_tags"].replace("'", "")
        close = difflib.get_close_matches(given, known_tags.split(", "), n=1)
        return f"{where}.law is {given!r}; " + (f"did you mean {close[0]}?" if close else f"choose {known_tags}")
    message = first["msg"].removeprefix("Value error, ")
    if isinstance(first["input"], dict):  # of a whole section, which says nothing on one line
        return f"{f'{where}: ' if location else ''}{message}; correct it"
    return f"{where}: {message[0].lower()}{message[1:]} (got {first['input']!r:.60}); correct it"


def _follow(location: tuple[int | str, ...], model: type[BaseModel]) -> tuple[list[str], type[BaseModel]]:
    """The keys of a location as the file has them, and the section that the last of them stands in.

    Of a section that is one of several (a pulse law), pydantic puts the name of the chosen one into the location.
    """
    keys: list[str] = []
    choices: list[type[BaseModel]] = []
    for part in location:
        chosen = next((choice for choice in choices if len(choices) > 1 and _tag(choice) == part), None)
        if chosen is not None:
            model, choices = chosen, []
            continue
        if choices:
            model = choices[0]
        keys.append(str(part))
        field = model.model_fields.get(str(part))
        choices = [] if field is None else list(_models(field.annotation))
    return keys, model


def _tag(model: type[BaseModel]) -> str | None:
    """The law that a section describes."""
    law = model.model_fields.get("law")
    return None if law is None else str(get_args(law.annotation)[0])


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for option in get_args(annotation) for model in _models(option)]


def _without_unit(key: str) -> str:
    stem, _, unit = key.rpartition("_")
    return stem if stem and unit.lower() in UNITS else key


def _likeness(a: str, b: str) -> float:
    return difflib.SequenceMatcher(None, a, b).ratio()
