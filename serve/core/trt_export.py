"""A packed bundle's network as TensorRT, by ``trt_export``."""

from __future__ import annotations

import sys

import step
import torch
from networks import equal, networks, tensors


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Export, and compare the answers on the GPU; what the tool lacks here is told in its own words."""
    network = next(networks(case))
    try:
        made = network.export("trt_export", "ts")
    except step.StepError as error:
        if "Cannot find any GPU" not in str(error) or torch.cuda.is_available():
            raise
        raise step.Impossible(str(error)) from error
    with torch.no_grad():
        found = tensors(torch.jit.load(str(made)).cuda()(network.input.cuda()))
    worst = equal([one.cpu() for one in found], network.answer(), network.name, 1e-2)
    return f"within {worst:.1g} of eager", {"difference": worst}


if __name__ == "__main__":
    sys.exit(step.main(run))
