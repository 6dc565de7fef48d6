"""MONAI Label over HTTP, as far as trying a server needs it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import requests

WAIT = 1800


class Label:
    """A server.

    Args:
        url: such as ``http://127.0.0.1:8000``.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy in between

    def send(self, method: str, path: str, **more) -> requests.Response:
        """One request, whatever is answered."""
        return self._session.request(method, self.url + path, timeout=WAIT, **more)

    def asked(self, method: str, path: str, **more) -> requests.Response:
        """One request that must be answered with 200.

        Raises:
            RuntimeError: with the server's reason.
        """
        answer = self.send(method, path, **more)
        if answer.status_code != 200:
            raise RuntimeError(f"{method} {path}: {answer.status_code}, {answer.text[:2000]}")
        return answer

    def info(self) -> dict:
        """Models, trainers and labels."""
        return self.asked("GET", "/info/").json()

    def infer(self, model: str, out: Path, image: str = "", session: str = "", file: Path | None = None) -> Path:
        """The label of a study, a session or a volume that is sent along, as ``.nii.gz``."""
        query = {"output": "image", "image": image, "session_id": session}
        form = {"params": json.dumps({"result_extension": ".nii.gz", "result_dtype": "uint8"})}
        files = {"file": (file.name, file.read_bytes())} if file is not None else None
        answer = self.asked("POST", f"/infer/{model}", params=query, data=form, files=files)
        out.write_bytes(answer.content)
        return out

    def session(self, archive: bytes) -> str:
        """Send a zipped series; returns the session's name."""
        answer = self.asked("PUT", "/session/?uncompress=true", files={"files": ("series.zip", archive)})
        return answer.json()["session_id"]

    def train(self, model: str, **request) -> dict:
        """Train in the background until it ends; returns the task as the server tells it."""
        self.asked("POST", f"/train/{model}", json=request)
        return self._finished("/train/")

    def batch(self, model: str, **request) -> dict:
        """Predict all studies in the background until it ends; returns the task as the server tells it."""
        self.asked("POST", f"/batch/infer/{model}", json={"device": "cpu", "multi_gpu": False, **request})
        return self._finished("/batch/infer")

    def _finished(self, path: str) -> dict:
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            task = self.asked("GET", path).json()
            if task["status"] not in ("SUBMITTED", "RUNNING"):
                return task
            time.sleep(1)
        raise RuntimeError(f"{path} did not end in {WAIT} s")
