"""Cache and temporary folders that are missing, full or cannot be written: work goes on, or one line says so."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cimc.commands import main

_COMPILES = """
import warnings
warnings.simplefilter("ignore")
import jax
from pathlib import Path
if not {home}:
    def home(): raise RuntimeError("Could not determine home directory.")
    Path.home = home
from runtime.crossbar.xla import use_compilation_cache
use_compilation_cache()
print(jax.jit(lambda x: x * 3)(2))
"""


@pytest.mark.parametrize(("home", "cache"), [(False, ""), (True, "/dev/null")])
def test_work_goes_on_without_a_cache(home: bool, cache: str) -> None:
    known = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    code = _COMPILES.format(home=home)
    environment = {**known, "XDG_CACHE_HOME": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("6\n", "", 0)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), "cannot write /tmp/x: No space left on device"),
        (OSError(errno.EROFS, "Read-only file system"), "cannot write a temporary or cache file: Read-only"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "No usable temporary"),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(prog_name: str) -> None:
        raise error

    monkeypatch.setattr(main, "app", fail)
    with pytest.raises(SystemExit) as caught:
        main.main()
    found = capsys.readouterr().err
    assert caught.value.code == 1
    assert found.startswith("error: cannot write ")
    assert said in found
    assert "TMPDIR" in found
    assert found.count("\n") == 1


def test_a_file_of_ours_that_is_missing_is_an_internal_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "app", lambda prog_name: Path("/missing/file").read_text())
    monkeypatch.delenv("CIMC_TRACEBACK", raising=False)
    with pytest.raises(SystemExit):
        main.main()
    assert "internal error (FileNotFoundError" in capsys.readouterr().err
