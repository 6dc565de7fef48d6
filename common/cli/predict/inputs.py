"""What the inputs of a prediction are: volumes in files, and places that hold DICOM series."""

from __future__ import annotations

import contextlib
import glob
import mimetypes
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...checks import InputError, problem
from ...data.cases import inference_cases
from ...data.faults import IMAGE_SUFFIXES, is_image_file
from ...dicom.archive import unpacked
from ...dicom.series import Series, find_series

__all__ = ["Inputs", "Source", "link_or_copy", "nothing_found", "read_inputs"]

_DICOM = (".dcm", ".ima", ".dicom")
# forms of arrays, which a reader may take
_ARRAYS = ("application/octet-stream", "application/x-netcdf")
_HDF5 = (".h5", ".hdf5", ".hdf")


@dataclass(frozen=True)
class Source:
    """A folder, a zip or a number of files in which DICOM series are looked for.

    Args:
        number: its place among these, from 1; its path may name a patient, and is not told.
        path: the folder or zip; of files, their folder.
        files: the files, where these were named one by one.
        volumes: how many volumes in files it holds, beside which it need not hold a series; None where these are not
            looked for.
    """

    number: int
    path: Path = field(repr=False)
    files: tuple[Path, ...] = field(default=(), repr=False)
    volumes: int | None = None

    @property
    def name(self) -> str:
        """What it is called in logs, lists and errors."""
        return f"dicom_{self.number}"

    @contextlib.contextmanager
    def opened(self, place: Path) -> Iterator[list[Series]]:
        """The series in it; what was unpacked for them is removed at the end.

        Args:
            place: a private folder for what is unpacked.

        Raises:
            InputError: for an archive that can not be unpacked.
        """
        if self.files:
            folder = place / f"files_{secrets.token_hex(4)}"
            folder.mkdir(mode=0o700)
            try:
                for number, file in enumerate(self.files):
                    link_or_copy(file, folder / f"{number}{file.suffix}")
                yield find_series(folder)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        elif self.path.is_file():
            with unpacked(self.path, place) as folder:
                yield find_series(folder)
        else:
            yield find_series(self.path)


@dataclass(frozen=True)
class Inputs:
    """All that was named.

    Args:
        volumes: files of volumes, absolute, each once.
        sources: where DICOM series are looked for.
    """

    volumes: tuple[Path, ...]
    sources: tuple[Source, ...]


def read_inputs(inputs: Sequence[str], out: Path) -> Inputs:
    """Sort what was named into volumes and places of DICOM series, without opening the latter.

    A folder stands for the volumes in it, but not below, and for all series in it and below; a Decathlon folder for
    the images that it lists.

    Args:
        inputs: files, zips, folders or globs.
        out: folder of the results, which must not lie among the inputs.

    Raises:
        InputError: when one of them does not exist or holds nothing to segment.
    """
    volumes: list[Path] = []
    sources: list[Source] = []
    loose: list[Path] = []
    for word in inputs:
        path = Path(word).expanduser().absolute()
        if path.is_dir():
            found, other = _of_folder(path, out)
            if not found and not other:
                raise nothing_found(f"'{word}'")
            volumes += found
            sources += [Source(len(sources) + 1, path, volumes=len(found))] if other else []
        elif path.is_file() or not glob.has_magic(word):
            _sort([path], volumes, sources, loose, named=word)
        else:
            hits = sorted(Path(found) for found in glob.glob(str(path), recursive=True))
            files = [one for one in hits if one.is_file() and _wanted(one)]
            folders = [
                one for one in hits if one.is_dir() and not any(one.is_relative_to(up) for up in hits if up != one)
            ]
            folders = [one for one in folders if _holds_other(one, out)]
            if not files and not folders:
                inference_cases(word)
            _check_apart([one.parent for one in files if is_image_file(one)], out)
            _sort(files, volumes, sources, loose)
            for one in folders:
                sources.append(Source(len(sources) + 1, one))
    if loose:
        files = tuple(dict.fromkeys(loose))
        sources.append(Source(len(sources) + 1, files[0].parent, files))
    return Inputs(tuple(dict.fromkeys(volumes)), tuple(sources))


def _sort(
    files: Sequence[Path], volumes: list[Path], sources: list[Source], loose: list[Path], named: str = ""
) -> None:
    """Put files where they belong; one that was named alone and is nothing known is left to MONAI's readers."""
    for path in files:
        if path.suffix.lower() == ".zip":
            sources.append(Source(len(sources) + 1, path))
        elif path.is_file() and not is_image_file(path) and _is_dicom(path):
            loose.append(path)
        elif path.is_file() and path.suffix.lower() in _HDF5:
            came, rule = (
                f"'{named or path}' is HDF5",
                "a file of several arrays does not say which is the image, and where",
            )
            raise InputError(problem(came, rule, "run: volseg convert hdf5 FILES --out DIR, and predict DIR"))
        elif path.is_file() and _is_foreign(path):
            rule = f"a volume is a file ending in {', '.join(IMAGE_SUFFIXES)}, or DICOM, as files or in a zip"
            raise InputError(problem(f"'{named or path}' is no volume", rule, "leave it out, or name the image itself"))
        else:
            volumes += [Path(case["image"]) for case in inference_cases(named or str(path))]


def _of_folder(folder: Path, out: Path) -> tuple[list[Path], bool]:
    """The volumes of a folder, and whether series may be in it."""
    if (folder / "dataset.json").is_file():
        return [Path(case["image"]) for case in inference_cases(folder)], False
    _check_apart([folder], out)
    try:
        found = sorted(path for path in folder.iterdir() if path.is_file() and is_image_file(path))
    except OSError as error:
        came, rule = (
            f"'{folder}' can not be read ({type(error).__name__})",
            "of a folder all that it holds is looked at",
        )
        raise InputError(problem(came, rule, "change its permissions, or name another folder")) from None
    return found, _holds_other(folder, out)


def _check_apart(folders: Iterable[Path], out: Path) -> None:
    """Results among the inputs would be inputs the next time."""
    if any(folder.resolve() == out.resolve() for folder in folders):
        came = f"the results would go to '{out}', which the inputs are taken from"
        rule = "a result in the folder of the inputs would be an input the next time"
        raise InputError(problem(came, rule, "pass another folder as --out"))


def _holds_other(folder: Path, out: Path) -> bool:
    """Whether a folder holds a file, in it or below, that is no volume, and so may be of a DICOM series."""
    skipped = out.resolve()
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if (Path(place) / name).resolve() != skipped]
        if any(not name.startswith(".") and not is_image_file(name) for name in names):
            return True
    return False


def _wanted(path: Path) -> bool:
    return path.suffix.lower() == ".zip" or is_image_file(path) or _is_dicom(path)


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in _DICOM:
        return True
    with contextlib.suppress(OSError), open(path, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"
    return False


def _is_foreign(path: Path) -> bool:
    """Whether a file's ending is known as that of something else: a text, a picture, a program."""
    if is_image_file(path):
        return False
    kind = mimetypes.MimeTypes(()).guess_type(f"file{path.suffix.lower()}")[0]  # as Python knows them, not the machine
    return kind is not None and kind not in _ARRAYS


def nothing_found(place: str) -> InputError:
    """What is said of a folder without images.

    Args:
        place: what it is called.
    """
    came = f"{place} holds no volume, and no DICOM image series was found in it"
    rule = (
        f"of a folder the files ending in {', '.join(IMAGE_SUFFIXES)} are segmented, and DICOM series in it and below"
    )
    return InputError(problem(came, rule, "name another folder, file or glob, or convert the images first"))


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file under another name, as a link where the system has them."""
    try:
        os.symlink(source.absolute(), target)
    except OSError:
        shutil.copyfile(source, target)
