from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, LoadImaged

from common.checks import InputError
from common.data import CaseLoader, inference_cases
from common.data.loader import innermost_text
from common.transforms.check import CheckVolumed
from tests.data.folders import write_nifti


@pytest.fixture
def loader(tmp_path) -> CaseLoader:
    """Four volumes: a good one, one cut short, one with NaN, a good one; and one that is absent."""
    rng = np.random.default_rng(0)
    for name in "abcd":
        volume = rng.normal(size=(6, 7, 8)).astype(np.float32)
        volume[0, 0, 0] = np.nan if name == "c" else 0
        write_nifti(tmp_path / f"{name}.nii.gz", volume)
    cut = tmp_path / "b.nii.gz"
    cut.write_bytes(cut.read_bytes()[:600])
    transform = Compose([LoadImaged("image", ensure_channel_first=True), CheckVolumed("image", 1)])
    cases = [*inference_cases(tmp_path), {"image": str(tmp_path / "e.nii.gz")}]
    return CaseLoader(Dataset(cases, transform))


def test_good_cases_come_as_batches_of_one_and_bad_ones_are_noted(loader, caplog):
    with caplog.at_level(logging.ERROR):
        batches = list(loader)
    assert [tuple(batch["image"].shape) for batch in batches] == [(1, 1, 6, 7, 8)] * 2
    assert [failure["case"] for failure in loader.failures] == ["b.nii.gz", "c.nii.gz", "e.nii.gz"]
    texts = [failure["error"] for failure in loader.failures]
    assert "b.nii.gz' is truncated" in texts[0]
    assert texts[1].startswith("image 'c.nii.gz' holds 1 values that are NaN or infinite")
    assert "e.nii.gz' does not exist" in texts[2]
    assert "(b.nii.gz) is passed over" in caplog.text and loader.total == 5


def test_it_has_no_length(loader):
    with pytest.raises(TypeError):
        len(loader)


def test_each_pass_starts_its_own_list(loader):
    for _ in range(2):
        assert len(list(loader)) == 2
        assert len(loader.failures) == 3


def test_an_engine_runs_each_good_case_once_and_again(loader):
    seen = []
    engine = Engine(lambda _, batch: seen.append(batch["image"].meta["filename_or_obj"][0][-8:]))
    for _ in range(2):
        seen.clear()
        engine.state.epoch_length = None
        engine.run(loader, max_epochs=1)
        assert seen == ["a.nii.gz", "d.nii.gz"] and len(loader.failures) == 3


def test_an_evaluator_ends_where_every_case_fails(tmp_path):
    loader = CaseLoader(Dataset([{"image": str(tmp_path / "x.nii.gz")}], LoadImaged("image")))
    evaluator = SupervisedEvaluator(device=torch.device("cpu"), val_data_loader=loader, network=torch.nn.Identity())
    evaluator.run()
    assert evaluator.state.iteration == 0 and [failure["case"] for failure in loader.failures] == ["x.nii.gz"]


def test_several_patches_of_a_case_make_one_batch():
    batches = list(CaseLoader([[{"x": 1}, {"x": 2}], [{"x": 3}]]))
    assert [batch["x"].tolist() for batch in batches] == [[1, 2], [3]]


def test_an_interrupt_is_no_failure_of_a_case():
    class Interrupted(list):
        def __getitem__(self, index):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(CaseLoader(Interrupted([0])))


def test_cases_without_a_file_are_numbered():
    class Broken(list):
        def __getitem__(self, index):
            if isinstance(index, int):
                raise ValueError("no data")
            return super().__getitem__(index)

    dataset = Broken([{}, {}])
    loader = CaseLoader(
        type(
            "Data",
            (),
            {"data": [{"x": 1}, {"x": 2}], "__len__": lambda self: 2, "__getitem__": lambda self, i: dataset[i]},
        )()
    )
    assert list(loader) == []
    assert loader.failures == [{"case": "case 1", "error": "no data"}, {"case": "case 2", "error": "no data"}]


def test_innermost_text_follows_causes():
    try:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        assert innermost_text(error) == "'inner'"
    assert innermost_text(ValueError()) == "ValueError"


def test_an_input_error_says_more_than_its_cause():
    try:
        try:
            try:
                raise OSError("errno 5")
            except OSError as error:
                raise InputError("the file is cut short") from error
        except InputError as error:
            raise RuntimeError("applying transform") from error
    except RuntimeError as error:
        assert innermost_text(error) == "the file is cut short"
