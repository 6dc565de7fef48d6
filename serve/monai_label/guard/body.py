"""What came with a request."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from .refused import Refused

DEPTH = 64  # lists and objects within each other


@dataclass
class Body:
    """The body of a request, taken in.

    Args:
        raw: a body that is no form with files, as it came.
        fields: texts of a form.
        files: files of a form: the field's name, the file's own name, where it lies.
        json: the content of a JSON body.
    """

    raw: bytes = b""
    fields: list[tuple[str, str]] = field(default_factory=list)
    files: list[tuple[str, str, Path]] = field(default_factory=list)
    json: object = None

    def text(self, name: str) -> str:
        """A text of the form, or an empty one."""
        return next((value for key, value in self.fields if key == name), "")


def _check_depth(content: object) -> None:
    level = [content] if isinstance(content, (dict, list)) else []
    for _ in range(DEPTH):
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise RecursionError


def parsed(text: bytes | str, what: str) -> object:
    """The content of a JSON text.

    Raises:
        Refused: when it is none, or so deep that those who read it on would fall over it.
    """
    try:
        content = json.loads(text)
        _check_depth(content)
        return content
    except RecursionError:
        rule = f"it may be {DEPTH} deep"
        raise Refused(422, f"{what} holds too many lists in each other", rule, "send it flatter") from None
    except ValueError as error:
        raise Refused(400, f"{what} is no JSON ({error})", "it must be JSON", f"send {what} as JSON") from None
