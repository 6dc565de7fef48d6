"""What a request may set of a training: the server hands its parameters to the bundle's config as they come."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

from .refused import Refused

_CHOICES = ("device", "model_filename", "tracking")  # which /info/ offers as lists, of which the first counts
_EMPTY = ("tracking", "tracking_uri", "tracking_experiment_name", "tracking_run_name", "client_id")


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _epochs(value: object) -> bool:
    return isinstance(value, int) and not _flag(value) and value > 0


def _share(value: object) -> bool:
    return isinstance(value, (int, float)) and not _flag(value) and (value == -1 or 0 <= value < 1)


def _tracking(value: object) -> bool:
    # any other text is a file of settings, read on the server
    return _text("(?i)none")(value) or (value == "mlflow" and find_spec("mlflow") is not None)


def _text(*patterns: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and any(re.fullmatch(one, value) for one in patterns)


_NAME = _text(r"[^/\\\0]*")  # names of weights are looked at for themselves, too
# what may be set: whether a value is allowed, and what is
_ALLOWED: dict[str, tuple[Callable[[object], bool], str]] = {
    "model_filename": (_NAME, "the name of weights that the server has"),
    "client_id": (_NAME, "a name"),
    "device": (_text(r"[\w .:()-]+"), "a device, as cpu or cuda:0"),
    "max_epochs": (_epochs, "a number of epochs"),
    "val_split": (_share, "a share from 0 to below 1, or -1"),
    # without them MONAI Label asks whether a file without a name exists
    "pretrained": (lambda value: value is True, "true: a training goes on from weights"),
    "multi_gpu": (_flag, "true or false"),
    "force_multi_gpu": (_flag, "true or false"),
    "gpus": (_text(r"all|\d+(,\d+)*"), "all, or numbers such as 0,1"),
    "tracking": (_tracking, "None, or mlflow where that is installed beside the server"),
    "tracking_uri": (_text(), "left out: MONAI_LABEL_TRACKING_URI names it where the server is started"),
    "tracking_experiment_name": (_NAME, "a name"),
    "tracking_run_name": (_NAME, "a name"),
    "run_id": (_text("run"), "run"),  # any other part of the config would be run as well
}


def settled(params: object) -> object:
    """The parameters without an empty ``run_id``, which viewers send as /info/ offers it.

    To MONAI it is the whole config, each stage's own list included, so that stages would be trained twice. Without
    it MONAI Label runs ``run``.

    Args:
        params: of the request, or whatever its body holds instead.
    """
    if not isinstance(params, Mapping):
        return params
    return {key: settled(value) for key, value in params.items() if (key, value) != ("run_id", "")}


def check(params: Mapping, models: Sequence[str]) -> None:
    """Refuse what a request must not set of a training.

    Args:
        params: of the request.
        models: those that can be trained; each may have parameters of its own.

    Raises:
        Refused: for a parameter that is not among the allowed, or a value that is none for it.
    """
    for key, value in params.items():
        if key in models and isinstance(value, Mapping):
            check(value, models)
        elif key == "model":
            if value not in models:
                raise Refused(404, "another model", f"it must be one of {', '.join(models)}", "choose one")
        elif key not in _ALLOWED:
            raise Refused(
                400,
                f"a training parameter {key!r}",
                f"a request may set {', '.join(_ALLOWED)}",
                "leave it out; the bundle's own configs/train.json sets all else",
            )
        else:
            _check_value(key, value)


def _check_value(key: str, value: object) -> None:
    allowed, rule = _ALLOWED[key]
    one = value[0] if isinstance(value, list) and value and key in _CHOICES else value
    # viewers send nothing for what nobody chose
    if not (key in _EMPTY and one in ("", None)) and not allowed(one):
        raise Refused(400, f"another value of {key}", f"it must be {rule}", "send it so, or leave it out")
