"""Sizes, channels and types of a network against what its metadata say, as MONAI checks them."""

from __future__ import annotations

import sys

import step


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Check, then check with another number of channels in the metadata, which must not pass."""
    names = {"meta_file": case.files("metadata")[0], "config_file": case.files("inference")[0]}
    step.tool(case, "verify_net_in_out", "network_def", **names, device="cpu")
    sizes = case.config("metadata")["network_data_format"]["inputs"]["image"]["spatial_shape"]
    wrong = {"_meta_#network_data_format#outputs#pred#num_channels": 17}
    try:
        step.tool(case, "verify_net_in_out", "network_def", **names, device="cpu", **wrong)
    except step.StepError:
        return f"one image of {' x '.join(map(str, sizes))}", {}
    raise step.StepError("an output of 17 channels passes as well: nothing was checked")


if __name__ == "__main__":
    sys.exit(step.main(run))
