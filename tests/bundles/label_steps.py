"""What MONAI Label does with a bundle to answer one inference request, step by step, without MONAI Label.

It reads ``inference.json`` alone, puts the bundle on the path only while it instantiates something, hands the device
over as text, loads the shortest-named weights without strictness, leaves the saving transform out, and passes on a
dictionary with entries of its own beside the image. Run as ``python label_steps.py OUT.npz IMAGE BUNDLE [BUNDLE ...]``:
all bundles in one process, one after the other, each component made while another bundle's code is loaded already.
"""

from __future__ import annotations

import copy
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigItem, ConfigParser
from monai.transforms import Compose, LoadImaged, SaveImaged


@contextmanager
def on_path(bundle: str):
    """The bundle first on the path, with the modules called ``scripts`` forgotten, as MONAI Label does."""
    sys.path.insert(0, bundle)
    for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
        del sys.modules[name]
    try:
        yield
    finally:
        sys.path.remove(bundle)


class LabelledBundle:
    """One bundle of the server."""

    def __init__(self, bundle: str) -> None:
        self.root = str(Path(bundle).resolve())
        with on_path(self.root):
            self.parser = ConfigParser()
            self.parser.read_config(f"{self.root}/configs/inference.json")
            self.parser.config.update({"bundle_root": self.root})
            self.parser.config["use_click"] = False
            self.network = self.parser.get_parsed_content("network_def")
        form = json.loads(Path(self.root, "configs", "metadata.json").read_text())["network_data_format"]
        self.image, self.pred = next(iter(form["inputs"])), next(iter(form["outputs"]))
        self.weights = sorted(Path(self.root, "models").glob("*.pt"), key=lambda path: len(path.name))[0]

    def _part(self, name: str, device: str):
        with on_path(self.root):
            self.parser.config["device"] = device
            if self.parser.ref_resolver.items.get("device"):
                self.parser.ref_resolver.items["device"] = ConfigItem(config=device, id="device")
            return self.parser.get_parsed_content(name)

    def __call__(self, path: str, device: str = "cpu") -> np.ndarray:
        before = self._part("preprocessing", device).transforms
        for transform in before:
            if isinstance(transform, LoadImaged):
                transform._loader.image_only = False
        data = {self.image: path, "image_path": path, "device": device, "model_filename": [self.weights.name]}
        for transform in before:
            data = transform(data)
        inferer = self._part("inferer", device)
        network = copy.deepcopy(self.network).to(device)
        network.load_state_dict(torch.load(self.weights, map_location=device, weights_only=True), strict=False)
        with torch.no_grad():
            data[self.pred] = inferer(data[self.image][None].to(device), network.eval())[0]
        after = [step for step in self._part("postprocessing", device).transforms if not isinstance(step, SaveImaged)]
        labels = Compose(after)(data)[self.pred]
        return np.asarray(labels)[0]


if __name__ == "__main__":
    out, image, *roots = sys.argv[1:]
    bundles = [LabelledBundle(root) for root in roots]
    np.savez(out, **{f"bundle{index}": bundle(image) for index, bundle in enumerate(bundles)})
