"""The command line ``volseg``: thin words for the ``python -m monai.bundle`` lines that it prints and runs."""

from .commands import Volseg, main

__all__ = ["Volseg", "main"]
