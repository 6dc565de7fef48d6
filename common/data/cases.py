"""Lists of cases: for training with folds by patient, and for inference from a folder, a file or a glob."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import load_decathlon_datalist, partition_dataset

from ..checks import InputError, problem
from ..files import case_name
from .arguments import parse_integer, parse_names, parse_optional_integer
from .decathlon import patient_of, read_dataset
from .faults import IMAGE_SUFFIXES, file_fault, is_image_file

__all__ = ["case_places", "inference_cases", "training_cases"]

_PARTS = ("train", "validation", "all")


def training_cases(
    dataset_dir: str | os.PathLike[str],
    part: str = "train",
    fold: int | str = 0,
    folds: int | str | None = None,
    seed: int | str = 0,
    check_files: bool = True,
    cases: Any = None,
) -> list[dict[str, str]]:
    """The image and label files of a Decathlon folder's training list, or of one side of a fold.

    Patients are shuffled by `seed` and dealt to the folds; all cases of a patient go together (`decathlon.patient_of`
    says how a patient is known). Every file is checked by header and size, so that a missing or truncated one is
    reported before training starts and not in the middle of it.

    Args:
        dataset_dir: folder with ``dataset.json``.
        part: ``"validation"`` for the cases of `fold`, ``"train"`` for the others, ``"all"`` for every case.
        fold: which fold is held out, from 0.
        folds: number of folds; None gives every case to both parts (semi-automatic use, where parts of one volume
            are held out instead).
        seed: of the shuffle.
        check_files: whether an absent or truncated file is an error here; an evaluation reports it as that case's
            failure and scores the others.
        cases: only these of the training list, by number from 0 or by name (see :func:`case_places`); None takes all.
            The folds are dealt among these.

    Returns:
        one dictionary ``{"image": path, "label": path}`` for each case, in the order of the list.

    Raises:
        InputError: for a folder that is no data set, a listed file that is absent or truncated, an empty training
            list, a case that is not in it, a fold out of range, fewer patients than folds.
    """
    folder, content = read_dataset(dataset_dir)
    path = folder / "dataset.json"
    if part not in _PARTS:
        raise InputError(problem(f"part is {part!r}", f"it must be one of {', '.join(_PARTS)}", "choose one of them"))
    entries = content.get("training", [])
    if not entries:
        raise InputError(
            problem(
                f"'{path}' lists no training cases",
                "'training' must list images with their labels",
                "add cases to it or name another data set",
            )
        )
    wanted = case_places(entries, cases, str(dataset_dir))
    patients = [patient_of(entries[place], content) for place in wanted]
    kept = [wanted[index] for index in _fold_members(patients, part, fold, folds, seed, dataset_dir)]
    items = load_decathlon_datalist(path, data_list_key="training", base_dir=folder)
    chosen = [{"image": items[place]["image"], "label": items[place]["label"]} for place in kept]
    for case in chosen if check_files else ():
        for key, file in case.items():
            if fault := file_fault(file):
                raise InputError(f"{fault} It is a training {key} of '{path}'.")
    return chosen


def case_places(entries: Sequence[Mapping[str, Any]], cases: Any, source: str) -> list[int]:
    """Places in a training list of the cases that are wanted.

    Args:
        entries: the training list.
        cases: numbers from 0, names (of the image file, without the ending of its format), or both in a list; text
            such as "[0,2]" or "kidney_1,kidney_3" from a command line; None for every case.
        source: what holds the list, for error texts.

    Returns:
        the places, ascending, each once.

    Raises:
        InputError: for a number or a name that the list does not have, or a name that several entries have.

    >>> case_places([{"image": "a.nii.gz"}, {"image": "b.nii.gz"}, {"image": "c.nii.gz"}], "[c, 0]", "x")
    [0, 2]
    """
    wanted = parse_names(cases, "cases")
    if wanted is None:
        return list(range(len(entries)))
    names = [case_name(entry["image"]) for entry in entries]
    places = set()
    for case in wanted:
        found = [place for place, name in enumerate(names) if case in (place, name)]
        if len(found) != 1:
            listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            raise InputError(
                problem(
                    f"cases names {case!r}, which {'several entries' if found else 'no entry'} of the training list of "
                    f"'{source}' {'have' if found else 'has'}",
                    f"a case is named by its number, 0 to {len(names) - 1}, or by one of the names {listed}",
                    "pass for example --cases [0]",
                )
            )
        places.update(found)
    return sorted(places)


def _fold_members(patients: Sequence[str], part: str, fold: Any, folds: Any, seed: Any, dataset_dir: Any) -> list[int]:
    """Indices of the cases on the wanted side of the fold."""
    count = parse_optional_integer(folds, "folds")
    fold, seed = parse_integer(fold, "fold"), parse_integer(seed, "seed")
    everyone = list(range(len(patients)))
    if count is None or part == "all":
        return everyone
    if count < 2:
        raise InputError(
            problem(
                f"folds is {count}",
                "cross-validation needs at least 2",
                "pass --folds 5, or None to train on every case",
            )
        )
    if not 0 <= fold < count:
        raise InputError(
            problem(
                f"fold is {fold} of {count}", f"it must be 0 to {count - 1}", f"pass --fold 0 to --fold {count - 1}"
            )
        )
    known = sorted(set(patients))
    if len(known) < count:
        raise InputError(
            problem(
                f"'{dataset_dir}' has {len(known)} patients for {count} folds",
                "each fold needs at least one patient",
                f"pass --folds {len(known)} or less" if len(known) > 1 else "pass --folds None, to train on every case",
            )
        )
    held_out = set(partition_dataset(known, num_partitions=count, shuffle=True, seed=seed)[fold])
    return [index for index in everyone if (patients[index] in held_out) == (part == "validation")]


def inference_cases(source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[dict[str, str]]:
    """The images to predict.

    A listed file that turns out absent or broken is no error here: it is reported as that case's failure and the
    others are predicted.

    Args:
        source: a Decathlon folder (its test list, or its training images where that is empty), a folder of volumes, one
            file, a glob, or a sequence of such.

    Returns:
        one dictionary ``{"image": path}`` for each volume, sorted by name within a folder or glob, none twice.

    Raises:
        InputError: when there is nothing to read there.
    """
    if isinstance(source, (list, tuple)):
        paths = [case["image"] for one in source for case in inference_cases(one)]
    elif source is None or not str(source).strip():
        raise InputError(
            problem("the source of images is empty", "it must be a folder, a file or a glob", "pass --dataset_dir PATH")
        )
    else:
        paths = _image_paths(str(source))
    if not paths:
        raise InputError(
            problem(
                f"'{source}' holds no volume",
                f"volumes are files ending in {', '.join(IMAGE_SUFFIXES)}",
                "name another folder, file or glob, or convert the images first",
            )
        )
    return [{"image": path} for path in dict.fromkeys(paths)]


def _image_paths(source: str) -> list[str]:
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        return _listed_images(path) if (path / "dataset.json").is_file() else _volumes(path.iterdir())
    if path.is_file():
        return [str(path)]
    if glob.has_magic(source):
        return _volumes(Path(found) for found in glob.glob(str(path), recursive=True))
    raise InputError(
        problem(f"'{source}' does not exist", "it must be a folder, a file or a glob of volumes", "check the path")
    )


def _volumes(paths: Any) -> list[str]:
    return sorted(str(path) for path in paths if path.is_file() and is_image_file(path))


def _listed_images(folder: Path) -> list[str]:
    _, content = read_dataset(folder)
    # MONAI's reader can not take an empty list under 'test', which the Decathlon form allows.
    key = "test" if content.get("test") else "training"
    if not content.get(key):
        return []
    listed = load_decathlon_datalist(folder / "dataset.json", is_segmentation=False, data_list_key=key, base_dir=folder)
    return [item["image"] for item in listed]
