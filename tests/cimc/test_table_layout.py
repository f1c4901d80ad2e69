"""Tables in narrow terminals: nothing is wider than the terminal, and no word is cut, whatever the table holds."""

import json
from functools import partial
from random import Random

import pytest
from typer.testing import CliRunner

from cimc.commands.console import print_table
from cimc.commands.main import app
from cimc.commands.table_layout import LONGEST_NAME, NARROWEST_TEXT, fit


def random_table(random: Random) -> list[list[str]]:
    """Rows of cells of no to four words, the head first."""
    columns = random.randint(1, 9)
    word = partial(random.choice, ["a", "of", "12.5", "word", "0.03973", "words", "exponential-step"])
    return [
        [" ".join(word() for _ in range(random.randint(0, 4))) for _ in range(columns)]
        for _ in range(random.randint(1, 4))
    ]


@pytest.mark.parametrize("seed", range(4))
def test_parts_are_no_wider_than_the_terminal_and_hold_every_word(seed: int) -> None:
    for number in range(100):
        random = Random(1000 * seed + number)
        width = random.randint(60, 130)
        (columns, *rows) = random_table(random)
        check(columns, rows, width)


def check(columns: list[str], rows: list[list[str]], width: int) -> None:
    count = len(columns)
    parts = fit(columns, rows, width, columns[1:2])
    assert [place for part in parts for place in part.columns[part is not parts[0] :]] == list(range(count))
    for part in parts:
        between, ends = part.frame
        assert sum(part.widths) + between * (len(part.widths) - 1) + ends <= width
        for place, room in zip(part.columns, part.widths, strict=True):
            longest = max((len(word) for row in (columns, *rows) for word in row[place].split()), default=1)
            assert room >= min(longest, LONGEST_NAME if place == 0 else longest)


def test_sentences_give_way_before_numbers_are_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    sentence = "a description of several words that is longer than the line"
    print_table("t", ["name", "description", "size"], [["n", sentence, "128 x 1024"]], texts=("description",))
    shown = capsys.readouterr().out
    assert "128 x 1024" in shown
    assert set(sentence.split()) <= set(shown.split())
    assert max(map(len, shown.splitlines())) <= 60
    assert NARROWEST_TEXT < 60


@pytest.mark.parametrize("command", ["chips", "devices", "ops"])
def test_lists_fit_eighty_columns_with_all_their_words(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, [command]).stdout
    assert max(map(len, shown.splitlines())) <= 80
    words = set(shown.replace("│", " ").split())
    listed = json.loads(CliRunner().invoke(app, [command, "--json"]).stdout)
    for name, described in listed.items():
        assert {name, *described.get("description", "").split()} <= words
