"""A checkout with a bundle, environments that are this Python without its packages, and scripts that pretend."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from common.bundling.archive import MANIFEST, file_hashes
from common.certify.certification import Certification
from common.certify.environments import Environments
from common.certify.steps import Environment, Step
from common.checks import InputError

KINDS = (Environment("core", "serve/core", of_bundle=True), Environment("server", "serve/server"))
STEPS = (
    Step("train", "training", "core", "serve/core/train.py"),
    Step("infer", "prediction", "core", "serve/core/infer.py"),
    Step("export", "export", "core", "serve/core/export.py", ("--form", "x")),
    Step("server", "the server", "server", "serve/server/certify.py"),
)
_ENVIRONMENT = """
import hashlib, json, pathlib, sys
folder, source = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
told = (source / "requirements.txt").read_text() + str("--bundle" in sys.argv)
if "broken" in told:
    sys.exit("no such package: broken")
digest = hashlib.sha256(told.encode()).hexdigest()
if "--hash" in sys.argv:
    print(digest)
    sys.exit()
folder.parent.mkdir(parents=True, exist_ok=True)
with open(folder.parent / "builds.txt", "a") as stream:
    stream.write(folder.name + "\\n")
(folder / "bin").mkdir(parents=True, exist_ok=True)
(folder / "bin" / "python").write_text("#!/bin/sh\\nexec WRAPPED")
(folder / "bin" / "python").chmod(0o755)
content = {"hash": digest, "python": "3", "asked": ["Some_Tool"], "packages": {"some-tool": "1.0", "torch": "2.13.0"}}
(folder / "environment.json").write_text(json.dumps(content))
"""
# what every script gets: its words, and what it tells
_HEAD = """
import json, os, pathlib, sys
told = dict(zip(sys.argv[1::2], sys.argv[2::2]))
bundle, work = pathlib.Path(told["--bundle"]), pathlib.Path(told["--work"])
with open(LINES, "a") as stream:
    stream.write(json.dumps([pathlib.Path(__file__).stem, sys.argv[1:], os.getcwd(), sorted(os.environ)]) + "\\n")
def result(passed, told, **figures):
    print("RESULT " + json.dumps({"passed": passed, "told": told, "figures": figures}))
"""
TRAIN = """
(bundle / "models").mkdir()
(bundle / "models" / "model.pt").write_text("weights")
(bundle / "models" / "model.json").write_text("{}")
result(True, "loss 0.5", loss=0.5)
"""
SCRIPTS = {
    "core/train": TRAIN,
    "core/infer": "result(True, '3 voxels', voxels=3)",
    "core/export": "result(None, 'the tool says: no GPU')",
    "server/certify": "print('a traceback'); sys.exit(3)",
}


class Checkout:
    """A pretended checkout with one bundle, ``toy``.

    Args:
        folder: where it goes.
        scripts: texts of scripts by name, in place of `SCRIPTS`.
        wrapped: the command line of an environment's Python.
    """

    def __init__(self, folder: Path, scripts: Mapping[str, str] | None = None, wrapped: str = "") -> None:
        self.root, self.lines_file = folder / "checkout", folder / "lines.txt"
        serve = self.root / "serve"
        for kind in KINDS:
            (self.root / kind.source).mkdir(parents=True)
            (self.root / kind.source / "requirements.txt").write_text(f"{kind.name}\n")
        wrapped = wrapped or f'{shlex.quote(sys.executable)} -S "$@"\n'  # -S: no packages, this project among them
        (serve / "environment.py").write_text(_ENVIRONMENT.replace("WRAPPED", wrapped.replace('"', '\\"').strip()))
        for name, text in {**SCRIPTS, **(scripts or {})}.items():
            self.write(name, text)
        self.bundle = self.root / "bundles" / "toy"
        (self.bundle / "configs").mkdir(parents=True)
        (self.bundle / "configs" / "metadata.json").write_text('{"name": "toy", "version": "0.1.0"}')
        (self.bundle / "models").mkdir()
        (self.bundle / "models" / "model.pt").write_text("the weights of the user are not those that are certified")
        self.out = folder / "out"

    def write(self, name: str, text: str) -> None:
        """Write a script."""
        head = _HEAD.replace("LINES", repr(str(self.lines_file)))
        (self.root / "serve" / f"{name}.py").write_text(head + textwrap.dedent(text))

    def certification(self) -> Certification:
        """A certification that knows what lies in the output folder."""
        environments = Environments(self.root, self.out / "environments", self.out / "home")
        return Certification(self.bundle, self.out / "toy", environments, STEPS, KINDS)

    def certify(self, *names: str) -> dict:
        """Run the steps of these names, or all, and give back what is known by step."""
        one = self.certification()
        one.run([step for step in STEPS if not names or step.name in names], lambda text: None)
        return one.results()["steps"]

    def ran(self) -> list[str]:
        """Names of scripts that ran, in their order, since this was asked last."""
        found = [one[0] for one in self.lines()]
        self.lines_file.unlink(missing_ok=True)
        return found

    def lines(self) -> list[list]:
        """Name, words, working directory and variables of every script that ran."""
        return (
            [json.loads(line) for line in self.lines_file.read_text().splitlines()] if self.lines_file.exists() else []
        )


def pretended_pack(bundle: Path, out: Path, without_weights: bool, overlays: list[str]) -> tuple[Path, Path]:
    """Copy the bundle as a packed one."""
    import shutil

    if (bundle / "configs" / "unfit.json").exists():
        raise InputError("the lint has 1 findings")
    assert overlays == ("small",) and (bundle / "models").exists() != without_weights
    folder = out / bundle.name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(bundle, folder)
    (folder / MANIFEST).write_text(json.dumps({"files": file_hashes(folder)}))
    return folder, out / f"{bundle.name}.zip"
