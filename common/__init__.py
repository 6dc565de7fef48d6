"""Shared package of the volumetric segmentation bundles: networks, losses, transforms, inferers, engines.

The layers, lowest first, are listed in ``docs/architecture.md``; a module imports only from its own layer or below
(``tests/test_layers.py``). Bundles reach this code by dotted ``_target_``; packed, they carry what they need of it.
"""

__version__ = "0.1.0"
