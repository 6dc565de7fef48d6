"""The words of a command line, and the line of MONAI that a command stands for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..checks import InputError, parse_flag, problem
from .device import check_device
from .launch import bundle_command, check_package, launch
from .locate import config_file, find_bundle, finds_itself

__all__ = [
    "check_known",
    "checked_configs",
    "config_files",
    "ids_of",
    "quoted",
    "refuse",
    "run_line",
    "split_names",
    "with_root",
]


def quoted(word: str) -> str:
    """A word that fire reads as text: values go on to MONAI as they were typed, and it reads them, once."""
    if not re.match(r"--?[A-Za-z_]", word):
        return repr(word)
    flag, equals, value = word.partition("=")
    return f"{flag}={value!r}" if equals else flag


def run_line(
    name: str, base: Sequence[str], rest: Sequence[str], overlays: str, verbose: str, overrides: dict[str, str]
) -> int:
    """Run the line of a command.

    Args:
        name: a bundle's name or folder.
        base: names of the configs that the command stands for.
        rest: words that are no options; none is understood.
        overlays: names of configs laid over, separated by commas.
        verbose: show whole tracebacks.
        overrides: config entries by name.

    Returns:
        the exit status.

    Raises:
        InputError: for what no run could use.
    """
    refuse(rest)
    bundle = find_bundle(name)
    configs = checked_configs(bundle, [*base, *split_names(overlays)], overrides)
    return launch(bundle_command(configs, with_root(bundle, overrides)), parse_flag(verbose, "verbose"))


def checked_configs(
    bundle: Path, names: Sequence[str], overrides: Mapping[str, Any], options: Iterable[str] = ("overlays", "verbose")
) -> list[Path]:
    """The files of configs, after the checks that a line needs before it is run.

    Args:
        bundle: its folder.
        names: of the configs, those of the command first.
        overrides: config entries by name.
        options: of the command (see `check_known`).

    Raises:
        InputError: for what no run could use.
    """
    configs = config_files(bundle, names)
    check_known(overrides, ids_of(configs), options)
    if "device" in overrides:
        check_device(str(overrides["device"]))
    check_package()
    return configs


def with_root(bundle: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Overrides that tell a bundle its folder, where its configs would not find it from here."""
    return dict(overrides) if finds_itself(bundle) else {"bundle_root": str(bundle), **overrides}


def config_files(bundle: Path, names: Sequence[str]) -> list[Path]:
    """The files of configs by their names."""
    return [config_file(bundle, name) for name in names]


def ids_of(configs: Sequence[Path]) -> dict[str, Any]:
    """Every id of configs that are laid over each other, with what it holds.

    Raises:
        InputError: when they do not fit together.
    """
    from monai.bundle import (
        ConfigParser,
    )  # here and below, since MONAI takes seconds that "list" and "--help" need not wait

    from ..bundling.ids import config_ids

    try:
        return config_ids(ConfigParser.load_config_files([str(path) for path in configs]))
    except KeyError as error:  # MONAI's word for a nested id whose parent is not there
        names = " + ".join(path.name for path in configs)
        absent = str(error.args[0]).rpartition(" ")[2]
        raise InputError(
            problem(
                f"{names} do not fit together: one of them changes something in '{absent}', which is not there",
                "an overlay is laid over a config that has what it changes",
                "leave that overlay out; some are for training alone",
            )
        ) from error


def check_known(
    overrides: Iterable[str], ids: dict[str, Any], options: Iterable[str] = ("overlays", "verbose")
) -> None:
    """MONAI takes an override that answers to nothing without a word; here it is an error with the nearest entry.

    Args:
        overrides: names of what was given.
        ids: of the config.
        options: of the command; a misspelt one arrives as an override, and is told its name.
    """
    from ..bundling.ids import RUN_ARGUMENTS, check_overrides, unknown_id

    if "config_file" in overrides:
        raise InputError(
            problem(
                "--config_file was given",
                "volseg names the bundle's own configs",
                "lay others over: --overlays FILE.json",
            )
        )
    known = {**{name: None for name in options if name not in overrides}, **ids}
    for name in overrides:
        remedy = None if name in RUN_ARGUMENTS else unknown_id(known, name)
        for option in options:
            if option not in ids and remedy == f"use '{option}'":
                came = f"--{name} is no option, and answers to no id of the config"
                raise InputError(problem(came, "an option is written as --help has it", f"write --{option}"))
    check_overrides(known, overrides)


def refuse(rest: Sequence[str]) -> None:
    """Refuse words that are no options.

    Raises:
        InputError: when there is one.
    """
    if rest:
        raise InputError(
            problem(
                f"'{rest[0]}' is not understood",
                "everything after the names is --name value",
                "write it as an option; see --help",
            )
        )


def split_names(names: str) -> list[str]:
    """The names of a list as it is written on a command line."""
    return [part for part in (word.strip(" []'\"") for word in str(names).split(",")) if part]
