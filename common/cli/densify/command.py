"""``volseg densify``: a few drawn slices in, a dense label out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...checks import InputError, parse_flag, problem
from ...data.annotation import DISPUTED
from ...data.arguments import parse_optional_integer, parse_share
from ...data.unlabelled import parse_unlabelled
from ...data.volume_file import parse_spacing, read_volume
from ..device import check_device
from ..launch import INTERRUPTED, check_package, keep_memory
from ..locate import find_bundle
from ..recipes import Recipe, parse_recipes
from ..words import check_known, config_files, ids_of, split_names
from .case import parse_downsample
from .folder import Folder, read_record
from .pace import minutes_text
from .report import write_results
from .request import Request, open_folder
from .steps import FINISH, OVERLAY, SCORE, UNCERTAINTY, LineError
from .work import Work

__all__ = ["densify"]

# entries that the steps set themselves
_OWN = ("bundle_root", "dataset_dir", "output_dir", "model_path", "held_out", "start_from", "resume", "in_channels")
_OWN += ("num_classes", "ignore_index", "cases", "fold", "folds", "slices", "slice_fold", "slice_folds", "seeds_key")
_FREE = ("device", "workers")  # they do not decide the result
_OPTIONS = ("unlabelled", "disputed", "spacing", "key", "label_key", "class_names", "hold_out", "downsample")
_OPTIONS += ("finish_epochs", "overlays", "keep_drawn", "rivals", "verbose", "continue", "bundle", "out")


def densify(
    image: str, slices: Sequence[str], out: str, options: Mapping[str, str], overrides: Mapping[str, Any]
) -> int:
    """Fill up a volume from the slices that were drawn in it; what is done is not done again.

    Args:
        image: the volume's file.
        slices: files of drawn slices.
        out: folder of everything that is written.
        options: ``bundle``, ``unlabelled``, ``disputed``, ``spacing``, ``key``, ``label_key``, ``class_names``,
            ``hold_out``, ``downsample``, ``finish_epochs``, ``overlays``, ``keep_drawn``, ``rivals``, ``verbose`` and
            ``continue``, as texts; empty for the default.
        overrides: config entries by name.

    Returns:
        0, the status of a line that failed, or 130 when it was interrupted.

    Raises:
        InputError: for what can not be read, filled up or gone on from.
    """
    request = _request(image, slices, out, options, overrides)
    free = {name: value for name, value in overrides.items() if name in _FREE}
    rivals = parse_recipes(request.rivals)
    _check(request.bundle, request.settings, overrides, rivals)
    begun = time.perf_counter()
    folder = open_folder(request)
    for note in folder.record["notes"]:
        print(note)
    if rivals and folder.record["held_out"] is None:
        came = "--rivals was given and no slice is held out"
        raise InputError(problem(came, "rivals are scored on slices held out", "leave --rivals out, or draw more"))
    if sys.platform == "linux":
        print(f"Set for these lines, so that a CPU trains faster: {keep_memory()}")
    before = request.out / "fit" / "model.pt" if folder.path != request.out else None
    work = Work(request.bundle, folder, _taken_up(request, folder, before), request.verbose, free)
    volume = read_volume(image, folder.record["settings"].get("spacing"), folder.record["settings"].get("key"))
    table, missing = "", []
    try:
        work.run()
        text = write_results(folder, volume, request.keep_drawn)
        if rivals:
            table, missing = work.rivals(rivals)
            text = write_results(folder, volume, request.keep_drawn, table)
    except (LineError, KeyboardInterrupt) as error:
        status = error.status if isinstance(error, LineError) else INTERRUPTED
        told = "was stopped" if status == INTERRUPTED else "failed"
        print(f"\nThis step {told}. What is done is kept in {_shown(folder.path)}: the same line goes on from there.")
        return status
    folder.finish("write", 0.0)
    folder = folder.move_to(request.out) if folder.path != request.out else folder
    print(f"\n{text}\nAll is done, in {minutes_text(time.perf_counter() - begun)}. Written:")
    for name in folder.record["files"]:
        print(f"  {_shown(folder.path / name)}")
    return 1 if missing else 0


def _request(
    image: str, slices: Sequence[str], out: str, options: Mapping[str, str], overrides: Mapping[str, Any]
) -> Request:
    """What was asked for, in one form."""
    if not slices:
        rule = "an image and the slices that were drawn in it are needed"
        remedy = "write: volseg densify IMAGE SLICES --out FOLDER"
        raise InputError(problem("no file of drawn slices was named", rule, remedy))
    if not out:
        raise InputError(problem("no folder to write to was named", "results go to a folder", "pass --out FOLDER"))
    given = {name: value for name, value in options.items() if value != ""}
    read: dict[str, Any] = {
        "unlabelled": parse_unlabelled,
        "disputed": _disputed,
        "spacing": lambda text: list(parse_spacing(text) or ()) or None,
        "downsample": parse_downsample,
        "hold_out": lambda text: parse_share(text, "hold_out"),
        "finish_epochs": _finish_epochs,
        "overlays": split_names,
        **dict.fromkeys(("key", "label_key", "class_names"), str),
    }
    settings = {name: parse(given[name]) for name, parse in read.items() if name in given}
    settings = {name: value for name, value in settings.items() if value is not None}
    kept = {name: value for name, value in overrides.items() if name not in _FREE}
    return Request(
        find_bundle(given.get("bundle", "unet3d_sparse")),
        image,
        tuple(slices),
        Path(out),
        parse_flag(given.get("continue", "false"), "continue"),
        settings | ({"overrides": kept} if kept else {}),
        parse_flag(given.get("keep_drawn", "true"), "keep_drawn"),
        given.get("rivals", ""),
        parse_flag(given.get("verbose", "false"), "verbose"),
    )


def _disputed(text: str) -> str:
    if text not in DISPUTED:
        raise InputError(problem(f"disputed is {text!r}", f"it is one of {', '.join(DISPUTED)}", "choose one of them"))
    return text


def _finish_epochs(text: str) -> int | None:
    number = parse_optional_integer(text, "finish_epochs")
    if number is not None and number < 0:
        remedy = "pass for example --finish_epochs 10"
        raise InputError(problem(f"finish_epochs is {number}", "it must be 0, for none, or more", remedy))
    return number


def _check(bundle: Path, settings: Mapping[str, Any], overrides: Mapping[str, Any], rivals: Sequence[Recipe]) -> None:
    """Refuse, before anything is read, what no line could use."""
    overlays = settings.get("overlays", ())
    own = [name for name in overrides if name in _OWN]
    if own:
        came = f"--{own[0]} was given"
        raise InputError(problem(came, "it follows from the image, the slices and --out", "leave it out"))
    ids = ids_of(config_files(bundle, ("train", "evaluate", OVERLAY, *overlays, SCORE)))
    ids_of(config_files(bundle, ("train", OVERLAY, *overlays, FINISH)))
    check_known(overrides, {**ids_of(config_files(bundle, ("inference", OVERLAY, UNCERTAINTY))), **ids}, _OPTIONS)
    for recipe in rivals:
        check_known(recipe.settings, ids_of(config_files(bundle, ("train", OVERLAY, *overlays, *recipe.overlays))))
    if "device" in overrides:
        check_device(str(overrides["device"]))
    check_package()


def _taken_up(request: Request, folder: Folder, before: Path | None) -> Path | None:
    """The weights of the round before, where its network fits."""
    if before is None or not before.is_file():
        return None
    classes = len(folder.record["values"])
    was = len(read_record(request.out)["values"])
    if classes != was:
        print(f"There are {classes} classes now and were {was}: training starts from random weights.")
        return None
    return before


def _shown(path: Path) -> str:
    return os.path.relpath(path)
