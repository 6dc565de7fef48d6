"""The converters that ``volseg convert`` knows."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence

from ..checks import InputError, nearest, problem

__all__ = ["CONVERTERS", "convert", "module_name"]

# what is converted, by form; a form is a module of common.data.convert with convert_MODULE and MODULE_command
_FOLDERS = ("totalsegmentator", "btcv", "amos", "3dircadb", "ixi", "costa", "topcow")
CONVERTERS = {"hdf5": "FILES", **dict.fromkeys(_FOLDERS, "FOLDER")}
_MODULES = {"3dircadb": "ircadb"}  # a module's name begins with no digit


def convert(form: str, sources: Sequence[str], out: str, options: dict[str, str]) -> None:
    """Convert data of one form and print what was done.

    Args:
        form: a key of `CONVERTERS`.
        sources: files, folders or globs.
        out: the folder to make.
        options: what the converter takes, by name.

    Raises:
        InputError: an unknown form or option, nothing to convert, no folder to write to, and what the converter raises.
    """
    if form not in CONVERTERS:
        like = nearest(form, CONVERTERS) or "hdf5"
        known = ", ".join(CONVERTERS)
        raise InputError(
            problem(
                f"there is no converter for '{form}'", f"there are those for {known}", f"write: volseg convert {like}"
            )
        )
    if not out:
        raise InputError(
            problem("no folder to write to was named", "converted data goes to a new folder", "pass --out FOLDER")
        )
    if not sources:
        wanted = f"write: volseg convert {form} {CONVERTERS[form]}"
        raise InputError(problem("no file was named", "at least one is converted", wanted))
    # here, since it brings MONAI, seconds that no other command needs
    name = module_name(form)
    module = importlib.import_module(f"..data.convert.{name}", __package__)
    parameters = inspect.signature(getattr(module, f"convert_{name}")).parameters.values()
    takes = [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
    for option in options:
        if option not in takes:
            like = nearest(option, takes)
            raise InputError(
                problem(
                    f"--{option} is no option of the converter for {form}",
                    f"it takes {', '.join(takes)}",
                    f"use '{like}'" if like else "leave it out",
                )
            )
    getattr(module, f"{name}_command")(sources, out, **options)


def module_name(form: str) -> str:
    """The module of :mod:`common.data.convert` that converts a form."""
    return _MODULES.get(form, form)
