"""Volumes spoiled in ways that users' volumes are, and the error that a bundle's run ends with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigParser

from common.checks import InputError, WeightsError
from common.engines.case_evaluator import CasesFailed


def cause(parser: ConfigParser, run: str = "run") -> BaseException:
    """The package's own error that ends a run; MONAI wraps each in others."""
    with pytest.raises(Exception) as told:
        parser.get_parsed_content(run)
    error: BaseException | None = told.value
    while error is not None and not isinstance(error, (InputError, WeightsError, CasesFailed)):
        error = error.__cause__
    assert error is not None, told.value
    return error


def write(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    """Save a volume."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def spoil(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    """Change a saved volume in place; `affine` is put before its own."""
    image = nibabel.load(path)
    write(path, change(np.asarray(image.dataobj).copy()), image.affine if affine is None else affine @ image.affine)


def with_nan(values: np.ndarray) -> np.ndarray:
    """Its highest values are none."""
    return np.where(values == values.max(), np.nan, values).astype(np.float32)
