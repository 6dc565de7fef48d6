"""``volseg densify`` on a ball, by lines that pretend."""

from __future__ import annotations

import numpy as np
import pytest
from drawn_ball import BALL, PLANES, SIZE, Lines, save, slices

from common.cli.commands import main
from common.cli.densify import command
from common.cli.densify import report as report_module
from common.cli.densify import steps as steps_module
from common.cli.densify import work as work_module


@pytest.fixture
def lines(monkeypatch) -> Lines:
    made = Lines()
    monkeypatch.setattr(work_module, "run_line", made)
    monkeypatch.setattr(steps_module, "run_line", made)
    monkeypatch.setattr(work_module, "pace_of", lambda line: None)
    monkeypatch.setattr(report_module, "densify_figure", lambda *_: False)  # drawing takes longer than all the rest
    monkeypatch.setattr(command, "check_package", lambda: None)
    monkeypatch.setattr(command, "keep_memory", lambda: "A=1")
    return made


@pytest.fixture
def image(tmp_path) -> str:
    noise = np.random.default_rng(0).normal(0, 5, SIZE)
    return save((100 * BALL + noise).astype(np.float32), tmp_path / "scan.nii.gz")


@pytest.fixture
def drawn(tmp_path) -> str:
    return save(slices(PLANES), tmp_path / "drawn.nii.gz")


@pytest.fixture
def densify(lines, image, drawn, tmp_path, monkeypatch, repository):
    """The command on the image, with the slices unless others are given, into the folder ``out``."""
    monkeypatch.chdir(repository)

    def run(*words, given=None) -> int:
        return main(["densify", image, *(given or [drawn]), "--out", str(tmp_path / "out"), *words])

    return run


@pytest.fixture
def more(tmp_path) -> str:
    return save(slices([(0, 18), (1, 4), (1, 15), (2, 2), (2, 14)]), tmp_path / "more.nii.gz")
