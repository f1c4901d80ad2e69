"""Ctrl-C and SIGTERM: always status 130, whatever swallows the interrupt; what was being written is gone."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Libraries that swallow every exception, in the main thread and in one of theirs, and a file that is being written.
_SWALLOWING = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from cimc.commands import signals
signals.listen()
from pathlib import Path
from cimc.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_that_is_swallowed_ends_with_130(number: signal.Signals, tmp_path: Path) -> None:
    target = tmp_path / "net.cim"
    target.write_text("old")
    command = [sys.executable, "-c", _SWALLOWING, str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["net.cim"]
    assert target.read_text() == "old"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_interrupted_prints_no_result(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _SWALLOWING.partition("from pathlib")[0] + _COMMAND]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (130, "", "interrupted\n")


# What JAX does with an interrupt: a callback turns it into an error of its own.
_COMMAND = """
import jax, numpy as np
jax.config.update("jax_platforms", "cpu")
def wait(x):
    print("ready", flush=True)
    time.sleep(10)
    return x
try:
    jax.jit(lambda x: jax.pure_callback(wait, x, x))(np.float32(1)).block_until_ready()
except BaseException:
    pass
print("a result")
"""


def test_a_signal_while_python_ends_leaves_the_status() -> None:
    code = _SWALLOWING.partition("from pathlib")[0] + _LAST
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a result\n", "")


# What is deleted when Python has given its signals back.
_LAST = """
import os, signal
class Last:
    def __del__(self, kill=os.kill, me=os.getpid(), both=(signal.SIGTERM, signal.SIGINT)):
        for number in both:
            kill(me, number)
last = Last()
print("a result", flush=True)
"""


def test_the_entry_point_listens_before_it_imports() -> None:
    code = "import sys, signal, cimc.__main__ as m; sys.argv = ['cimc', '--version']\n"
    code += (
        "try: m.main()\nfinally: print(signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "True False"
