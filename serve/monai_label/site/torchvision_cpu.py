"""Let torchvision of the package index be imported beside a torch for the CPU.

The index has torchvision built for CUDA. Beside a CPU build of torch its compiled part does not load, the operators it
would bring are missing, and `import torchvision` ends in ``operator torchvision::nms does not exist``. To declare the
two operators that are asked for at import is enough for all that is written in Python; to call them still fails.
"""

import sys


class _BeforeTorchvision:
    """Declares the operators at the moment that torchvision is first looked for; finds nothing itself."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(_BeforeTorchvision)
            import torch

            if torch.version.cuda is None:
                library = torch.library.Library("torchvision", "DEF")
                for operator in ("nms", "qnms"):
                    library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
                _BeforeTorchvision.library = library  # the operators go when it does
        return None


sys.meta_path.insert(0, _BeforeTorchvision)
