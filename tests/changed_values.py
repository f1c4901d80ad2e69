"""Seeded changes of values where they stand: in JSON, in TOML, in the cells of a table."""

import json
import tomllib
from copy import deepcopy
from random import Random
from typing import Any

from cimc.toml_text import toml_text
from tests.mutations import FLOATS, INTEGERS, STRINGS, changed_bytes

NUMBERS = (*INTEGERS, *FLOATS, 1e-12, 1e12, 1e-300, 1e308, 5e-324, 0.5, 1.5, 10**30)


def change_tree(tree: Any, random: Random) -> str:
    """Change a value anywhere in nested lists and dictionaries; what was done."""
    places = [place for place in _places(tree, "") if place[2] != "sha256"]
    if not places:
        return "nothing left"
    leaves = [place for place in places if not isinstance(place[1][place[2]], dict | list)]
    path, parent, key = random.choice(leaves if leaves and random.random() < 0.8 else places)
    old, action = parent[key], random.random()
    if action < 0.05:
        del parent[key]
        return f"deleted {path}"
    if action < 0.15:
        _, other, name = random.choice(places)
        parent[key] = deepcopy(other[name])
        return f"{path} as another value"
    if action < 0.2 and isinstance(parent, list):
        parent.extend([old] * random.choice((1, 3, 200)))
        return f"more of {path}"
    if action < 0.25 and isinstance(parent, dict):
        parent[random.choice(STRINGS)] = old
        return f"another name for {path}"
    if action < 0.9 and isinstance(old, int) and not isinstance(old, bool):
        parent[key] = random.choice((*INTEGERS, *range(9), old * 2, old * 3, old + 1, -old, old // 2))
    elif action < 0.9 and isinstance(old, float):
        parent[key] = random.choice((*NUMBERS, *(old * factor for factor in (-1.0, 2.0, 10.0, 1e3, 1e-3, 0.999))))
    else:
        parent[key] = random.choice((random.choice(NUMBERS), random.choice(STRINGS), [], {}, [1] * 5000, True))
    return f"{path} = {str(parent[key])[:40]!r}"


def _places(tree: Any, path: str) -> list[tuple[str, Any, Any]]:
    """(path, what holds it, key or index) of every value."""
    found: list[tuple[str, Any, Any]] = []
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
        found.append((f"{path}/{key}", tree, key))
        if isinstance(value, dict | list):
            found += _places(value, f"{path}/{key}")
    return found


def changed_json(content: bytes, random: Random) -> tuple[bytes, str]:
    """A JSON text with other values, and what was done."""
    tree = json.loads(content)
    what = "; ".join(change_tree(tree, random) for _ in range(random.choice((1, 1, 2, 5))))
    return json.dumps(tree).encode(), what


def changed_toml(text: str, random: Random) -> tuple[str, str]:
    """A TOML text with other values or bytes, and what was done."""
    if random.random() < 0.1:
        data, what = changed_bytes(text.encode(), random)
        return data.decode("utf-8", "replace"), what
    tree = tomllib.loads(text)
    what = "; ".join(change_tree(tree, random) for _ in range(random.choice((1, 1, 1, 2, 5))))
    return toml_text(_without_none(tree)), what


def _without_none(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_none(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):  # TOML has tables in lists too, which no file of ours does
        return [str(value) if isinstance(value, dict) else _without_none(value) for value in tree if value is not None]
    return tree


def changed_table(text: str, random: Random) -> tuple[bytes, str]:
    """A CSV file with other cells or lines."""
    if random.random() < 0.2:
        return changed_bytes(text.encode(), random)
    rows, done = [line.split(",") for line in text.splitlines()], []
    for _ in range(random.choice((1, 1, 2, 5))):
        row = random.randrange(len(rows) - 1) if random.random() < 0.9 else 0
        column, action = random.randrange(len(rows[row]) or 1), random.random()
        if action < 0.1:
            del rows[row]
        elif action < 0.2:
            rows.insert(random.randrange(len(rows)), list(rows[row]))
        elif action < 0.3:
            rows = [line[:column] + line[column + 1 :] for line in rows]
        elif rows[row]:
            rows[row][column % len(rows[row])] = str(random.choice((*NUMBERS, *STRINGS, *range(6)))).replace("\n", " ")
        done.append(f"{row}, {column}, {action:.2f}")
    return "\n".join(map(",".join, rows)).encode("utf-8", "replace"), "; ".join(done)
