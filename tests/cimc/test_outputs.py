"""Where results are written: devices, pipes and links are what they were; of two writers the last one wins whole."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cimc.errors import CimcError
from cimc.files import prepare_folder, replacing, replacing_folder


def write(target: Path, text: str = "new") -> None:
    with replacing(target) as temporary:
        temporary.write_text(text)


def _pipe(place: Path) -> None:
    os.mkfifo(place)


def _device(place: Path) -> None:
    place.symlink_to("/dev/null")  # a link is followed


@pytest.mark.parametrize("make", [_pipe, _device])
def test_a_pipe_or_a_device_is_refused_and_stays(make: Callable[[Path], None], tmp_path: Path) -> None:
    place = tmp_path / "out.cim"
    make(place)
    before = place.stat().st_mode
    with pytest.raises(CimcError, match="a device or a pipe"):
        write(place)
    assert place.stat().st_mode == before
    assert not stat.S_ISREG(before)
    assert list(tmp_path.iterdir()) == [place]


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CimcError, match="it is a folder"):
        write(tmp_path)


@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_stays_a_link_to_what_is_written(dangling: bool, tmp_path: Path) -> None:
    target, link = tmp_path / "far" / "real.cim", tmp_path / "out.cim"
    target.parent.mkdir()
    if not dangling:
        target.write_text("old")
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_read_only_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "out.cim"
    place.write_text("old")
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # to root every file can be written
    with pytest.raises(CimcError, match="read-only"):
        write(place)
    assert place.read_text() == "old"


def test_a_folder_with_the_files_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "thesis.tex").write_text("years")
    with pytest.raises(CimcError, match="not a package"):
        prepare_folder(tmp_path / "package", lambda place: False)
    assert (tmp_path / "package" / "thesis.tex").read_text() == "years"


def test_of_two_writers_of_a_file_the_last_wins_whole(tmp_path: Path) -> None:
    place = tmp_path / "out.cim"
    with replacing(place) as first:
        first.write_text("first, half")
        write(place, "second")
        assert place.read_text() == "second"
        first.write_text("first, whole")
    assert place.read_text() == "first, whole"
    assert list(tmp_path.iterdir()) == [place]


def test_of_two_writers_of_a_folder_the_last_wins_whole(tmp_path: Path) -> None:
    place = tmp_path / "package"
    with replacing_folder(place, lambda _: True) as first:
        (first / "one").write_text("first")
        with replacing_folder(place, lambda _: True) as second:
            (second / "two").write_text("second")
        assert [path.name for path in place.iterdir()] == ["two"]
    assert [path.name for path in place.iterdir()] == ["one"]
    assert list(tmp_path.iterdir()) == [place]


_KILLED = """
import os, signal, sys
from pathlib import Path
from cimc.files import replacing, replacing_folder
with replacing(Path(sys.argv[1])), replacing_folder(Path(sys.argv[2]), lambda _: True) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_gone_after_the_next_run(tmp_path: Path) -> None:
    file, folder = tmp_path / "out.cim", tmp_path / "package"
    subprocess.run([sys.executable, "-c", _KILLED, file, folder], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    write(file)
    with replacing_folder(folder, lambda _: True) as temporary:
        (temporary / "whole").write_text("whole")
    assert sorted(tmp_path.iterdir()) == [file, folder]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError("65536 requested and 16352 written"),
    ],  # the latter NumPy's
)
def test_a_full_disk_is_one_line_and_the_old_file_stays(error: OSError, tmp_path: Path) -> None:
    place = tmp_path / "out.cim"
    place.write_text("old")
    with (
        pytest.raises(CimcError, match=r"cannot write .*out\.cim: No space left on device.*free space"),
        replacing(place),
    ):
        raise error
    assert place.read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]
