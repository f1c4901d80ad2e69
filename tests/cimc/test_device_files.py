"""Device descriptions that cannot be: one line each, what and where."""

import pytest

from cimc.chip import chip_text, load_chip, parse_chip
from cimc.device_file import device_text, parse_device
from cimc.errors import CimcError
from cimc.options import Write
from runtime.training.options import Policy

BASE = device_text("soft-bounds-10")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("= 100.0 #", "= 1e300 #", "conductance_max_uS: input should be less than or equal to 1000000000"),
        ("= 100.0 #", f"= {'9' * 5000} #", "is not valid TOML"),
        ("[pulse]", f"x = {'[' * 3000}{']' * 3000}\n[pulse]", "is not valid TOML"),
        ("[pulse]", f"[programming]\nerror_sd_uS = 1{'0' * 400}\n[pulse]", "error_sd_uS: give a finite number"),
        (
            "[pulse]",
            "[drift]\nstart_s = 1e-50\nexponent = { constant = 0.1 }\n[pulse]",
            "drift.start_s: input should be",
        ),
        (
            "[pulse]",
            "[relaxation]\ntimes_s = [1e-50, 1.0]\nsd_uS = [0.0, 1.0]\n[pulse]",
            "times_s must ascend, from 1e-12 to 1e12 s",
        ),
        ("[pulse]", "[faults]\nhigh_uS = 1e300\n[pulse]", "faults.high_uS: input should be less than"),
        ('"soft-bounds"', '"tabulated"\ncurve_uS = [500.0, 600.0]', "curve_uS runs from 500 to 600 uS; it must hold"),
    ],
)
def test_what_no_device_can_be_is_refused_in_one_line(old: str, new: str, message: str) -> None:
    assert old in BASE
    with pytest.raises(CimcError, match=message) as caught:
        parse_device(BASE.replace(old, new), "mine.toml")
    assert "\n" not in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_chip_file_with_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(CimcError, match="chip file x is not valid TOML"):
        parse_chip(chip_text("ideal").replace("rows = 256", f"rows = {'9' * 5000}"), "x")


def test_a_binary_device_trains_by_pulses_without_a_threshold_of_the_users() -> None:
    policy = Policy(write=Write.pulse)
    chip = load_chip("ideal", "stt-mram")
    policy.check(chip)
    assert policy.rule.threshold(chip) == 0.5
