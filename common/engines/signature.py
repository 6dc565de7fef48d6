"""What a result depends on, in a form that can be compared and kept: settings of objects, digests of weights."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Mapping
from enum import Enum
from types import ModuleType
from typing import Any

import numpy as np
import torch

__all__ = ["settings_of", "settings_digest", "state_digest"]


def state_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256, in hexadecimal, of the names, types, shapes and values of a state dict, on whatever device it lies.

    Tensors come to the host one at a time.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def settings_of(value: Any) -> Any:
    """Settings of an object, as JSON takes them: the name of its class and what it was made with, all the way down.

    An object that keeps every argument of its constructor under the argument's name was made with these, and what
    else it holds are results of calls; of any other, all public attributes count. Numbers, texts and sequences stand
    for themselves, types and functions for their name, arrays for a digest, an object without attributes (a random
    generator, a lock) for the name of its class. Names of modules are left out, since packing a bundle changes them.

    >>> settings_of({"size": (2, 3), "dtype": torch.uint8})
    {'size': [2, 3], 'dtype': 'torch.uint8'}
    """
    if isinstance(value, Enum):
        return settings_of(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [settings_of(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(settings_of(one)) for one in value)
    if isinstance(value, Mapping):
        return {str(key): settings_of(one) for key, one in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return state_digest({"": torch.as_tensor(value)})
    if isinstance(value, (torch.dtype, torch.device, np.dtype, os.PathLike)):
        return str(value)
    if isinstance(value, ModuleType):
        return value.__name__
    if hasattr(value, "__qualname__"):
        return value.__qualname__
    held = getattr(value, "__dict__", {})
    arguments = list(inspect.signature(type(value).__init__).parameters)[1:]
    if not arguments or any(name not in held for name in arguments):
        arguments = sorted(name for name in held if not name.startswith("_"))
    return {"class": type(value).__qualname__, **{name: settings_of(held[name]) for name in arguments}}


def settings_digest(settings: Any) -> str:
    """SHA-256, in hexadecimal, of what `settings_of` returns."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
