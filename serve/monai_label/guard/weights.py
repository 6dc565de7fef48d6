"""Weights that the server would load without strictness, compared with the network they are for."""

from __future__ import annotations

import functools
import pickle
from pathlib import Path

import torch

from .refused import Refused

Shapes = dict[str, tuple[int, ...]]


def shapes(state: dict[str, torch.Tensor]) -> Shapes:
    """Names and sizes of a state dict's tensors."""
    return {name: tuple(value.shape) for name, value in state.items()}


@functools.lru_cache(maxsize=64)
def _of_file(path: str, changed: int) -> Shapes:
    # `changed` is there for the cache: a file that was written anew is read anew
    content = torch.load(path, map_location="cpu", weights_only=True)
    return shapes(content.get("model", content))


def check(path: Path, network: torch.nn.Module) -> None:
    """See that a file holds the weights of a network, all of them and no others.

    Raises:
        Refused: when it does not; the server would answer with noise.
    """
    try:
        found = _of_file(str(path), path.stat().st_mtime_ns)
    except (OSError, RuntimeError, pickle.UnpicklingError, AttributeError, EOFError, ValueError) as error:
        came = f"the weights can not be read ({type(error).__name__})"
        raise Refused(
            422, came, "they must be a plain state dict", "write them anew, without pickled objects"
        ) from None
    wanted = shapes(network.state_dict())
    if found != wanted:
        differing = sum(found.get(name) != size for name, size in wanted.items()) + len(found.keys() - wanted.keys())
        raise Refused(
            422,
            f"the weights are another network's: {differing} of {len(wanted)} tensors differ",
            "they must fit, since the server loads what fits and makes up the rest",
            "choose model.pt, or pack the bundle with the overlay that the weights were trained under",
        )
