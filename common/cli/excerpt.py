"""A long traceback told short: output passes through, and of its tracebacks the error that a user can mend is kept."""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["TracebackFilter", "user_error"]

_START = "Traceback (most recent call last):"
_BETWEEN = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
# errors of our own types are written for the reader; their module stands before them, scripts_NAME in a packed bundle
_USER_ERROR = re.compile(rf"^(?:{__package__.split('.')[0]}|scripts_\w+)\.[\w.]*?([A-Za-z]\w*): (.*)$")
_RECORD = re.compile(r"^(\d{4}-\d\d-\d\d|DEBUG|INFO|WARNING|ERROR|CRITICAL)\b|.*\r")


class TracebackFilter:
    """Pass text on as it comes, except tracebacks, which are held back until the end is known.

    Works on pieces of any length: a progress bar that redraws its line without ending it is passed on at once.

    Args:
        write: takes what is passed on.
    """

    def __init__(self, write: Callable[[str], object]) -> None:
        self.write = write
        self.held: list[str] = []
        self._line = ""  # what of the line begun is not passed on yet
        self._inside = False

    def feed(self, text: str) -> None:
        """Take the next piece."""
        for part in re.split(r"(?<=\n)", text):
            self._line += part
            if self._line.endswith("\n"):
                self._end_line()
            elif not self._inside:
                self._pass_rest(keep=_may_begin(self._line))

    def close(self) -> None:
        """Take the end of the text."""
        if self._line:
            self._end_line()

    def _pass_rest(self, keep: int = 0) -> None:
        end = len(self._line) - keep
        if end:
            self.write(self._line[:end])
            self._line = self._line[end:]

    def _end_line(self) -> None:
        line = self._line.rstrip("\r\n")
        if line.endswith(_START):  # a progress bar may stand before it, its line not ended
            self._pass_rest(keep=len(self._line) - len(line) + len(_START))
            self._hold(self._line)
        elif self._inside and self._continues(line):
            self._hold(self._line)
        else:
            self._inside = False
            self._pass_rest()
        self._line = ""

    def _hold(self, text: str) -> None:
        self._inside = True
        self.held.append(text)

    def _continues(self, line: str) -> bool:
        """Whether a line belongs to the traceback before it: frames, the error's own text, what links two of them."""
        if not line or line[0].isspace() or line in _BETWEEN:
            return True
        before = self.held[-1].strip()
        if self.held[-1][0].isspace() and before:
            return True  # the error's own text follows the last frame
        return bool(before) and not _RECORD.match(line)  # a text of several lines ends at a blank line or a log record


def _may_begin(line: str) -> int:
    """How many characters at the end of a line begun may be the beginning of a traceback."""
    start = _START + "\r"
    return next((size for size in range(min(len(line), len(start)), 0, -1) if start.startswith(line[-size:])), 0)


def user_error(traceback: str) -> tuple[str, str] | None:
    """The error in a chain of tracebacks that a user can mend: the last one of the package's own types, and its text.

    Python prints causes first: what MONAI wraps around our error comes after it, what we say about an error of a
    library, or of several cases, comes last.

    >>> user_error("Traceback (most recent call last):\\n  File ...\\ncommon.checks.InputError: no such file\\n")
    ('InputError', 'no such file')
    >>> user_error("Traceback (most recent call last):\\nscripts_toy.checks.WeightsError: none is there\\n")
    ('WeightsError', 'none is there')
    """
    lines, found = traceback.splitlines(), None
    for number, line in enumerate(lines):
        if match := _USER_ERROR.match(line):
            text = [match[2]]
            for following in lines[number + 1 :]:
                if not following.strip() or following == _START:
                    break
                text.append(following)
            found = match[1], "\n".join(text)
    return found
