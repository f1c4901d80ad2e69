"""What README.md says of the code and a test can count."""

import re
from pathlib import Path

from cimc.operators import OPERATORS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_table_of_operators_is_that_of_the_code():
    rows = re.findall(r"^\| (crossbar|digital)[^|]*\| (yes|no) \| ([^|]*) \| (\d+) of (\d+) \|$", README, re.MULTILINE)
    listed: dict[str, object] = {}
    for place, trainable, names, passed, cases in rows:
        group = {name.split(" ")[0]: OPERATORS[name.split(" ")[0]] for name in names.split(", ")}
        assert {(one.place, one.trainable) for one in group.values()} == {(place, trainable == "yes")}
        assert sum(one.passed for one in group.values()) == int(passed)
        assert sum(one.cases for one in group.values()) == int(cases)
        listed |= group
    assert listed == OPERATORS
    passed, cases = sum(one.passed for one in OPERATORS.values()), sum(one.cases for one in OPERATORS.values())
    assert f"({passed} of {cases:,};" in README
