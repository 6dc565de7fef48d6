"""A second bundle that differs from a first one in its code alone: what shows whose code a server ran."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_MOVED = """

_inner = {name}.{method}


def _moved(self, *given, **named):
    return _inner(self, *given, **named).roll((1, 2, 3), (-3, -2, -1))


{name}.{method} = _moved
"""


def make(bundle: Path, place: Path) -> Path:
    """Copy a packed bundle under another name; the copy's code moves its answer by a few voxels.

    Every module has the same path below its package as in the first bundle, so that any that is taken from there shows.

    Args:
        bundle: the packed bundle.
        place: the copy's folder, not there yet.
    """
    shutil.copytree(bundle, place)
    old, new = f"scripts_{bundle.name}", f"scripts_{place.name}"
    (place / old).rename(place / new)
    for path in [*place.rglob("*.py"), *place.rglob("*.json")]:
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace(old, new), encoding="utf-8")
    config = json.loads((place / "configs" / "inference.json").read_text(encoding="utf-8"))
    target, method = config["inferer"]["_target_"], "__call__"
    if not target.startswith(new):  # MONAI's own: the method is the network's
        target, method = config["network_def"]["_target_"], "forward"
    *parts, name = target.split(".")
    module = place.joinpath(*parts).with_suffix(".py")
    with open(module, "a", encoding="utf-8") as stream:
        stream.write(_MOVED.format(name=name, method=method))
    return place
