"""The step between two stages: the region that the first leaves to the second, written down for every case."""

from __future__ import annotations

import contextlib
import csv
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.config import NdarrayOrTensor
from monai.inferers import Inferer
from monai.utils import convert_to_tensor, ensure_tuple, optional_import

from ..checks import InputError, parse_flag, problem
from ..data.faults import file_fault
from ..data.loader import innermost_text
from ..files import atomic_path, case_name, check_writable, read_json, write_json
from ..transforms.region import region_path
from .distributed import barrier, gathered, processes, rank
from .signature import settings_digest, settings_of, state_digest

tqdm, _ = optional_import("tqdm", name="tqdm")

__all__ = ["RegionMaps"]

logger = logging.getLogger(__name__)

_COLUMNS = ("case", "map", "body_share", "candidate_share", "recall", "stage1_found")
_MEANS = ("body_share", "candidate_share", "recall")


class RegionMaps:
    """Run stage 1 on every case and write the region that it leaves to stage 2 (roth2017hierarchical, sec. 2).

    A map, uint8 on the grid that `transform` leaves the image on, holds 0 outside, 1 in the body (C1) and 2 in the
    candidate region (C2). :class:`~common.transforms.region.LoadRegiond` reads it back. Beside the maps lie
    ``regions.csv`` and ``regions.json``: the shares of C1 and C2 in the volume and C2's recall, which is the share of
    the label's foreground that lies in it. The paper has about 40 %, about 10 % and more than 99 %.

    A map that is there is kept as long as everything that it was made by is the same: stage 1's weights, settings of
    `inferer` and `transform`, and time and size of the case's files. So a run that was killed goes on where it was.
    One bad case leaves the others alone. Under ``torchrun`` the processes share the cases.

    Args:
        data: the cases, ``{"image": path, "label": path}``.
        transform: loads one case, without randomness; image (HU) and label, 1 X Y Z, on the working grid. Every label
            above 0 is foreground.
        network: composite whose child `stage1` `inferer` runs.
        inferer: its ``localise(image, network)`` takes B 1 X Y Z and returns C1, stage 1's labels and C2, alike.
        output_dir: folder for the maps and the tables.
        device: where to run.
        amp: run in mixed precision, on a CUDA device only.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[dict[str, Any]], dict[str, Any]],
        network: torch.nn.Module,
        inferer: Inferer,
        output_dir: str | os.PathLike[str],
        device: str | torch.device = "cpu",
        amp: bool | str = False,
    ) -> None:
        self.data, self.transform, self.network, self.inferer = data, transform, network, inferer
        self.output_dir, self.device = Path(output_dir), torch.device(device)
        self.amp = parse_flag(amp, "amp") and self.device.type == "cuda"

    def run(self) -> None:
        """Make the maps that are not there, and the tables of all.

        Raises:
            InputError: without cases, for a folder that can not be written to; when all cases were tried, naming those
                that failed.
        """
        if not self.data:
            raise InputError(
                problem("there is no case to find regions in", "at least one is needed", "check dataset_dir and fold")
            )
        check_writable(self.output_dir)
        settings = self._settings()
        rows = self._kept(settings_digest(settings))
        missing = [index for index in range(len(self.data)) if index not in rows]
        barrier()  # every process has seen the same maps before one writes another
        if rows and rank() == 0:
            logger.info("regions: %d of %d maps are there", len(rows), len(self.data))
        failures: dict[int, str] = {}
        for made, failed in gathered(self._make(missing[rank() :: processes()], settings_digest(settings))):
            rows |= made
            failures |= failed
        self._finish({index: rows[index] for index in sorted(rows)}, settings)
        if failures:
            told = [f"{self._name(index)}: {failures[index]}" for index in sorted(failures)]
            more = f"; and {len(told) - 5} more" if len(told) > 5 else ""
            raise InputError(
                problem(
                    f"regions of {len(told)} of {len(self.data)} cases were not found ({'; '.join(told[:5])}{more})",
                    "stage 2 is trained inside the region of each case",
                    "mend these cases or take them out of the list; the maps of the others are kept",
                )
            )

    # -- what is there already -------------------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        """What all maps depend on."""
        return {
            "stage1": state_digest(self.network.stage1.state_dict()),
            "inferer": settings_of(self.inferer),
            "transform": settings_of(self.transform),
            "amp": self.amp,
        }

    def _kept(self, signature: str) -> dict[int, dict[str, Any]]:
        """Rows of the cases, by index, whose maps were made by the same settings from the same files."""
        rows = {}
        for index, case in enumerate(self.data):
            path = self._path(case)
            with contextlib.suppress(InputError, AttributeError):  # a note that is absent or none of ours
                note = read_json(_note_path(path))
                if note.get("signature") == signature and note.get("files") == _stamps(case) and path.is_file():
                    rows[index] = {column: note.get(column) for column in _COLUMNS}
        return rows

    def _path(self, case: Mapping[str, Any]) -> Path:
        return region_path(self.output_dir, ensure_tuple(case["image"])[0])

    def _name(self, index: int) -> str:
        return case_name(ensure_tuple(self.data[index]["image"])[0])

    # -- the maps --------------------------------------------------------------------------------------------------

    def _make(self, indices: Sequence[int], signature: str) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
        """Rows of these cases, and the error texts of those that failed."""
        rows, failures = {}, {}
        with _evaluated(self.network):
            for index in tqdm(indices, desc="regions", ncols=100, disable=None if rank() == 0 else True):
                out_of_memory = False
                try:
                    rows[index] = self._make_one(index, signature)
                except Exception as error:  # any fault of one case, of whatever library, must leave the others alone
                    failures[index] = _told(self.data[index], error)
                    logger.error("regions of %s failed: %s", self._name(index), failures[index])
                    logger.debug("where %s failed", self._name(index), exc_info=True)
                    out_of_memory = isinstance(error, torch.OutOfMemoryError)
                if out_of_memory:
                    torch.cuda.empty_cache()  # out here, where no traceback holds the tensors any more
        return rows, failures

    def _make_one(self, index: int, signature: str) -> dict[str, Any]:
        """Write map and note of a case; its row."""
        case = self.data[index]
        stamps = _stamps(case)
        item = self.transform(dict(case))
        image = convert_to_tensor(item["image"], track_meta=False)[None].to(self.device, torch.float32)
        with torch.autocast(self.device.type, enabled=self.amp):
            body, labels, candidate = self.inferer.localise(image, self.network)
        # whatever MetaTensors come back, their bookkeeping is not needed here
        body, labels, candidate = (convert_to_tensor(one, track_meta=False) for one in (body, labels, candidate))
        regions = torch.where(candidate[0, 0].bool(), 2, body[0, 0].to(torch.uint8)).cpu()
        row = {"case": self._name(index), "map": self._path(case).name, **shares(regions, item["label"][0])}
        row["stage1_found"] = bool(labels.any())
        self._save(self._path(case), regions, item["image"].affine, {"signature": signature, "files": stamps, **row})
        recall = "no foreground" if row["recall"] is None else f"recall {100 * row['recall']:.2f} %"
        logger.info(
            "regions of %s: C1 %.1f %%, C2 %.1f %% of the volume, %s",
            row["case"],
            100 * row["body_share"],
            100 * row["candidate_share"],
            recall,
        )
        if not row["stage1_found"]:
            logger.warning(
                "stage 1 found nothing in %s: its candidate region is empty; stage 2 learns there from the whole body",
                row["case"],
            )
        return row

    @staticmethod
    def _save(path: Path, regions: torch.Tensor, affine: NdarrayOrTensor, note: Mapping[str, Any]) -> None:
        """Write the map, then the note that vouches for it."""
        _note_path(path).unlink(missing_ok=True)
        with atomic_path(path) as temporary:
            nibabel.save(nibabel.Nifti1Image(regions.numpy(), np.asarray(affine, dtype=float)), temporary)
        write_json(_note_path(path), note)

    # -- the tables ------------------------------------------------------------------------------------------------

    def _finish(self, rows: dict[int, dict[str, Any]], settings: dict[str, Any]) -> None:
        """Have rank 0 write the tables; every process waits, and learns of it when that failed."""
        fault = None
        if rank() == 0 and rows:
            try:
                self._write_tables(list(rows.values()), settings)
            except InputError as error:
                fault = str(error)
        fault = gathered(fault)[0]
        if fault:
            raise InputError(fault)

    def _write_tables(self, rows: list[dict[str, Any]], settings: dict[str, Any]) -> None:
        means = {}
        for column in _MEANS:
            values = [row[column] for row in rows if row[column] is not None]
            means[column] = sum(values) / len(values) if values else None
        with atomic_path(self.output_dir / "regions.csv") as temporary:
            with open(temporary, "w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, _COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
        content = {"signature": settings_digest(settings), "settings": settings, "means": means, "cases": rows}
        write_json(self.output_dir / "regions.json", content)
        logger.info(
            "regions, mean of %d cases: C1 %.1f %%, C2 %.1f %% of the volume, %s; %s",
            len(rows),
            100 * means["body_share"],
            100 * means["candidate_share"],
            "no foreground" if means["recall"] is None else f"recall {100 * means['recall']:.2f} %",
            self.output_dir / "regions.csv",
        )


def shares(regions: torch.Tensor, label: NdarrayOrTensor) -> dict[str, float | None]:
    """How large the regions of one map are, and how much of the label's foreground the candidate region holds.

    Args:
        regions: 0 outside, 1 in C1, 2 in C2, X Y Z.
        label: of the same size, foreground above 0.

    Returns:
        ``body_share`` and ``candidate_share`` of the volume, 0 to 1 (C2 is part of C1), and ``recall``, None without
        foreground.

    >>> shares(torch.tensor([[[0, 1, 2, 2]]]), torch.tensor([[[0, 1, 0, 3]]]))
    {'body_share': 0.75, 'candidate_share': 0.5, 'recall': 0.5}
    """
    foreground = convert_to_tensor(label, track_meta=False) > 0
    if foreground.shape != regions.shape:
        came = f"the label has {tuple(foreground.shape)} voxels and the region map {tuple(regions.shape)}"
        raise InputError(problem(came, "they must lie on one grid", "bring image and label to it by the same steps"))
    candidate, total = regions == 2, int(foreground.sum())
    return {
        "body_share": int((regions >= 1).sum()) / max(regions.numel(), 1),
        "candidate_share": int(candidate.sum()) / max(regions.numel(), 1),
        "recall": int((candidate & foreground).sum()) / total if total else None,
    }


@contextlib.contextmanager
def _evaluated(network: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode that it was in."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def _note_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".nii.gz") + ".json")


def _files(case: Mapping[str, Any]) -> list[str]:
    return [str(file) for key in ("image", "label") for file in ensure_tuple(case[key])]


def _stamps(case: Mapping[str, Any]) -> list[list[int]] | None:
    """Size and time of change of each file of a case, by which a file that was made anew is known."""
    try:
        return [[status.st_size, status.st_mtime_ns] for status in map(os.stat, _files(case))]
    except OSError:
        return None


def _told(case: Mapping[str, Any], error: Exception) -> str:
    """What to say of a case that failed: what is wrong with its files, else the cause."""
    return next((fault for fault in map(file_fault, _files(case)) if fault), None) or innermost_text(error)
