"""A packed bundle as an application of MONAI Deploy: a folder with a DICOM series in, DICOM SEG out.

    python app.py --input DICOM --output OUT --model PACKED [--series NAME]

Folders that are not named come from HOLOSCAN_INPUT_PATH, HOLOSCAN_OUTPUT_PATH and HOLOSCAN_MODEL_PATH, as a MONAI
Application Package sets them; the packed bundle is the model folder itself or the one folder in it. A folder with one
NIfTI file is answered in NIfTI. The status is 0 where an answer was written, 2 for input that is refused, and 1 for
anything else.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# what goes wrong is told once, below; warnings and errors of the libraries quote what headers and paths hold
os.environ.setdefault("HOLOSCAN_LOG_LEVEL", "OFF")
warnings.simplefilter("ignore")

# ruff: noqa: E402
import numpy as np
from found_series import choose_series, find_series
from monai.deploy.conditions import CountCondition
from monai.deploy.core import AppContext, Application, Fragment, Image, IOType, Operator, OperatorSpec
from monai.deploy.operators.monai_bundle_inference_operator import IOMapping, MonaiBundleInferenceOperator
from refused import Refused
from segmentation import volumes_ml, write_nifti, write_segmentation
from volume import Volume, nifti_files, read_nifti, read_series

logger = logging.getLogger("deploy")


class VolumeOperator(Operator):
    """The volume of the series that a bundle expects, once.

    Named outputs:
        image: `Image` X Y Z or X Y Z C with an affine, as the bundle's operator passes it on to the transforms.
        volume: `Volume`.

    Args:
        folder: with DICOM files, or with one NIfTI file.
        told: metadata of the bundle.
        series: name of the series to take; empty for the only one that fits.
    """

    def __init__(self, fragment: Fragment, *args: Any, folder: Path, told: dict, series: str, **kwargs: Any):
        self.folder, self.told, self.series = folder, told, series
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.output("image")
        spec.output("volume")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        volume = self.read()
        meta = {
            "affine": volume.affine,
            "original_affine": volume.affine.copy(),
            "spacing": np.linalg.norm(volume.affine[:3, :3], axis=0),
            "spatial_shape": np.array(volume.array.shape[:3]),
            "original_channel_dim": "no_channel" if volume.array.ndim == 3 else -1,
            "space": "RAS",
            "filename_or_obj": volume.name,
        }
        logger.info("%s: %s voxels", volume.name, " x ".join(map(str, volume.array.shape)))
        op_output.emit(Image(volume.array, meta), "image")
        op_output.emit(volume, "volume")

    def read(self) -> Volume:
        """
        Raises:
            Refused: as `find_series`, `choose_series`, `read_series` and `read_nifti` say.
        """
        files = nifti_files(self.folder)
        if len(files) == 1 and not self.series:
            return read_nifti(files[0])
        found = find_series(self.folder)
        if not self.told.get("dicom_segments"):
            raise Refused(
                "the bundle names no codes for its classes (dicom_segments), since what it is made for is no DICOM",
                "a DICOM SEG says by codes what each segment is",
                "give it a folder with one NIfTI file",
            )
        return read_series(choose_series(found, self.told["expected_input"]["modality"], self.series))


class AnswerOperator(Operator):
    """Writes the bundle's answer: DICOM SEG for a series, NIfTI for a NIfTI file.

    Named inputs:
        pred: `Image` D H W of the bundle's classes.
        volume: `Volume` that they belong to.

    Args:
        folder: where the file goes.
        told: metadata of the bundle.
    """

    def __init__(self, fragment: Fragment, *args: Any, folder: Path, told: dict, **kwargs: Any):
        self.folder, self.told = folder, told
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec) -> None:
        spec.input("pred")
        spec.input("volume")

    def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
        label = np.swapaxes(op_input.receive("pred").asnumpy(), 0, 2)
        volume: Volume = op_input.receive("volume")
        if volume.frames:
            path = write_segmentation(label, volume, self.told, self.folder)
        else:
            path = write_nifti(label, volume, self.folder)
        told = ", ".join(f"{name} {ml:g} ml" for name, ml in volumes_ml(label, volume, self.told).items())
        logger.info("%s: %s", path.name, told or "nothing was found")
        self.fragment.answer = path


class BundleApplication(Application):
    """Series or file, bundle, answer.

    Args:
        bundle: folder of a packed bundle.
        told: its metadata.
        source: folder that is read.
        out: folder that is written to.
        series: name of the series to take; empty for the only one that fits.
    """

    def __init__(self, bundle: Path, told: dict, source: Path, out: Path, series: str = "") -> None:
        self.bundle, self.told, self.source, self.out, self.series = bundle, told, source, out, series
        self.answer: Path | None = None
        super().__init__()

    def compose(self) -> None:
        """Three operators in a row; the volume also goes past the bundle, to where the answer is written."""
        context = AppContext({"input": str(self.source), "output": str(self.out), "model": str(self.bundle)})
        context.models = None  # a folder of several files is no model to the SDK; the operator reads `bundle_path`
        volume = VolumeOperator(
            self,
            CountCondition(self, 1),
            folder=self.source,
            told=self.told,
            series=self.series,
            name="volume",
        )
        inference = MonaiBundleInferenceOperator(
            self,
            app_context=context,
            bundle_path=self.bundle,
            input_mapping=[IOMapping("image", Image, IOType.IN_MEMORY)],
            output_mapping=[IOMapping("pred", Image, IOType.IN_MEMORY)],
            name="bundle",
        )
        answer = AnswerOperator(self, folder=self.out, told=self.told, name="answer")
        self.add_flow(volume, inference, {("image", "image")})
        self.add_flow(volume, answer, {("volume", "volume")})
        self.add_flow(inference, answer, {("pred", "pred")})


def find_bundle(folder: Path) -> tuple[Path, dict]:
    """The packed bundle that a folder is or holds, and its metadata.

    Raises:
        Refused: where there is none, or several.
    """
    here = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    found = [path for path in here if (path / "configs" / "metadata.json").is_file()]
    if len(found) != 1 or not (found[0] / "models" / "model.pt").is_file():
        raise Refused(
            f"the model folder holds {len(found)} bundles" if len(found) != 1 else "the bundle has no models/model.pt",
            "it is a packed bundle with weights, or holds one",
            "write one with: volseg pack NAME --out FOLDER, and pass --model FOLDER/NAME",
        )
    return found[0], json.loads((found[0] / "configs" / "metadata.json").read_text(encoding="utf-8"))


def run(source: Path, out: Path, model: Path, series: str = "") -> Path:
    """Answer one folder.

    Raises:
        Refused: for input that is not taken.
    """
    if not source.is_dir():
        raise Refused("the input folder does not exist", "it holds the files of a series", "name it with --input")
    bundle, metadata = find_bundle(model)
    out.mkdir(parents=True, exist_ok=True)
    application = BundleApplication(bundle.resolve(), metadata, source.resolve(), out.resolve(), series)
    application.run()
    if application.answer is None:
        raise RuntimeError("the application ended without an answer")
    return application.answer


def refusal(error: BaseException | None) -> BaseException | None:
    """What refused the input, if that is why an error was raised: one of ours, or the bundle's own ``InputError``."""
    while error is not None and not isinstance(error, Refused) and type(error).__name__ != "InputError":
        error = error.__cause__  # MONAI names the transform in which another error was raised
    return error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line and the environment ask for.

    Returns:
        the exit status.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for word, told in (("input", "folder with a DICOM series"), ("output", "folder of the answer")):
        parser.add_argument(f"--{word}", f"-{word[0]}", type=Path, help=told)
    parser.add_argument("--model", "-m", type=Path, help="folder of the packed bundle, or the one that holds it")
    parser.add_argument("--series", default="", help="name of the series to take, as listed where several fit")
    parser.add_argument(
        "--verbose", action="store_true", help="show the text of unforeseen errors: it may name a patient"
    )
    given = parser.parse_args(arguments)
    folders = {
        word: getattr(given, word) or Path(os.environ.get(f"HOLOSCAN_{word.upper()}_PATH", default))
        for word, default in (("input", "input"), ("output", "output"), ("model", "models"))
    }
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logger.setLevel(logging.INFO)
    for name in ("pydicom", "highdicom", "monai"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    begun = time.perf_counter()
    try:
        run(folders["input"], folders["output"], folders["model"], given.series)
    except Exception as error:
        if (refused := refusal(error)) is not None:
            logger.error("Refused: %s", refused)
            return 2
        if given.verbose:
            traceback.print_exception(error)
        else:
            place = "".join(traceback.format_tb(error.__traceback__)[-4:])
            logger.error(
                "%sended with %s; --verbose shows its text, which may name a patient", place, type(error).__name__
            )
        return 1
    logger.info("done in %.0f s", time.perf_counter() - begun)
    return 0


if __name__ == "__main__":
    sys.exit(main())
