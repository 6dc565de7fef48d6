"""The one form of a refusal: what came, what the rule is, what to do. It never names a patient, a path or a UID."""

from __future__ import annotations


class Refused(ValueError):
    """Input that the application does not take.

    Args:
        came: what was found.
        rule: what is required.
        remedy: what the reader can do about it.
    """

    def __init__(self, came: str, rule: str, remedy: str) -> None:
        super().__init__(f"{came}: {rule}. To mend it, {remedy}.")
