"""What a ``_target_`` of a config names, and which arguments that takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pydoc import locate as _locate
from typing import Any

__all__ = ["NOT_ARGUMENTS", "argument_faults", "is_component", "locate", "takes"]

NOT_ARGUMENTS = frozenset({"_target_", "_disabled_", "_requires_", "_desc_", "_mode_"})
"""Keys of a component that speak to MONAI and not to its target."""


def is_component(config: Any) -> bool:
    """Whether MONAI would instantiate this part of a config."""
    return isinstance(config, Mapping) and "_target_" in config


@functools.cache
def _locator() -> Any:
    from monai.bundle import ComponentLocator  # here, since it takes seconds, and many an id is checked without it

    return ComponentLocator()


def locate(target: str) -> Callable[..., Any] | None:
    """The class or function that a ``_target_`` names, by short MONAI name or dotted path; None where there is none.

    Raises:
        Exception: what an existing module raises while it is imported.
    """
    home = _locator().get_component_module_name(target)
    if isinstance(home, list):  # MONAI takes the first, with a warning
        home = home[0]
    if home is None and "." not in target:
        return None  # pydoc would look among the builtins
    found = _locate(f"{home}.{target}" if home else target)
    return found if callable(found) else None


def _signature(target: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(target)
    except (TypeError, ValueError):  # some builtins have none
        return None


def takes(target: Callable[..., Any], argument: str) -> bool:
    """Whether a call of `target` may name `argument`; True where its signature can not be read."""
    signature = _signature(target)
    if signature is None:
        return True
    found = signature.parameters.get(argument)
    if found is not None and found.kind not in (found.POSITIONAL_ONLY, found.VAR_POSITIONAL, found.VAR_KEYWORD):
        return True
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.parameters.values())


def argument_faults(target: Callable[..., Any], component: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Compare the arguments of a component with the signature of its target.

    Args:
        target: what the component's ``_target_`` names.
        component: the component as the config has it.

    Returns:
        arguments that are not taken, arguments that are missing (none for ``"_mode_": "callable"``, which
        leaves them to the caller), and all that may be named.
    """
    signature = _signature(target)
    given = [key for key in component if key not in NOT_ARGUMENTS]
    if signature is None:
        return [], [], []
    parameters = signature.parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    missing = [p.name for p in named if p.default is p.empty and p.name not in given]
    unknown = [key for key in given if not takes(target, key)]
    return unknown, [] if component.get("_mode_") == "callable" else missing, [p.name for p in named]
