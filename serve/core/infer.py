"""Labels of a packed bundle for the images of a data set, on their own grids."""

from __future__ import annotations

import sys

import nibabel
import numpy as np
import step


def run(case: step.Case) -> tuple[str, dict[str, float]]:
    """Predict, and see that every image has a label of known classes on its own grid."""
    step.require(case.data is not None, "no data set was given")
    images = sorted((case.data / "imagesTr").glob("*.nii.gz"))[:3]
    chosen = case.work / "images"
    chosen.mkdir()
    for path in images:
        (chosen / path.name).symlink_to(path)
    values = case.values(dataset_dir=str(chosen))
    step.tool(case, "run", "--config_file", *case.files("inference"), **values)
    classes = len(case.config("inference")["class_names"])
    voxels = 0
    for path in images:
        found = nibabel.load(case.work / "out" / path.name.replace(".nii.gz", "_seg.nii.gz"))
        image = nibabel.load(path)
        step.require(found.shape == image.shape[:3], f"a label of {found.shape} for an image of {image.shape}")
        step.require(np.allclose(found.affine, image.affine, atol=1e-4), "a label lies elsewhere than its image")
        values_found = np.unique(np.asarray(found.dataobj))
        step.require(set(values_found.tolist()) <= set(range(classes)), f"a label holds {values_found.tolist()}")
        voxels += int(np.prod(found.shape))
    return f"{len(images)} labels on the grids of their images", {"cases": len(images), "voxels": voxels}


if __name__ == "__main__":
    sys.exit(step.main(run))
