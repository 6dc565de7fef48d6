"""Predictions under the names that the LiTS challenge takes."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.utils import ImageMetaKey, ensure_tuple

from ..checks import InputError, problem
from ..files import case_name
from .save import AtomicSaveImaged

__all__ = ["SubmissionSaveImaged", "submission_name"]

_CASE = re.compile(r"test-volume-(\d+)", re.IGNORECASE)
_CASES = 70  # test volumes of the challenge, numbered from 0


def submission_name(path: str | os.PathLike[str]) -> str:
    """The name under which the LiTS challenge takes the answer to one of its test volumes.

    Args:
        path: of the volume.

    Raises:
        InputError: for a name that carries no number of the challenge's test volumes.

    >>> submission_name("test/test-volume-7.nii")
    'test-segmentation-7.nii'
    """
    found = _CASE.fullmatch(case_name(path))
    if not found or int(found[1]) >= _CASES:
        came = f"'{Path(path).name}' can not be named for the LiTS challenge"
        rule = f"its test volumes are test-volume-0.nii to test-volume-{_CASES - 1}.nii"
        remedy = "give these files under their own names, or predict without the submission overlay"
        raise InputError(problem(came, rule, remedy))
    return f"test-segmentation-{int(found[1])}.nii"


class SubmissionSaveImaged(AtomicSaveImaged):
    """Save labels as the LiTS challenge takes them: ``test-segmentation-N.nii``, not compressed, of one byte a voxel.

    Each file is written whole or not at all, on the grid of ``test-volume-N.nii``; see :class:`AtomicSaveImaged`.

    Args:
        keys: the one entry with the labels (0 background, 1 liver, 2 tumour).
        output_dir: folder of the files.
        allow_missing_keys: do not raise when it is missing.

    Raises:
        InputError: for more keys than one; when called, for a volume that is none of the challenge's, or two of one
            number.
    """

    def __init__(
        self, keys: KeysCollection, output_dir: str | os.PathLike[str], allow_missing_keys: bool = False
    ) -> None:
        if len(ensure_tuple(keys)) != 1:
            came = f"keys {keys} were given"
            raise InputError(problem(came, "the challenge takes one file a volume", "give one key, such as pred"))
        super().__init__(
            keys,
            output_dir=output_dir,
            output_postfix="",
            output_ext=".nii",
            output_dtype=np.uint8,
            resample=False,
            separate_folder=False,
            allow_missing_keys=allow_missing_keys,
        )
        self.output_dir = Path(output_dir)

    def _target(self, key: Hashable, meta: dict[str, Any] | None) -> Path:
        """Where to write.

        Raises:
            InputError: for a foreign name, or when another case of this run has the number.
        """
        source = str((meta or {}).get(ImageMetaKey.FILENAME_OR_OBJ, ""))
        target = self.output_dir / submission_name(source)
        taken, _ = self._sources.setdefault(str(target), (source, key))
        if taken != source:
            came = f"two volumes of this run would both be saved as '{target.name}'"
            raise InputError(problem(came, "every number stands for one volume", "predict each volume once"))
        if meta is not None:
            meta["case_name"] = self._names(source)
        return target
