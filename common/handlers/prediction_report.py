"""A report and a picture of every prediction."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.engines.utils import IterationEvents
from monai.transforms import LoadImage
from monai.utils import CommonKeys
from tqdm import tqdm

from ..checks import InputError
from ..data.expected import content_hash, input_facts, input_warnings, stated_modality
from ..files import check_writable, read_json, write_json
from ..transforms.save import CaseNames
from ..visualize.palette import background_classes
from ..visualize.prediction import check_view, has_matplotlib, prediction_figure
from ..visualize.rotating import rotating_projections
from ..weights import versions
from .cases import (
    affine_in_mm,
    class_indices,
    figures_text,
    image_on_grid,
    image_source,
    inferer_report,
    without_paths,
    write_failures,
)
from .cost import PeakMemory
from .weights_loader import is_phantom_file

__all__ = ["PredictionReport"]

logger = logging.getLogger(__name__)


class PredictionReport:
    """Writes ``CASE_report.json`` and ``CASE.png`` for every prediction, ``predictions.json`` at the end.

    It acts after postprocessing, within the iteration, so that :class:`~common.engines.case_evaluator.CaseEvaluator`
    counts a report that can not be written as a failure of that case. Failed cases never reach it; they are listed at
    the end in ``failures.json``. Reports name the image's file, never its folder. Where the inferer tells of its last
    call (``inferer.report``, a dictionary), that is the entry ``inferer`` of the case, and its numbers are logged.

    With the bundle's metadata the file of every image is read again and compared with what the bundle expects
    (``expected_input``): its size, spacing and percentiles, and sentences about what differs, are the entry ``input``
    of the case; the sentences are logged as warnings. ``input_sha256`` tells which content of the file was predicted.

    On a terminal a bar counts the cases and estimates the time left; elsewhere every case is a line in the log.

    Args:
        output_dir: folder of the reports.
        class_names: one name a class, in class order; "background" is not counted as a finding.
        picture: whether to draw pictures (needs matplotlib).
        view: what pictures show: "slices" and a surface, or "mip" for vessels and other thin structures: maximum
            projections with the prediction over them.
        rotating: whether to write ``CASE_rotating.gif`` too, maximum projections of a whole turn with the prediction
            over them (needs Pillow, which comes with matplotlib).
        metadata: the bundle's ``metadata.json``; None compares nothing.

    Raises:
        InputError: when there is no such view, or no metadata there.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike[str],
        class_names: Sequence[str],
        picture: bool = True,
        view: str = "slices",
        rotating: bool = False,
        metadata: str | os.PathLike[str] | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.class_names = list(class_names)
        self.picture, self.view = picture, check_view(view)
        self.rotating = rotating
        self.expected = None if metadata is None else read_json(metadata).get("expected_input", {})
        self.reports: list[dict[str, Any]] = []
        self._names = CaseNames()
        self._bar: tqdm | None = None
        self._begun = 0.0
        self._memory: PeakMemory | None = None

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: the evaluator; its postprocessing is registered before its handlers, so it has run by then.
        """
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._begin)
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self._report)
        engine.add_event_handler(Events.COMPLETED, self._complete)

    def _start(self, engine: Engine) -> None:
        """
        Raises:
            InputError: when the folder can not be written to.
        """
        check_writable(self.output_dir)  # before every case is predicted in vain
        self.reports = []
        self._names = CaseNames()
        self._bar = tqdm(total=_total(engine), desc="cases", unit="case", disable=None)
        if self.picture and not has_matplotlib:
            logger.warning(
                "matplotlib is not installed: there will be no pictures. Install it with: pip install matplotlib"
            )

    def _begin(self, engine: Engine) -> None:
        self._advance(engine.state.iteration - 1, engine)
        self._memory = PeakMemory(engine.state.device)
        self._begun = time.perf_counter()

    def _advance(self, iterations: int, engine: Engine) -> None:
        """Move the bar to the number of cases dealt with, those that could not be loaded included."""
        if self._bar is not None:
            done = iterations + len(getattr(engine.state.dataloader, "failures", ()))
            self._bar.update(done - self._bar.n)

    def _report(self, engine: Engine) -> None:
        device = torch.device(engine.state.device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        # several items only where a batch holds several patches of cases
        seconds = (time.perf_counter() - self._begun) / max(len(engine.state.output), 1)
        cost = {"seconds": round(seconds, 3), "device": device.type, **self._peak()}
        for item in engine.state.output:
            report = self._describe(item)
            name, warning = report["case"], getattr(engine.state, "warning", None)
            source = image_source(item)
            report |= {**cost, "warning": warning, "input_sha256": content_hash(source) if source else None}
            if told := inferer_report(engine):
                report["inferer"] = told
            loaded = None
            if self.expected is not None and source:
                loaded = LoadImage(image_only=True, ensure_channel_first=True)(source)
                report["input"] = self._compare(name, loaded, source)
            report |= self._draw(item, name, warning, loaded)
            write_json(
                self.output_dir / f"{name}_report.json",
                {**report, "weights": without_paths(getattr(engine.state, "weights", None)), "versions": versions()},
            )
            self.reports.append(report)
            self._tell(engine, report)

    def _peak(self) -> dict[str, Any]:
        """The most memory that the case took, before anything is done for its report, and what that measures."""
        peak = self._memory.mib() if self._memory is not None else None
        kind = self._memory.kind if self._memory is not None and peak is not None else None
        return {"peak_memory_bytes": None if peak is None else round(peak * 2**20), "peak_memory_kind": kind}

    def _compare(self, name: str, image: MetaTensor, source: str) -> dict[str, Any]:
        """What the image of a case is, and sentences on how it differs from what is expected, which are logged too."""
        facts = input_facts(image, affine_in_mm(image), stated_modality(source))
        # phantoms are coarse on purpose, and so are the weights that are trained on them
        warnings = [] if is_phantom_file(source) else input_warnings(self.expected or {}, facts)
        for sentence in warnings:
            logger.warning("%s: %s", name, sentence)
        return {**facts, "warnings": warnings}

    def _describe(self, item: dict[str, Any]) -> dict[str, Any]:
        """Name, grid and volumes of one prediction."""
        pred = item[CommonKeys.PRED]
        affine = affine_in_mm(pred)
        indices = class_indices(pred)
        voxel = float(abs(torch.linalg.det(affine[:3, :3])))
        counts = [int(torch.count_nonzero(indices == k)) for k in range(len(self.class_names))]
        background = background_classes(self.class_names)
        name = pred.meta.get("case_name") if isinstance(pred, MetaTensor) else None
        source = image_source(item)
        return {
            "case": name or (self._names(source) if source else f"case_{len(self.reports) + 1}"),
            "label_file": self._label_file(pred),
            "shape": list(indices.shape),
            "spacing_mm": [round(float(size), 9) for size in affine_to_spacing(affine)],
            "volumes": {
                label: {"voxels": count, "mm3": count * voxel, "ml": count * voxel / 1000}
                for label, count in zip(self.class_names, counts, strict=True)
            },
            "found": any(count for k, count in enumerate(counts) if k not in background),
        }

    def _label_file(self, pred: Any) -> str | None:
        """Where the prediction was saved, below the folder of the reports; None where it was not, or elsewhere."""
        saved = pred.meta.get("case_file") if isinstance(pred, MetaTensor) else None
        folder = Path(os.path.abspath(self.output_dir))
        path = None if saved is None else Path(os.path.abspath(saved))
        return None if path is None or not path.is_relative_to(folder) else path.relative_to(folder).as_posix()

    def _draw(
        self, item: dict[str, Any], name: str, warning: str | None, loaded: torch.Tensor | None
    ) -> dict[str, str | None]:
        """The pictures that are asked for; their names, or None where one could not be drawn."""
        pred, picture = item[CommonKeys.PRED], self.picture and has_matplotlib
        image = image_on_grid(item, pred, loaded) if picture or self.rotating else None
        shared: dict[str, Any] = {
            "affine": affine_in_mm(pred),
            "class_names": self.class_names,
            "warning": warning,
        }
        names: dict[str, str | None] = {"picture": None} | ({"rotating": None} if self.rotating else {})
        if image is None:
            return names
        found = class_indices(pred)
        path = self.output_dir / f"{name}.png"
        if picture and prediction_figure(image, found, path, title=name, view=self.view, **shared):
            names["picture"] = path.name
        path = self.output_dir / f"{name}_rotating.gif"
        if self.rotating and rotating_projections(image, found, path, **shared):
            names["rotating"] = path.name
        return names

    def _tell(self, engine: Engine, report: dict[str, Any]) -> None:
        self._advance(engine.state.iteration, engine)
        if not report["found"]:
            logger.warning("%s: nothing found", report["case"])
        if self._bar is not None and self._bar.disable:
            told = figures_text(report.get("inferer"))
            logger.info(
                "case %d of %s: %s, %.1f s%s",
                engine.state.iteration,
                _total(engine) or "?",
                report["case"],
                report["seconds"],
                f" ({told})" if told else "",
            )

    def _complete(self, engine: Engine) -> None:
        failures = list(getattr(engine, "failures", ()))
        if self._bar is not None:
            self._advance(engine.state.iteration, engine)
            self._bar.close()
        try:
            self._write_lists(engine, failures)
        except InputError as error:
            # where nothing can be written every case has failed for it, and that is what the run ends with
            if not failures:
                raise
            logger.error("%s", error)
        logger.info("%d predicted, %d failed; reports in %s", len(self.reports), len(failures), self.output_dir)

    def _write_lists(self, engine: Engine, failures: list[dict[str, str]]) -> None:
        if self.reports:
            write_json(
                self.output_dir / "predictions.json",
                {
                    "weights": without_paths(getattr(engine.state, "weights", None)),
                    "versions": versions(),
                    "cases": self.reports,
                    "failures": failures,
                },
            )
        write_failures(self.output_dir, failures)


def _total(engine: Engine) -> int | None:
    loader = engine.state.dataloader
    total = getattr(loader, "total", None)
    return int(total) if total is not None else (len(loader) if hasattr(loader, "__len__") else None)
