"""A packed bundle's network by ``monai.bundle.load``, with its weights."""

from __future__ import annotations

import sys

import monai.bundle
import step
import torch


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Load, and see that the network is the packed one and holds the weights of the file, all and no others."""
    network = monai.bundle.load(case.name, bundle_dir=str(case.bundle.parent), workflow_type="inference")
    step.require(isinstance(network, torch.nn.Module), f"it gives a {type(network).__name__}")
    code = type(network).__module__
    step.require(code.startswith(f"scripts_{case.name}."), f"the network's code is {code}")
    weights = torch.load(case.model, weights_only=True)
    held = network.state_dict()
    step.require(set(weights) == set(held), f"{len(set(weights) ^ set(held))} names differ")
    differing = [name for name, value in weights.items() if not torch.equal(value, held[name].cpu())]
    step.require(not differing, f"{len(differing)} of {len(weights)} tensors differ")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return f"{type(network).__name__}, {parameters:,} parameters", {"parameters": parameters, "tensors": len(weights)}


if __name__ == "__main__":
    sys.exit(step.main(run))
