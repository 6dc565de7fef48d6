"""One form for what a request is refused for: what came, what the rule is, what to do."""

from __future__ import annotations

import json


class Refused(Exception):
    """A request that breaks a stated rule.

    Args:
        status: of HTTP.
        came: what was found.
        rule: what is required.
        remedy: what the sender can do about it.
    """

    def __init__(self, status: int, came: str, rule: str, remedy: str) -> None:
        self.status, self.parts = status, {"came": came, "rule": rule, "remedy": remedy}
        super().__init__(f"{came}: {rule}. To mend it, {remedy}.")

    def body(self) -> bytes:
        """The answer: ``detail`` as the server's own errors have it, and its three parts."""
        return json.dumps({"detail": str(self), **self.parts}).encode()


# errors of the bundles' own checks, each a text of the same three parts
_OURS = ("InputError", "WeightsError")


def explained(error: BaseException) -> Refused:
    """What to answer when the server fell over `error`; names of files on the server are not told."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    for one in seen:
        name = type(one).__name__
        if name in _OURS:
            return _parts(str(one))
        if name == "ImageNotFoundException":
            return Refused(
                404, "the image is not there", "it must be one of the studies", "ask GET /datastore/ for them"
            )
    kinds = " after ".join(dict.fromkeys(type(one).__name__ for one in seen))
    return Refused(500, f"the server failed ({kinds})", "its log has the reason", "ask who runs it")


def _parts(text: str) -> Refused:
    """An error of a bundle's own checks, taken apart again."""
    came, _, rest = text.partition(": ")
    rule, _, remedy = rest.partition(". To mend it, ")
    return Refused(422, came, rule or "it can not be answered", remedy.rstrip(".") or "read the bundle's README")
