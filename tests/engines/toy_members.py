"""A tiny ensemble whose members locate and decode, with stages that share it, scores by script, and kills."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ignite.engine import Events
from monai.inferers import Inferer

from common.engines import MemberTrainer, StageTrainer
from common.geometry.boxes import Box
from common.losses import RoIAwareLoss
from common.networks.rois import RoIPrediction

SIZE = (4, 8, 8)


class Member(torch.nn.Module):
    """Encoder, locator, and a decoder of region and contour."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Conv3d(1, 3, 3, padding=1)
        self.locator = torch.nn.Conv3d(3, 1, 1)
        self.decoder = torch.nn.Conv3d(3, 2, 1)

    def locate(self, features: torch.Tensor) -> torch.Tensor:
        return self.locator(torch.nn.functional.max_pool3d(features, (2, 4, 4)))


class Ensemble(torch.nn.Module):
    """Two members, of weights of a fixed seed."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.members = torch.nn.ModuleDict({"first": Member(), "second": Member()})

    def locator_parameters(self) -> list[torch.nn.Parameter]:
        return [p for m in self.members.values() for child in (m.encoder, m.locator) for p in child.parameters()]


class DecodeWhereBright(Inferer):
    """One box of half the volume for each item whose first voxel is above 0; `rois` False for none at all."""

    def __init__(self, rois: bool = True) -> None:
        self.rois = rois

    def __call__(self, inputs: torch.Tensor, network: Member, targets: torch.Tensor, *args, **kwargs) -> RoIPrediction:
        assert targets.shape == (len(inputs), 2, *SIZE)
        features = network.encoder(inputs)
        box = Box((0, 0, 0), (4, 8, 4))
        boxes = [(b, box) for b in range(len(inputs)) if self.rois and float(inputs[b].flatten()[0]) > 0]
        both = [network.decoder(features[b : b + 1, ..., :4]) for b, _ in boxes]
        return RoIPrediction(
            network.locate(features), boxes, [logits[:, :1] for logits in both], [logits[:, 1:] for logits in both]
        )


def cases(count: int = 4, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Random images, the foreground where they are bright; the first voxel is above 0 in every other case."""
    draw = torch.Generator().manual_seed(seed)
    items = []
    for number in range(count):
        image = torch.randn(1, *SIZE, generator=draw)
        image[0, 0, 0, 0] = 1.0 if number % 2 else -1.0
        items.append({"image": image, "label": (image > 0.5).repeat(2, 1, 1, 1)})
    return items


class Scores:
    """Stands for an evaluator: the score of every epoch is given."""

    metric_cmp_fn = staticmethod(lambda now, best: now > best)

    def __init__(self, scores: Sequence[float]) -> None:
        self.scores, self.runs = list(scores), []
        self.state = SimpleNamespace(epoch=0, key_metric_name="score", metrics={})

    def run(self, epoch: int) -> None:
        self.runs.append(epoch)
        self.state.epoch, self.state.metrics = epoch, {"score": self.scores[epoch - 1]}


class Validate:
    """A handler that runs the evaluator every `interval` epochs."""

    def __init__(self, evaluator: Scores, interval: int = 1) -> None:
        self.evaluator, self.interval = evaluator, interval

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(
            Events.EPOCH_COMPLETED(every=self.interval), lambda engine: self.evaluator.run(engine.state.epoch)
        )


def trainer(network: Ensemble, folder: Path, data: Any = None, **arguments: Any) -> StageTrainer:
    """A trainer of the whole ensemble by Adam; any argument can be given otherwise."""
    chosen = {
        "network_def": network,
        "network": network,
        "stage": "joint",
        "device": "cpu",
        "max_epochs": 1,
        "train_data_loader": torch.utils.data.DataLoader(cases(), shuffle=True) if data is None else data,
        "optimizer": torch.optim.Adam(network.parameters(), 0.05, weight_decay=0.1, amsgrad=True),
        "loss_function": RoIAwareLoss(),
        "inferer": DecodeWhereBright(),
        "model_path": str(folder / "models" / "model.pt"),
        "output_dir": str(folder / "eval"),
    }
    return MemberTrainer(**{**chosen, **arguments})


STAGES = {"locator": [0.1, 0.5, 0.3], "joint": [0.6, 0.7, 0.2, 0.4, 0.9, 0.1]}


def train_stages(
    folder: Path, resume: bool = False, scores: dict[str, list[float]] | None = None, interval: int = 1, **arguments
) -> dict[str, StageTrainer]:
    """Train the same ensemble in two stages, first without the decoders, each for as many epochs as it has scores."""
    network, trainers = Ensemble(), {}
    for stage, of_stage in (scores or STAGES).items():
        parameters = network.locator_parameters() if stage == "locator" else network.parameters()
        evaluator = Scores(of_stage)
        trainers[stage] = trainer(
            network,
            folder,
            stage=stage,
            optimizer=torch.optim.Adam(parameters, 0.05, weight_decay=0.1, amsgrad=True),
            inferer=DecodeWhereBright(rois=stage != "locator"),
            evaluator=evaluator,
            train_handlers=[Validate(evaluator, interval)],
            resume=resume,
            **{"max_epochs": len(of_stage), **arguments},
        )
    for each in trainers.values():
        each.run()
    return trainers
