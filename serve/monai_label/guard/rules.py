"""What a request to MONAI Label must be like before the server sees it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qs

import torch

from . import archives, series, training, volumes, weights
from .body import Body, parsed
from .refused import Refused

_MODEL = re.compile(r"^/(infer|infer/wsi|infer/wsi_v2|train|batch/infer|model|model/info)/([^/]+)/?$")
# what becomes a part of a path on the server
_NAMES = (
    "image",
    "images",
    "label",
    "id",
    "tag",
    "label_tag",
    "session_id",
    "model_filename",
    "result_extension",
    "client_id",
)
_CODE = ("$", "@", "%")  # by which a config's expressions, references and macros begin
_PLAIN = re.compile(r"^[^/\\\0]*$")


class Rules:
    """The rules of one server.

    Args:
        instance: gives the running `MONAILabelApp`.
        limit: bytes that an upload may have, packed and unpacked.
    """

    def __init__(self, instance, limit: int) -> None:
        self._instance, self.limit = instance, limit

    def before_body(self, method: str, path: str, query: str) -> None:
        """Refuse what the address alone shows to be wrong.

        Raises:
            Refused: see there.
        """
        _check_names({key: value for key, values in parse_qs(query).items() for value in values})
        found = _MODEL.match(path)
        if found is None:
            return
        kind, model = found.groups()
        instance = self._instance()
        known = sorted(instance._trainers if kind == "train" else instance._infers)
        if model not in known:
            raise Refused(404, f"there is no model {model!r}", f"it must be one of {', '.join(known)}", "choose one")
        if kind == "model" and method == "DELETE":
            raise Refused(
                403,
                f"the weights of {model} were to be removed",
                "without them the server answers from random ones",
                "remove the bundle from the server instead",
            )

    def apply(self, method: str, path: str, query: str, body: Body, folder: Path) -> bool:
        """Look at a request's body, and rename and repack what it carries.

        Args:
            method: of HTTP.
            path: of the address.
            query: of the address.
            body: changed in place.
            folder: a private folder for this request.

        Returns:
            whether the body must be written anew.

        Raises:
            Refused: when a rule is broken.
        """
        asked = {key: values[-1] for key, values in parse_qs(query).items()}
        params = _params(body)
        _check_names(params)
        if not path.startswith("/datastore"):
            _check_values(params)
        found = _MODEL.match(path)
        kind, model = found.groups() if found else ("", "")
        if model and params.get("model", model) != model:
            raise Refused(400, "two models", "the address names the model", "leave it out of the parameters")
        if method == "POST" and (kind == "train" or path.rstrip("/") == "/train"):
            params = _settled(body, params)
            training.check(params, sorted(self._instance()._trainers))
        if kind == "infer":
            self._infer({**asked, **params}, body)
        if kind == "batch/infer" and not torch.cuda.device_count() and params.get("multi_gpu", True) is not False:
            rule = "this server has no GPU"
            raise Refused(
                422, "multi_gpu was asked for, or not said", rule, 'send {"device": "cpu", "multi_gpu": false}'
            )
        if kind in ("infer", "batch/infer", "train"):
            self._weights(model, params.get("model_filename"))
        if kind == "model" and method == "PUT":
            for _, _, upload in body.files:
                weights.check(upload, self._instance()._infers[model].network)
        route = path.rstrip("/")
        if method == "PUT" and route == "/session":
            self._session(asked.get("uncompress", "").lower() in ("true", "1", "on", "yes"), body, folder)
        if method == "PUT" and route in ("/datastore", "/datastore/image", "/datastore/label"):
            self._stored(asked, body, route.endswith("label"))
        return bool(body.files)

    def _infer(self, asked: Mapping, body: Body) -> None:
        has_file = any(name == "file" for name, _, _ in body.files)
        image, session = asked.get("image"), asked.get("session_id")
        if not (has_file or image or session):
            raise Refused(400, "no image", "a request names an image, a session or a file", "send one of the three")
        if session and self._instance().sessions().get_session(session) is None:
            raise Refused(404, "the session is not there", "it must be one that was made", "send PUT /session/ again")
        store = self._instance().datastore()
        if image and not session and not has_file and type(store).__name__ == "LocalDatastore":
            if image not in store.list_images():  # a path on the server would be read as well
                raise Refused(
                    404,
                    f"there is no image {image!r}",
                    "it must be one of the studies",
                    "ask GET /datastore/?output=all",
                )
        for place, (name, filename, path) in enumerate(body.files):
            ending = volumes.suffix(filename)
            if name == "label" and filename.endswith(".bin"):
                ending = ".bin"
            else:
                path = self._volume(filename, path)
            body.files[place] = (name, f"upload{ending}", path)

    def _weights(self, model: str, chosen: object) -> None:
        task = self._instance()._infers.get(model)
        network, paths = getattr(task, "network", None), getattr(task, "path", None)
        if network is None or not paths:
            return
        chosen = chosen or task.config().get("model_filename") or Path(paths[-1]).name
        name = chosen if isinstance(chosen, str) else chosen[0]
        path = Path(paths[0]).parent / name
        if not path.is_file():
            known = ", ".join(sorted(found.name for found in path.parent.glob("*.pt")))
            raise Refused(
                404, f"there are no weights {name!r}", f"there are {known}", "choose model.pt, or leave it out"
            )
        weights.check(path, network)

    def _session(self, uncompress: bool, body: Body, folder: Path) -> None:
        files = [(filename, path) for name, filename, path in body.files if name == "files"]
        if not files:
            raise Refused(400, "no file", "a session is made of one volume or series", "send it as 'files'")
        packed = uncompress or files[0][0].lower().endswith(".zip")
        if packed and (len(files) > 1 or not uncompress):
            raise Refused(
                400, "a zip among files, or not to be unpacked", "a session is one zip", "add ?uncompress=true"
            )
        if packed:
            inside = folder / "unpacked"
            inside.mkdir()
            slices = series.check(archives.unpack(files[0][1], inside, self.limit))
            body.files = [("files", "series.zip", archives.pack(slices, folder / "series.zip"))]
        elif len(files) == 1 and volumes.suffix(files[0][0]):
            ending = volumes.suffix(files[0][0])
            body.files = [("files", f"upload{ending}", self._volume(*files[0]))]
        else:
            slices = series.check([path for _, path in files])
            body.files = [("files", f"{number:06d}.dcm", path) for number, path in enumerate(slices)]

    def _stored(self, asked: Mapping, body: Body, is_label: bool) -> None:
        store = self._instance().datastore()
        for place, (name, filename, path) in enumerate(body.files):
            ending = volumes.suffix(filename)
            path = self._volume(filename, path)
            if is_label:
                source = Path(str(store.get_image_uri(asked.get("image", ""))))
                _check_grid(path, source)
            stem = Path(filename.replace("\\", "/")).name[: -len(ending)].replace(".", "_")
            body.files[place] = (name, f"{stem or 'upload'}{ending}", path)

    def _volume(self, filename: str, path: Path) -> Path:
        """Check an upload as a volume; it then has its format in its name."""
        path = path.rename(path.with_name(path.name + volumes.ending(filename)))
        volumes.check(path, self.limit)
        return path


def _params(body: Body) -> Mapping:
    """The parameters of a request, of which there is one set, as the server takes them."""
    if sum(key == "params" for key, _ in body.fields) > 1:
        raise Refused(400, "params twice", "a request has one set of parameters", "send one field params")
    params = parsed(body.text("params"), "params") if body.text("params") else body.json
    if params is not None and not isinstance(params, Mapping):
        raise Refused(400, "params are no object", "they are names and values", 'send {"NAME": VALUE}')
    return params or {}


def _settled(body: Body, params: Mapping) -> Mapping:
    """The parameters of a training without what must not reach the server; the body is changed in place."""
    if (found := training.settled(body.json)) != body.json:
        body.json, body.raw = found, json.dumps(found).encode()
    return training.settled(params)


def _check_values(value: object) -> None:
    """Refuse what MONAI would run: a training puts values into the bundle's config, where some texts are Python."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            raise _code()
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            _check_values(one)
    elif isinstance(value, str) and value.lstrip().startswith(_CODE):
        raise _code()


def _code() -> Refused:
    rule = "a value is a number, a name or the like"
    return Refused(400, "a value that MONAI would run as code", rule, f"begin no value with {', '.join(_CODE)}")


def _check_names(given: Mapping) -> None:
    for own in given.values():
        if isinstance(own, Mapping):  # parameters of several models
            _check_names(own)
    for key in _NAMES:
        value = given.get(key)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and (not _PLAIN.match(text) or text in (".", "..")):
                raise Refused(
                    400, f"{key} holds a path", "it must be a name", "name what the server has, without folders"
                )


def _check_grid(label: Path, image: Path) -> None:
    """See that a label has its image's size; a fourth axis (channels, segments) is not compared."""
    if not volumes.suffix(image.name) or not image.is_file():
        return
    sizes = [volumes.check(path, 1 << 62) for path in (label, image)]
    nifti = all(volumes.suffix(path.name) != ".nrrd" for path in (label, image))
    if (nifti or all(len(size) == 3 for size in sizes)) and sizes[0][:3] != sizes[1][:3]:
        came = f"a label of {'x'.join(map(str, sizes[0]))} voxels for an image of {'x'.join(map(str, sizes[1]))}"
        raise Refused(422, came, "both must have one grid", "draw on the image itself, or resample the label to it")
