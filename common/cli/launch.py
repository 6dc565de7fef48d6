"""The ``python -m monai.bundle`` line of a command: put together, printed, run as a process of its own."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
    import pty
    import termios
except ImportError:  # Windows has none
    pty = None

from ..checks import InputError, problem
from .excerpt import TracebackFilter, user_error

__all__ = [
    "INTERRUPTED",
    "bundle_command",
    "check_package",
    "keep_memory",
    "launch",
    "shown",
    "terminated_as_interrupted",
]

INTERRUPTED = 128 + signal.SIGINT  # the status of what the keyboard ended
PACKAGE = __package__.split(".")[0]
_FOLDER = Path(__file__).resolve().parents[1]
# MONAI drops an override that is None without a word, where an expression that gives None arrives; "true" and "false"
# it takes for texts, both of which count as true
_AS_MONAI_READS = {"None": "$None", "null": "$None", "true": "True", "false": "False"}


def bundle_command(configs: Sequence[Path], overrides: Mapping[str, Any]) -> list[str]:
    """Arguments of ``python -m monai.bundle run`` for config files, later ones over earlier ones, and overrides.

    Files below the working directory are named relative to it, so that the line printed is short and can be pasted.
    None and null are handed over as ``$None``, true and false as ``True`` and ``False``.
    """
    names = [_short(path) for path in configs]
    files = names[0] if len(names) == 1 else "[" + ",".join(f"'{name}'" for name in names) + "]"
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files]
    for name, value in overrides.items():
        command += [f"--{name}", _AS_MONAI_READS.get(str(value), str(value))]
    return command


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def shown(command: Sequence[str]) -> str:
    """A command as typed in a shell: ``python`` for this interpreter, double quotes around what has single ones."""
    words = ["python" if word == sys.executable else word for word in command]
    return " ".join(
        f'"{word}"' if "'" in word and not re.search(r'["$`\\!]', word) else shlex.quote(word) for word in words
    )


def check_package() -> None:
    """Make sure that the process to be started will import this package, not another one of the same name.

    ``python -m`` puts the working directory first on the path, so a folder ``common`` there would hide ours, and MONAI
    would only say that it cannot locate a class.

    Raises:
        InputError: naming the other package.
    """
    code = (
        f"import importlib.util as u; s = u.find_spec({PACKAGE!r}); "
        "print(s and (s.origin or list(s.submodule_search_locations)[0]))"
    )
    # -c sees the path as -m does: the working directory first, unless PYTHONSAFEPATH is set
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    if found == "None":
        raise InputError(
            problem(
                f"Python does not find the package '{PACKAGE}' from here",
                f"{_FOLDER} must be importable",
                f"install it, or set PYTHONPATH={_FOLDER.parent}",
            )
        )
    if Path(found).resolve() not in (_FOLDER, _FOLDER / "__init__.py"):
        raise InputError(
            problem(
                f"another package called '{PACKAGE}' comes first on Python's path: {found}",
                f"the bundles need the one in {_FOLDER}",
                "work in another folder, rename the other package, take it off PYTHONPATH, or (Python 3.11 and later) "
                "set PYTHONSAFEPATH=1, which keeps the working directory off the path",
            )
        )


def keep_memory() -> str:
    """Have the processes that are started from here on keep the memory of tensors that are freed (glibc; a CPU only).

    By default each large tensor is mapped and unmapped, and the system clears its pages anew at every operation of a
    training step. What is kept may be scattered, so that this is not for volumes that just fit into memory.

    Returns:
        the variables that are set, as a shell takes them; those of the user stay.
    """
    for name, value in (("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", str(2**34))):
        os.environ.setdefault(name, value)
    return " ".join(f"{name}={os.environ[name]}" for name in ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_"))


def launch(command: Sequence[str], verbose: bool = False) -> int:
    """Print a command and run it, its output streamed; an error that a user can act on is told in one short block.

    Args:
        command: the argument list.
        verbose: leave the output as it is, tracebacks and all.

    Returns:
        the exit status: the command's own, but 2 for an :class:`InputError` or :class:`WeightsError` anywhere in it.
    """
    print(f"$ {shown(command)}", flush=True)
    env = dict(os.environ, PYTHONUNBUFFERED="1")  # a pipe would hold back whole blocks
    if verbose:
        with subprocess.Popen(command, env=env) as process:
            return _wait(process)
    filters = [TracebackFilter(_writer(stream)) for stream in (sys.stdout, sys.stderr)]
    read_end, write_end = _error_pipe()
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=write_end) as process:
        os.close(write_end)
        pipes = (process.stdout.fileno(), read_end)
        threads = [threading.Thread(target=_pump, args=pair, daemon=True) for pair in zip(pipes, filters, strict=True)]
        for thread in threads:
            thread.start()
        status = _wait(process)
        for thread in threads:
            thread.join()
    os.close(read_end)
    held = ["".join(part.held) for part in reversed(filters)]  # what ended the run is on the error stream
    if status in (0, INTERRUPTED):  # where an interrupt struck is nothing to mend
        return status
    error = user_error(held[0]) or user_error(held[1])
    if error is None:
        sys.stderr.write("".join(held))
        return status
    print(f"\n{error[0]}: {error[1]}\n(--verbose shows where it was raised)", file=sys.stderr)
    return 2


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Have the signal to terminate end a block as the keyboard does, so that it can tidy up (in the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(process: subprocess.Popen[Any]) -> int:
    """Wait for a process; an interrupt from the keyboard reaches it, too, and it gets the time to end."""
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        return INTERRUPTED
    except SystemExit:  # of a signal that has reached this process alone
        process.terminate()
        process.wait()
        raise


def _writer(stream: IO[str]):
    def write(text: str) -> None:
        stream.write(text)
        stream.flush()

    return write


def _error_pipe() -> tuple[int, int]:
    """Both ends of what carries the error stream; a terminal where ours is one, or no progress bars would be drawn."""
    if pty is None or not sys.stderr.isatty():
        return os.pipe()
    ends = pty.openpty()
    columns, rows = os.get_terminal_size(sys.stderr.fileno())
    size = struct.pack("HHHH", rows or 24, columns or 80, 0, 0)  # a new terminal has no rows, and bars no room in it
    fcntl.ioctl(ends[1], termios.TIOCSWINSZ, size)
    return ends


def _pump(pipe: int, target: TracebackFilter) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    with contextlib.suppress(OSError):  # reading a terminal whose other end is closed is an error, not an end
        while piece := os.read(pipe, 65536):
            target.feed(decoder.decode(piece))
    target.close()
