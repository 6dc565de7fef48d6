"""Saving of results: each file whole or not at all, and no two cases under one name."""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import torch
from monai.data import FolderLayout, MetaTensor, NibabelWriter
from monai.transforms import SaveImaged
from monai.utils import ImageMetaKey, MetaKeys

from ..checks import InputError, problem
from ..files import atomic_path, case_name

__all__ = ["AtomicSaveImaged", "CaseNames"]

logger = logging.getLogger(__name__)

_ERRNO = re.compile(r"\[Errno (\d+)\] ([^:\n]+)")


class CaseNames:
    """Names for the cases of one run: the file's own name, with the folder's before it where two folders hold the same.

    >>> names = CaseNames()
    >>> names("a/scan.nii.gz"), names("b/scan.nii.gz"), names("a/scan.nii.gz")
    ('scan', 'b_scan', 'scan')
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def __call__(self, source: str | os.PathLike[str]) -> str:
        """The name of the case read from `source`: the same at every call, and different for different sources."""
        key = os.path.abspath(source)
        if key not in self._names:
            self._names[key] = self._unused(Path(key))
        return self._names[key]

    def _unused(self, path: Path) -> str:
        stem = case_name(path)
        candidates = [
            stem,
            f"{path.parent.name}_{stem}",
            *(f"{stem}_{number}" for number in range(2, len(self._names) + 3)),
        ]
        return next(name for name in candidates if name not in self._names.values())


class _UnitWriter(NibabelWriter):
    """``NibabelWriter`` that keeps the unit of the grid, which MONAI's leaves open: micrometres stay micrometres.

    A volume of one slice keeps its three axes, too, of which MONAI's drops the last.
    """

    _units: int | None = None

    def set_data_array(self, data_array: Any, *args: Any, **options: Any) -> None:
        """Take the array as MONAI does, but one channel of a volume as a volume."""
        super().set_data_array(data_array, *args, **options)
        while len(data_array.shape) == 4 and self.data_obj.ndim < 3:
            self.data_obj = self.data_obj[..., None]

    def set_metadata(self, meta_dict: Mapping[str, Any] | None, resample: bool = True, **options: Any) -> None:
        """Take ``xyzt_units`` beside what MONAI takes."""
        super().set_metadata(meta_dict, resample, **options)
        units = (meta_dict or {}).get("xyzt_units")
        self._units = None if units is None else int(units)

    def write(self, filename: str | os.PathLike[str], verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write with the unit in the header."""
        if self._units is not None and obj_kwargs.get("header") is None:
            header = nibabel.Nifti1Header()
            header.set_data_dtype(self.output_dtype)  # a header that is given decides on the type
            header["xyzt_units"] = self._units
            obj_kwargs["header"] = header
        super().write(filename, verbose, **obj_kwargs)


class AtomicSaveImaged(SaveImaged):
    """``SaveImaged`` that writes beside the target and renames: an aborted run leaves no half-written volume.

    Two inputs of one name in different folders are saved under different names within a run (see :class:`CaseNames`);
    the name is kept in the volume's metadata as ``case_name`` for reports, and the path as ``case_file``. A file of an
    earlier run is replaced, as in MONAI. A NIfTI file keeps the unit of its grid (``xyzt_units`` of the input), and a
    volume of one slice its axes.

    Args:
        args: as ``monai.transforms.SaveImaged``.
        kwargs: as ``monai.transforms.SaveImaged``.
    """

    @functools.wraps(SaveImaged.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # the saver would name the temporary file
        self.print_log = self.saver.write_kwargs["verbose"]
        self.saver.set_options(write_kwargs={"verbose": False})
        if isinstance(self.saver.folder_layout, FolderLayout):
            # folders are made, and errors in making them told, where the file is written
            self.saver.folder_layout.makedirs = False
        self.saver.writers = [_UnitWriter if one is NibabelWriter else one for one in self.saver.writers]
        self._sources: dict[str, tuple[str, Hashable]] = {}
        self._names = CaseNames()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """
        Raises:
            InputError: when the folder can not be written to, or the disk is full.
        """
        result = dict(data)
        for key, meta_key, postfix in self.key_iterator(result, self.meta_keys, self.meta_key_postfix):
            image = result[key]
            meta = image.meta if isinstance(image, MetaTensor) else result.get(meta_key or f"{key}_{postfix}")
            self._save(key, image, meta)
        return result

    def _save(self, key: Hashable, image: torch.Tensor, meta: dict[str, Any] | None) -> None:
        target = self._target(key, meta)
        with atomic_path(target) as temporary:
            bare = str(temporary).removesuffix(self.saver.output_ext)
            try:
                self.saver(img=image, meta_data=meta, filename=bare)
            except RuntimeError as error:
                # SaveImage turns what the writer raised into text; the disk's own errors deserve their own words
                found = _ERRNO.search(str(error))
                if found:
                    raise OSError(int(found[1]), found[2]) from error
                raise
        if self.print_log:
            logger.info("saved %s", target)
        if meta is not None:
            meta["case_file"] = str(target)
            if self.saver.savepath_in_metadict:
                meta[MetaKeys.SAVED_TO] = str(target)

    def _target(self, key: Hashable, meta: dict[str, Any] | None) -> Path:
        """Where to write: as MONAI would, or under the longer name when another case of this run took that place."""
        fields = self.saver.fname_formatter(meta, self.saver)
        source = str((meta or {}).get(ImageMetaKey.FILENAME_OR_OBJ, ""))
        target = str(self.saver.folder_layout.filename(**fields))
        if not source:
            return Path(target)
        name = self._names(source)
        taken = self._sources.setdefault(target, (source, key))
        if taken != (source, key):
            path = Path(source)
            suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".gz") else path.suffix
            other = name if taken[0] != source else f"{name}_{key}"
            target = str(
                self.saver.folder_layout.filename(**{**fields, "subject": str(path.with_name(other + suffix))})
            )
            if self._sources.setdefault(target, (source, key)) != (source, key):
                raise InputError(
                    problem(
                        f"two cases would both be saved as '{target}'",
                        "every case needs a name of its own",
                        "rename one of the inputs, or set data_root_dir to keep their folders",
                    )
                )
            logger.warning("'%s' was taken by another case of this run; saving as %s", path.name, Path(target).name)
        if meta is not None:
            meta["case_name"] = name
        return Path(target)
