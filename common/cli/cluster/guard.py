"""Runs a command and ends it when whoever asked for it is gone; a file of its own that needs nothing but Python.

``python guard.py COMMAND...``: standard input is a pipe that the caller holds open. A caller that is killed can
tidy up nothing, but its pipe ends, and with it the command and all that this has started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

__all__ = ["main"]

_GRACE = 5.0  # seconds between asking and forcing


def main(command: list[str]) -> int:
    """Run a command to its end or to that of standard input.

    Args:
        command: the argument list.

    Returns:
        its exit status, 128 and the number of the signal where one has ended it.
    """
    if hasattr(signal, "SIGTERM"):
        signal.signal(signal.SIGTERM, _survive)  # sent to the whole group below; a handler is not inherited
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_input, args=(process,), daemon=True).start()
    status = process.wait()
    return 128 - status if status < 0 else status


def _survive(number: int, frame: object) -> None:
    """Leave the ending to the command."""


def _end_with_input(process: subprocess.Popen[bytes]) -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    process.terminate() if not hasattr(os, "killpg") else os.killpg(0, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)
    process.kill() if not hasattr(os, "killpg") else os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
