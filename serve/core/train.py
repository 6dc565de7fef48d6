"""One short epoch of every stage of a packed bundle, by its own train.json."""

from __future__ import annotations

import json
import re
import sys

import step
import torch

_EPOCH = re.compile(r"stage '(?P<stage>[^']+)', epoch (?P<epoch>\d+) of \d+ \(.*?\): loss (?P<loss>\S+?),")


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Train, and see that every stage that the config runs has left a loss and weights."""
    output = step.tool(case, "run", "--config_file", *case.files("train"), **case.values(**case.short()))
    losses = {found["stage"]: float(found["loss"]) for found in _EPOCH.finditer(output)}
    step.require(bool(losses), "the log tells of no epoch")
    step.require(all(loss == loss for loss in losses.values()), f"losses are {losses}")
    wanted = sum(".trainer.run()" in line or "::trainer.run()" in line for line in case.config("train")["run"])
    step.require(len(losses) == wanted, f"{len(losses)} of {wanted} stages were trained: {', '.join(losses)}")
    weights = torch.load(case.model, weights_only=True)
    step.require(all(bool(value.isfinite().all()) for value in weights.values()), "weights are not finite")
    info = json.loads(case.model.with_suffix(".json").read_text())
    step.require(info["phantom"] is True, "the sidecar does not call the data a phantom")
    told = ", ".join(f"{stage} {loss:.3g}" for stage, loss in losses.items())
    figures = {f"loss of {stage}": loss for stage, loss in losses.items()}
    return f"losses: {told}", {"stages": len(losses), **figures}


if __name__ == "__main__":
    sys.exit(step.main(run))
