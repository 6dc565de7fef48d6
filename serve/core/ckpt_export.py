"""TorchScript of every network of a packed bundle, by ``ckpt_export``: it answers as the network itself."""

from __future__ import annotations

import sys

import step
import torch
from networks import equal, networks, tensors


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Export the whole and every child, and compare the answers of what is read back."""
    differences = {}
    for network in networks(case):
        made = network.export("ckpt_export", "ts")
        scripted = torch.jit.load(str(made)).eval()
        with torch.no_grad():
            found = tensors(scripted(network.input))
        differences[network.name] = equal(found, network.answer(), network.name)
    told = f"{', '.join(differences)}: within {max(differences.values()):.1g} of eager"
    return told, {f"difference of {name}": value for name, value in differences.items()}


if __name__ == "__main__":
    sys.exit(step.main(run))
