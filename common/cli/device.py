"""The device of a run, checked before the run starts."""

from __future__ import annotations

from ..checks import InputError, problem

__all__ = ["check_device"]


def check_device(name: str) -> None:
    """Refuse a device that is not here: a run would only say that a config expression failed.

    Args:
        name: as given for ``--device``: ``cpu``, ``cuda``, ``cuda:1``; an expression or a reference of a config passes.

    Raises:
        InputError: naming the devices that are here.
    """
    import torch  # here, since it takes seconds that no other command needs

    if name.startswith(("$", "@", "%")):
        return
    here = ["cpu"]
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator().type
        here += [kind, *(f"{kind}:{index}" for index in range(torch.accelerator.device_count()))]
    if name not in here:
        raise InputError(
            problem(
                f"--device is '{name}'",
                f"it must be one of the devices here: {', '.join(here)}",
                "name one of them, or leave --device out" + ("" if len(here) > 1 else " (no GPU is found by torch)"),
            )
        )
