"""A copy of the project in which every documented command runs in seconds, as it stands.

The copy's configs have a narrow network and a small phantom for values (``tests/bundles/NAME.json``: ``configs``,
those of single ``files``, and ``metadata`` for the sizes that follow); commands that train get a short epoch by
overrides at their end (``training``). Nothing in a command is replaced.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SHORT = {path.stem: json.loads(path.read_text()) for path in (REPOSITORY / "tests" / "bundles").glob("*.json")}
BUNDLES = sorted(path.parents[1].name for path in REPOSITORY.glob("bundles/*/configs/train.json"))
_FENCE = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands(document: Path) -> list[str]:
    """The commands of all ``bash`` blocks of a document in order, lines ending in a backslash joined."""
    blocks = _FENCE.findall(document.read_text(encoding="utf-8"))
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def whole(command: str) -> bool:
    """Whether a command sets a machine up or is a whole demo: minutes, and more than a sandbox."""
    return any(word in command for word in ("pip install", "volseg demo", "pytest", "activate"))


def shortened(command: str) -> str:
    """The command with a short epoch, where it trains."""
    words = shlex.split(command)
    names = [name for name in SHORT if any(name in word for word in words)]
    runs = "monai.bundle" in words and "run" in words and "train.json" in command and "evaluate.json" not in command
    if words[:2] == ["volseg", "densify"]:
        return f"{command} --epochs 1 --iterations_per_epoch 1 --val_interval 1 --finish_epochs 0"
    if names and (runs or words[:2] in (["volseg", "train"], ["volseg", "demo"])):
        command += "".join(
            f" --{key} {shlex.quote(json.dumps(value))}" for key, value in SHORT[names[0]]["training"].items()
        )
    return command


@dataclass
class Sandbox:
    """A folder with a copy of the package and the bundles, made cheap."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Sandbox:
        """Copy what a checkout has, and cut its configs short."""
        ignored = shutil.ignore_patterns("__pycache__", "models", "eval")
        for part in ("common", "bundles"):
            shutil.copytree(REPOSITORY / part, folder / part, ignore=ignored)
        for name, short in SHORT.items():
            for path in (folder / "bundles" / name / "configs").glob("*.json"):
                config = json.loads(path.read_text())
                values = short["metadata"] if path.name == "metadata.json" else short["configs"]
                values = values | short.get("files", {}).get(path.name, {})
                for key, value in values.items():
                    *parents, leaf = key.split("::")
                    holder = functools.reduce(lambda part, name: part.get(name, {}), parents, config)
                    if leaf in holder:
                        holder[leaf] = value
                path.write_text(json.dumps(config, indent=4))
        tools = folder / "tools"
        tools.mkdir()
        for tool, words in (("python", ""), ("volseg", " -m common")):
            (tools / tool).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{words} "$@"\n')
            (tools / tool).chmod(0o755)
        return cls(folder)

    @property
    def environment(self) -> dict[str, str]:
        """Variables that keep everything inside."""
        path = os.pathsep.join([str(self.folder / "tools"), str(Path(sys.executable).parent), os.environ["PATH"]])
        inside = {
            "PATH": path,
            "PYTHONPATH": str(self.folder),
            "VOLSEG_CACHE": str(self.folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **inside}

    def provide(self, command: str) -> None:
        """Make the data that a command names, where it is not there: a Decathlon folder, or bare images to predict."""
        words = shlex.split(command)
        if words[:2] == ["volseg", "densify"]:
            self._provide_slices(*words[2:4])
        names = [words[k + 1] for k, word in enumerate(words[:-1]) if word == "--dataset_dir"]
        names += words[3:4] if words[:2] == ["volseg", "predict"] else []
        bundle = next((name for name in SHORT if name in command), None)
        for target in (self.folder / name for name in names):
            if target.exists() or bundle is None:
                continue
            source = self._phantom(bundle)
            predicts = "inference.json" in command or words[:2] == ["volseg", "predict"]
            shutil.copytree(source / "imagesTr" if predicts else source, target)

    def _phantom(self, bundle: str) -> Path:
        """The folder of a bundle's phantom in miniature."""
        phantom = {key: value for key, value in SHORT[bundle]["configs"]["dataset_dir"].items() if key != "_target_"}
        code = f"from common.data.phantoms.registry import phantom_dataset; print(phantom_dataset(**{phantom!r}))"
        return Path(self.run(f"python -c {shlex.quote(code)}").stdout.splitlines()[-1])

    def _provide_slices(self, image: str, slices: str) -> None:
        """A volume and the slices drawn in it, under these names."""
        source = self._phantom("unet3d_sparse")
        for part, name in (("imagesTr", image), ("labelsTr", slices)):
            if not (self.folder / name).exists():
                shutil.copyfile(min((source / part).iterdir()), self.folder / name)

    def run(self, command: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a shell, in the sandbox; `more` are further variables."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, (
            f"$ {command}\nexit status {done.returncode}\n{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
        )
        return done
