"""The steps of a certification, as data: what is run, in which environment.

A step is a script below ``serve/``, run by path in the environment of its folder (``serve/environment.py``), where this
package is not importable::

    PYTHON SCRIPT --bundle PACKED --work EMPTY --data DECATHLON [ARGUMENTS]

- The working directory is PACKED: a packed bundle under its own name, a copy for this step alone, to be written into.
- EMPTY is an empty folder for everything else that is written.
- DECATHLON is a folder with ``dataset.json``: the data set that ``train.json`` names by default. The first step, whose
  training makes it, gets none.
- The last line of the output that begins with RESULT tells the outcome::

      RESULT {"passed": true, "told": "loss 0.81 after 2 iterations", "figures": {"loss": 0.81}}

  ``passed``: true; false; or null where the tool itself says that it can not be done for this bundle, or here.
  ``told``: for true one short phrase with the figure that counts; else the reason, for null in the tool's own words.
  ``figures``: numbers by name. A script that ends with another status than 0, or without that line, has failed.
- ``train`` leaves ``models/model.pt`` and its sidecar in PACKED: the weights of all later steps.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ENVIRONMENTS", "STEPS", "Environment", "Step"]


@dataclass(frozen=True)
class Environment:
    """A clean environment.

    Args:
        name: what it is called.
        source: the folder with its requirements, from the root of the checkout.
        of_bundle: whether the versions that the bundle's metadata names are part of it.
    """

    name: str
    source: str
    of_bundle: bool = False


@dataclass(frozen=True)
class Step:
    """One proof.

    Args:
        name: how it is chosen.
        title: how it is shown.
        environment: name of the environment.
        script: from the root of the checkout.
        arguments: further words for it.
        minutes: after which it has failed.
    """

    name: str
    title: str
    environment: str
    script: str
    arguments: tuple[str, ...] = ()
    minutes: int = 30


ENVIRONMENTS = (
    Environment("core", "serve/core", of_bundle=True),
    Environment("monai_label", "serve/monai_label"),
    Environment("monai_deploy", "serve/monai_deploy"),
    Environment("nvflare", "serve/nvflare", of_bundle=True),
)


def _core(name: str, title: str) -> Step:
    return Step(name, title, "core", f"serve/core/{name}.py")


STEPS = (
    _core("train", "training, one short epoch"),
    _core("evaluate", "evaluation"),
    _core("infer", "prediction"),
    _core("check_properties", "properties of MONAI's workflows"),
    _core("verify_metadata", "metadata against MONAI's schema"),
    _core("verify_net_in_out", "sizes in metadata (`verify_net_in_out`)"),
    _core("ckpt_export", "TorchScript (`ckpt_export`), equal to eager"),
    _core("onnx_export", "ONNX (`onnx_export`), equal in onnxruntime"),
    _core("trt_export", "TensorRT (`trt_export`)"),
    _core("load", "`monai.bundle.load`"),
    _core("federated", "federated rounds (`MonaiAlgo`)"),
    Step("mlflow", "tracking with MLflow", "core", "serve/core/tracking.py"),
    Step("monai_label", "MONAI Label, over HTTP", "monai_label", "serve/monai_label/certify.py", minutes=60),
    Step(
        "monai_deploy", "MONAI Deploy, DICOM to DICOM SEG", "monai_deploy", "serve/monai_deploy/certify.py", minutes=60
    ),
    Step("nvflare", "NVFlare, two rounds of its simulator", "nvflare", "serve/nvflare/certify.py"),
)
