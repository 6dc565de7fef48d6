"""A round of two clients of a federation (``monai.fl.client.MonaiAlgo``), averaged by their iterations."""

from __future__ import annotations

import math
import sys

import step
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems
from monai.fl.utils.exchange_object import ExchangeObject

_CLIENTS = 2
Weights = dict[str, torch.Tensor]


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Train and score; what is scored is what was handed out, and every child has moved."""
    clients = [_client(case, number) for number in range(_CLIENTS)]
    start = _copied(clients[0].evaluator.network.state_dict())
    on_disk = torch.load(case.model, weights_only=True)
    step.require(_moved(start, on_disk) != set(), "what is handed out is what lies in models: nothing would be shown")
    _score(clients[0], start)
    trained = []
    for client in clients:
        client.train(ExchangeObject(weights=_copied(start)))
        found = client.get_weights()
        step.require(set(found.weights) == set(start), "a client gives other tensors back than it was given")
        trained.append((_copied(found.weights), found.statistics["num_executed_iterations"]))
    step.require(_moved(trained[0][0], trained[1][0]) != set(), "both clients have learnt the same")
    handed = _averaged(trained)
    metrics = _score(clients[1], handed)
    children, moved = {name.split(".")[0] for name in handed}, _moved(start, handed)
    step.require(moved == children, f"only {', '.join(sorted(moved))} of {', '.join(sorted(children))} were trained")
    for client in clients:
        client.finalize()
    told = f"{_CLIENTS} clients, {len(children)} children trained, Dice {metrics['val_mean_dice']:.3f}"
    return told, {"children": len(children), "iterations": sum(number for _, number in trained), **metrics}


def _client(case: step.Case, number: int) -> MonaiAlgo:
    place = case.work / f"client_{number}"
    values = case.values(output_dir=str(place / "out"), seed=number, device="cpu")
    training = {key: value for key, value in case.short().items() if key != "epochs"}
    client = MonaiAlgo(
        bundle_root=str(case.bundle),
        local_epochs=1,
        send_weight_diff=False,
        config_train_filename=case.training_files(),
        train_kwargs={**values, **training, "model_path": str(place / "models" / "model.pt")},
        eval_kwargs={**values, "output_dir": str(place / "scores")},
    )
    client.initialize({ExtraItems.CLIENT_NAME: f"client_{number}"})
    return client


def _score(client: MonaiAlgo, handed: Weights) -> dict[str, float]:
    metrics = client.evaluate(ExchangeObject(weights=_copied(handed))).metrics
    held = client.evaluator.network.state_dict()
    step.require(not _moved(held, handed), "other weights than those handed out were scored")
    step.require(math.isfinite(metrics.get("val_mean_dice", math.nan)), f"metrics are {metrics}")
    return metrics


def _copied(weights: Weights) -> Weights:
    return {name: value.detach().cpu().clone() for name, value in weights.items()}


def _moved(before: Weights, after: Weights) -> set[str]:
    """The children whose weights differ."""
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(value.cpu(), after[name].cpu())}


def _averaged(trained: list[tuple[Weights, int]]) -> Weights:
    total = sum(number for _, number in trained)
    return {
        name: sum(weights[name].double() * number for weights, number in trained).div(total).to(value.dtype)
        for name, value in trained[0][0].items()
    }


if __name__ == "__main__":
    sys.exit(step.main(run))
