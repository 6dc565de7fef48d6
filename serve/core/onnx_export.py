"""ONNX of every network of a packed bundle, by ``onnx_export``: onnxruntime answers as the network itself."""

from __future__ import annotations

import sys

import onnxruntime
import step
import torch
from networks import equal, networks


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Export the whole and every child, and compare the answers."""
    differences, failed = {}, {}
    for network in networks(case):
        try:
            made = network.export("onnx_export", "onnx")
            session = onnxruntime.InferenceSession(str(made), providers=["CPUExecutionProvider"])
            answers = session.run(None, {session.get_inputs()[0].name: network.input.numpy()})
            found = [torch.as_tensor(answer).float() for answer in answers]
            differences[network.name] = equal(found, network.answer(), network.name)
        except Exception as error:  # the others are tried all the same
            failed[network.name] = f"{network.name}: {error}".splitlines()[0]
    step.require(not failed, "; ".join(failed.values()))
    told = f"{', '.join(differences)}: within {max(differences.values()):.1g} of eager"
    return told, {f"difference of {name}": value for name, value in differences.items()}


if __name__ == "__main__":
    sys.exit(step.main(run))
