"""Small evaluators over volumes on disk."""

import json

import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import Dataset, list_data_collate
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, LoadImaged

from common.transforms.one_hot import LabelledOneHotd

SPACING = (0.5, 1.0, 3.0)


class Threshold(torch.nn.Module):
    """A network whose answer is known: class 1 where the image is above its one weight."""

    def __init__(self, level=0.5):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(float(level)))

    def forward(self, image):
        return (image[:, :1] > self.level).float()


@pytest.fixture
def threshold():
    return Threshold


@pytest.fixture
def cube_case(tmp_path):
    """Writes a case: an image with a bright cube, and its label; the affine mirrors the first axis."""

    def write(name, low=(4, 4, 4), size=6, unlabelled=None, phantom=None):
        folder = (tmp_path / name).parent
        folder.mkdir(parents=True, exist_ok=True)
        affine = np.diag([-SPACING[0], *SPACING[1:], 1.0])
        image = np.zeros((16, 16, 16), dtype=np.float32)
        image[4:10, 4:10, 5:11] = 1.0
        label = np.zeros((16, 16, 16), dtype=np.uint8)
        label[tuple(slice(start, start + size) for start in low)] = 1
        if unlabelled is not None:
            label[unlabelled] = 3
        paths = {"image": f"{tmp_path / name}.nii.gz", "label": f"{tmp_path / name}_label.nii.gz"}
        nibabel.save(nibabel.Nifti1Image(image, affine), paths["image"])
        nibabel.save(nibabel.Nifti1Image(label, affine), paths["label"])
        if phantom is not None:
            (folder / "dataset.json").write_text(json.dumps({"name": "x", "phantom": phantom}))
        return paths

    return write


@pytest.fixture
def evaluator():
    """Builds a MONAI evaluator over cases."""

    def build(cases, handlers, network=None, kind=SupervisedEvaluator, postprocessing=None, **kwargs):
        keys = list(cases[0])
        loading = Compose([LoadImaged(keys=keys, ensure_channel_first=True)])
        loader = kwargs.pop("loader", None) or torch.utils.data.DataLoader(
            Dataset(cases, loading), batch_size=1, collate_fn=list_data_collate
        )
        if postprocessing is None and "label" in keys:
            postprocessing = LabelledOneHotd(num_classes=2, ignore_index=3)
        return kind(
            device=torch.device(kwargs.pop("device", "cpu")),
            val_data_loader=loader,
            network=network or Threshold(),
            postprocessing=postprocessing,
            val_handlers=handlers,
            **kwargs,
        )

    return build


@pytest.fixture
def set_state():
    """A handler that gives an engine's state some values at its start."""

    class SetState:
        def __init__(self, **values):
            self.values = values

        def attach(self, engine):
            engine.add_event_handler(
                Events.STARTED, lambda engine: [setattr(engine.state, *item) for item in self.values.items()]
            )

    return SetState
