"""Habits of a command line: how much it says, colours, completion, doctor, caches, downloads."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cimc.commands import doctor
from cimc.commands.console import Detail, inform, next_step, progress_bar, set_detail
from cimc.commands.main import app
from cimc.data import fetch
from cimc.errors import CimcError
from cimc.xla_cache import cache_limit, cached_files, limit_cache, xla_cache

run = CliRunner().invoke


@pytest.fixture(autouse=True)
def _usual_detail():
    yield
    set_detail(Detail.usual)


# --- How much is said ---


def said_beside_results(capsys: pytest.CaptureFixture[str]) -> str:
    with progress_bar("train") as bar:
        bar(1, 2, "epoch 1")
    inform("a note")
    return capsys.readouterr().err + next_step("cimc train")


def test_quiet_leaves_neither_progress_nor_notes_nor_hints(capsys: pytest.CaptureFixture[str]) -> None:
    assert said_beside_results(capsys) == "train: epoch 1\na note\n; next: cimc train"
    assert run(app, ["cache", "--quiet"]).exit_code == 0
    assert said_beside_results(capsys) == ""


def test_verbose_tells_where_caches_are_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for words in (["-v", "cache"], ["cache", "--verbose"]):
        result = run(app, words)
        assert f"compilation cache: {tmp_path}/cimc/xla" in result.stderr
    assert run(app, ["-q", "cache", "-v"]).exit_code == 2
    assert run(app, ["cache"]).stderr == ""


def test_no_color_is_honoured() -> None:
    def coloured(**environment: str) -> bool:
        command = [sys.executable, "-m", "cimc", "chips", "--no-such-option"]
        kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        output = subprocess.run(
            command, env={**kept, **environment}, capture_output=True, text=True, check=False
        ).stderr
        return any(f"\x1b[{code}m" in output for code in range(30, 38))

    assert coloured(FORCE_COLOR="1")
    assert not coloured(FORCE_COLOR="1", NO_COLOR="1")


# --- Completion ---


def completed(words: str) -> list[str]:
    environment = {"_CIMC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    return run(app, prog_name="cimc", env=environment).stdout.split()


def test_chips_devices_sets_and_files_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.cim", "a.onnx", "b.cim"):
        (tmp_path / name).touch()
    (tmp_path / "apart").mkdir()
    assert completed("cimc compile a.onnx --chip isa") == ["isaac"]
    assert completed("cimc chips her") == ["hermes"]
    assert completed("cimc chips hermes --device soft-bounds-1") == ["soft-bounds-10"]
    assert completed("cimc eval a.cim --data mn") == ["mnist"]
    assert completed("cimc eval a") == ["a.cim", "apart/"]
    assert completed("cimc compile a") == ["a.onnx", "apart/"]
    assert completed("cimc doct") == ["doctor"]


# --- doctor ---


def test_doctor_finds_this_machine_well(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(app, ["doctor", "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["problems"]) == (0, [])
    assert found["versions"]["jax"]
    assert found["devices"]
    assert found["cache"]["folder"] == str(xla_cache())
    assert found["data"].keys() == {"mnist", "fashion-mnist", "cifar10"}


def test_doctor_ends_with_status_1_where_something_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(doctor, "REQUIRED", ("numpy", "cimc-needs-this"))
    result = run(app, ["doctor"])
    assert result.exit_code == 1
    assert "broken: cimc-needs-this is missing" in result.stdout
    assert "cannot be written" in result.stdout
    assert "all is well" not in result.stdout


# --- The compilation cache ---


def test_what_was_not_used_for_longest_goes_where_the_cache_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CIMC_CACHE_MB", "0.01")
    folder = tmp_path / "cimc" / "xla"
    folder.mkdir(parents=True)
    for age, name in enumerate(["new", "read", "old", "oldest"]):
        (folder / name).write_bytes(bytes(4000))
        os.utime(folder / name, (10_000 - 10 * age,) * 2)
    limit_cache()
    assert {file.path.name for file in cached_files()} == {"new", "read"}
    os.utime(folder / "read", (20_000, 9_990))  # read since: now "new" is what goes first
    (folder / "newest").write_bytes(bytes(4000))
    limit_cache()
    assert {file.path.name for file in cached_files()} == {"read", "newest"}
    shown = json.loads(run(app, ["cache", "--json"]).stdout)
    assert (shown["files"], shown["bytes"], shown["limit_bytes"]) == (2, 8000, int(0.01 * 2**20))
    cleared = json.loads(run(app, ["cache", "clear", "--json"]).stdout)
    assert (cleared["removed_files"], cleared["removed_bytes"]) == (2, 8000)
    assert list(folder.iterdir()) == []
    monkeypatch.setenv("CIMC_CACHE_MB", "much")
    assert cache_limit() == 2 * 2**30


# --- Downloads ---


def remote(content: bytes, name: str, members: tuple[str, ...] = ()) -> fetch.Remote:
    return fetch.Remote(name, hashlib.sha256(content).hexdigest(), len(content), members)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small files in place of the sets, and the sets' checksums to match."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    names = [file.name for file in fetch.SOURCES["mnist"].files]
    for name in names:
        (folder / name).write_bytes(name.encode())
    packed = io.BytesIO()
    members = fetch.SOURCES["cifar10"].files[0].members
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for member in members:
            entry = tarfile.TarInfo(f"../cifar-10-batches-bin/{member}")
            entry.size = len(member)
            archive.addfile(entry, io.BytesIO(member.encode()))
    (folder / "cifar-10-binary.tar.gz").write_bytes(packed.getvalue())
    sources = {
        "mnist": fetch.Source(("https://127.0.0.1:1/none",), tuple(remote(name.encode(), name) for name in names)),
        "cifar10": fetch.Source(
            ("https://127.0.0.1:1/none",), (remote(packed.getvalue(), "cifar-10-binary.tar.gz", members),)
        ),
    }
    monkeypatch.setattr(fetch, "SOURCES", sources)
    monkeypatch.setenv("CIMC_MIRROR", f"{folder.as_uri()}/")
    monkeypatch.setenv("CIMC_DATA", str(tmp_path / "data"))
    return folder


def test_files_come_over_http_and_whole_ones_are_not_fetched_again(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(mirror)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("CIMC_MIRROR", f"http://127.0.0.1:{server.server_port}")
    folder = tmp_path / "data" / "mnist"
    for _ in range(2):
        result = run(app, ["data", "fetch", "mnist"])
        assert result.exit_code == 0, result.exception
        assert str(folder) in result.stdout
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(b"t10k-labels-idx1-ubyte.GZ")
    assert run(app, ["data", "fetch", "mnist"]).exit_code == 0
    server.shutdown()
    assert len(asked) == 5
    assert all(path.read_bytes() == path.name.encode() for path in folder.iterdir())
    assert json.loads(run(app, ["data", "--json"]).stdout)["data"]["mnist"] == str(folder)


def test_an_archive_is_taken_apart_beside_itself_and_nowhere_else(mirror: Path, tmp_path: Path) -> None:
    assert run(app, ["data", "fetch", "cifar10"]).exit_code == 0
    found = {path.name: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert found == {name: name.encode() for name in fetch.SOURCES["cifar10"].files[0].members}


def test_another_file_and_no_network_are_one_clear_line(
    mirror: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (b"other images", b"x" * 26, bytes(10_000)):
        (mirror / "train-images-idx3-ubyte.gz").write_bytes(content)
        with pytest.raises(CimcError, match="SHA-256 differs") as refused:
            fetch.fetch("mnist", progress=lambda done, total: None)
        assert "\n" not in str(refused.value)
    monkeypatch.delenv("CIMC_MIRROR")
    with pytest.raises(CimcError, match=r"cannot be had \(.*\); where there is no network, put the files"):
        fetch.fetch("mnist", progress=lambda done, total: None)
    assert list((tmp_path / "data" / "mnist").iterdir()) == []
    with pytest.raises(CimcError, match="choose mnist or cifar10"):
        fetch.fetch("imagenet", progress=lambda done, total: None)
