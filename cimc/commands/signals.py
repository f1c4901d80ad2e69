"""The one path of Ctrl-C and SIGTERM: a line, status 130, and no result, whatever the signal interrupts.

Nothing is raised: libraries swallow KeyboardInterrupt (JAX in a callback, an import, a destructor), or crash of it.
A thread waits for the signal, removes the files that are being written, and ends the process. The files of the last
checkpoint are whole: they were renamed when they were (`cimc.files`).
"""

import atexit
import os
import signal
import sys
import threading
from contextlib import suppress

STATUS = 130
_SHOW_CURSOR = b"\x1b[?25h"  # a progress bar hides it


def listen() -> None:
    """From now on SIGINT and SIGTERM end the process with `STATUS`."""
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        # A command that a shell starts in the background ignores Ctrl-C, and goes on ignoring it.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    threading.Thread(target=_end, args=(heard,), daemon=True).start()
    atexit.register(_ignore)


def _ignore() -> None:
    """When all is done and Python ends: it gives signals back to the system first, which would change the status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end(heard: int) -> None:
    while os.read(heard, 1)[0] not in (signal.SIGINT, signal.SIGTERM):
        pass  # a signal that a library has a handler for
    with suppress(OSError):
        os.write(2, (_SHOW_CURSOR if sys.__stderr__ and sys.__stderr__.isatty() else b"") + b"interrupted\n")
    files = sys.modules.get("cimc.files")  # not loaded: nothing is being written
    if files is not None:
        files.remove_temporaries()
    os._exit(STATUS)
