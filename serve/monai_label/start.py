"""Start MONAI Label with packed bundles: ``python serve/monai_label/start.py PACKED ... --studies FOLDER``.

The server and its app ``monaibundle`` are as they come. This builds their environment once (``serve/environment.py``),
copies the bundles into the app, starts the server behind the guard (``guard/``), on 127.0.0.1 unless told otherwise,
with sessions and temporary files in a private folder, and removes that folder when the server ends. Only the standard
library is needed.
"""

from __future__ import annotations

import argparse
import filecmp
import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

HERE = Path(__file__).resolve().parent


class StartError(RuntimeError):
    """The server can not be started; the text says why and what to do."""


def parser() -> argparse.ArgumentParser:
    """The words of the command line."""
    made = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    made.add_argument("bundles", type=Path, nargs="+", help="packed bundles (volseg pack NAME --out packed)")
    made.add_argument("--studies", required=True, help="folder of volumes (.nii.gz, .nrrd), or a DICOMweb address")
    made.add_argument("--app", type=Path, default=Path("monai_label_app"), help="where the app and its weights live")
    made.add_argument("--environment", type=Path, help="environment to build or use; else the one this runs in")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on")
    made.add_argument("--port", type=int, default=8000, help="port to listen on")
    made.add_argument("--origin", action="append", default=[], help="web page that may use the server (OHIF elsewhere)")
    made.add_argument(
        "--name", action="append", default=[], help="name by which others reach the server, beside its own"
    )
    made.add_argument("--uploads", type=int, default=4, help="uploads that may come at the same time")
    made.add_argument("--upload_gib", type=float, default=4.0, help="size of an upload, packed and unpacked, in GiB")
    made.add_argument("--wait", type=float, default=300.0, help="seconds in which the server must answer")
    return made


def check(given: argparse.Namespace) -> None:
    """See that the words of the command line can be meant.

    Args:
        given: from `parser`.

    Raises:
        StartError: when under them the server would refuse all that is sent, or a name would never match.
    """
    for word, least in (("uploads", given.uploads >= 1), ("upload_gib", given.upload_gib > 0)):
        if not least:
            told = f"--{word} {getattr(given, word):g}: no upload could come; it must be more than 0"
            raise StartError(f"{told}. Leave it out, or pass a larger number")
    for name in given.name:
        if not re.fullmatch(r"[^\W_]([\w.-]*\w)?", name) and not _is_numbers(name):
            told = f"--name {name}: it must be a name alone, without http://, port or path"
            raise StartError(f"{told}. Pass it as --name proxy.example")


def _is_numbers(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def prepare_app(app: Path, bundles: Sequence[Path], python: str) -> list[str]:
    """Make the app's folder: the sample app as it comes, and the bundles in it.

    A bundle that is there already, packed from the same, is left alone with what it was trained to since. One of
    another packing is moved to ``replaced`` first.

    Args:
        app: the folder.
        bundles: packed bundles.
        python: of the server's environment.

    Returns:
        the bundles' names.

    Raises:
        StartError: when a folder is no packed bundle, two have one name, or the sample app is not there.
    """
    names = [bundle.resolve().name for bundle in bundles]
    for bundle, name in zip(bundles, names):
        missing = [
            part
            for part in ("PACKED.json", "configs/inference.json", "models/model.pt")
            if not (bundle / part).is_file()
        ]
        if missing:
            raise StartError(f"{bundle} has no {missing[0]}: it must be a packed bundle. Run volseg pack {name}")
    if len(set(names)) < len(names):
        raise StartError(f"bundles are called {', '.join(names)}: each must have a name of its own")
    _copy_sample(app, python)
    for bundle, name in zip(bundles, names):
        place = app / "model" / name
        if place.exists() and not _packed_alike(bundle, place):
            number = sum(1 for _ in (app / "replaced").glob(f"{name}_*")) + 1
            aside = app / "replaced" / f"{name}_{number}"
            aside.parent.mkdir(exist_ok=True)
            shutil.move(place, aside)
            print(f"{name} was packed anew; the one before, with its weights, is {aside}", flush=True)
        if not place.exists():
            part = place.with_name(f".{name}.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(bundle, part)
            os.replace(part, place)
    return names


def _packed_alike(bundle: Path, place: Path) -> bool:
    records = [folder / "PACKED.json" for folder in (bundle, place)]
    return all(record.is_file() for record in records) and filecmp.cmp(*records, shallow=False)


def _copy_sample(app: Path, python: str) -> None:
    """The sample app as the installed MONAI Label has it."""
    (app / "model").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-m", "monailabel.main", "apps", "--download", "--name", "monaibundle", "--output", folder]
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)
        source = Path(folder) / "monaibundle"
        if done.returncode or not source.is_dir():
            tail = (done.stdout + done.stderr).strip()[-600:]
            raise StartError(f"{python} has no MONAI Label: pass --environment FOLDER to build one.\n{tail}")
        shutil.copytree(source, app, dirs_exist_ok=True)


def command(given: argparse.Namespace, names: Sequence[str], python: str) -> list[str]:
    """The line of MONAI Label that is run."""
    line = [python, str(HERE / "server.py"), "start_server", "--app", str(given.app.resolve())]
    line += [
        "--studies",
        given.studies if _is_address(given.studies) else str(Path(given.studies).resolve()),
        "--conf",
        "models",
        ",".join(names),
    ]
    # any source but the default looks for bundles in the app first, and for nothing on the internet
    line += ["--conf", "zoo_source", "ngc", "--host", given.host, "--port", str(given.port)]
    return [*line, "--uvicorn_app", "guard.asgi:app"]


def _is_address(studies: str) -> bool:
    return studies.startswith(("http://", "https://"))


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's alone.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "10.0.0.5")]
    [True, True, True, False, False]
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def hosts(host: str, names: Sequence[str]) -> list[str]:
    """The names under which requests are answered.

    Without them, a web page could make a name of its own lead to this machine, and read what the server answers.

    Args:
        host: address to listen on.
        names: further names of it.
    """
    found = ["127.0.0.1", "localhost", "::1", host, *names]
    if not is_loopback(host):
        own = socket.gethostname()
        found = [host, *names, own, f"{own}.local", socket.getfqdn(), *found]
    return list(dict.fromkeys(name.lower() for name in found if name not in ("0.0.0.0", "::")))


def _environment(**more: str) -> dict[str, str]:
    """This process's variables without those that tell Python where to look, and others over them."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | more


def settings(given: argparse.Namespace, private: Path) -> dict[str, str]:
    """The variables of the server: its private folders, who may ask it, what an upload may be."""
    guard = {
        "upload_gib": given.upload_gib,
        "uploads": given.uploads,
        "hosts": hosts(given.host, given.name),
        "origins": given.origin,
    }
    return _environment(
        TMPDIR=str(private / "temporary"),
        MONAI_LABEL_SESSION_PATH=str(private / "sessions"),
        LABEL_GUARD=json.dumps(guard),
    )


@contextmanager
def running(given: argparse.Namespace, names: Sequence[str], python: str, log: IO | None = None):
    """The server as a process of its own, until the block ends; its private folder goes with it.

    Args:
        given: from `parser`.
        names: of the bundles in the app.
        python: of the server's environment.
        log: where the server's words go, instead of this process's output.

    Raises:
        StartError: when the port is taken, or the server does not answer in time.
    """
    with socket.socket(socket.AF_INET6 if ":" in given.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((given.host, given.port))
        except OSError as error:
            raise StartError(f"{given.host}:{given.port} can not be used ({error}): pass --port NUMBER") from None
    private = Path(tempfile.mkdtemp(prefix="monai_label_"))  # for its owner alone
    server = None
    try:
        for part in ("temporary", "sessions"):
            (private / part).mkdir(mode=0o700)
        server = subprocess.Popen(
            command(given, names, python),
            cwd=given.app,
            env=settings(given, private),
            start_new_session=True,
            stdout=log,
            stderr=log,
        )
        _wait(server, given)
        yield server
    finally:
        if server is not None:
            _stop(server)
        shutil.rmtree(private, ignore_errors=True)


def _wait(server: subprocess.Popen, given: argparse.Namespace) -> None:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(given.host, given.host)
    # no proxy between this machine and itself
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    until = time.monotonic() + given.wait
    while time.monotonic() < until:
        if server.poll() is not None:
            raise StartError(f"the server ended with status {server.returncode}: what it said above has the reason")
        try:
            with ask(f"http://{host}:{given.port}/info/", timeout=10) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise StartError(f"the server did not answer in {given.wait:.0f} s: pass --wait SECONDS")


def _stop(server: subprocess.Popen) -> None:
    """End the server and what it has started, such as a training."""
    for number, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def _built(folder: Path) -> str:
    """The Python of an environment, made first where it is not there."""
    script = HERE.parent / "environment.py"
    if subprocess.run([sys.executable, str(script), str(folder), str(HERE)], check=False).returncode:
        raise StartError(f"the environment {folder} could not be built: what pip said above has the reason")
    return str(folder.absolute() / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def _end(number: int, _: object) -> None:
    """End in order, once: another signal would cut short the tidying, and leave what came from patients."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)
    sys.exit(128 + number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the server and stay until it ends or is told to end."""
    given = parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        check(given)
        python = _built(given.environment) if given.environment else sys.executable
        if not _is_address(given.studies):
            Path(given.studies).mkdir(parents=True, exist_ok=True)
        names = prepare_app(given.app, given.bundles, python)
        if not is_loopback(given.host):
            print(
                f"{given.host} can be reached from other machines, and the server asks nobody for a password",
                flush=True,
            )
        with running(given, names, python) as server:
            print(f"http://{given.host}:{given.port} serves {', '.join(names)}; end it with Ctrl-C", flush=True)
            return server.wait()
    except StartError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
