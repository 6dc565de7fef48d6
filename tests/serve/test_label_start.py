"""What `start.py` prepares before MONAI Label runs, without MONAI Label."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "serve" / "monai_label" / "start.py"

# stands for a Python that has MONAI Label: writes the sample app, or serves /info/ after a moment
PRETENDED = """#!{python}
import json, os, pathlib, sys
words = sys.argv[1:]
if "apps" in words:
    folder = pathlib.Path(words[words.index("--output") + 1], "monaibundle")
    (folder / "lib").mkdir(parents=True)
    (folder / "main.py").write_text("as it comes")
    sys.exit(0)
names = ("TMPDIR", "MONAI_LABEL_SESSION_PATH", "LABEL_GUARD", "PYTHONPATH")
seen = {{"words": words, "variables": {{name: os.environ.get(name) for name in names}}}}
pathlib.Path("seen.json").write_text(json.dumps(seen))
pathlib.Path(os.environ["TMPDIR"], "upload").write_text("of somebody")
if pathlib.Path("fails").exists():
    sys.exit(3)
if pathlib.Path("lingers").exists():
    import signal, time
    signal.signal(signal.SIGTERM, lambda *_: (time.sleep(2), os._exit(0)))
from http.server import BaseHTTPRequestHandler, HTTPServer
class Info(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", int(words[words.index("--port") + 1])), Info).serve_forever()
"""


@pytest.fixture(scope="module")
def start():
    spec = importlib.util.spec_from_file_location("label_start", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def python(tmp_path) -> str:
    path = tmp_path / "python"
    path.write_text(PRETENDED.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


def packed(folder: Path, mark: str = "one") -> Path:
    for name, text in (("PACKED.json", mark), ("configs/inference.json", "{}"), ("models/model.pt", mark)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def given(start, tmp_path: Path, *words: str):
    line = [str(packed(tmp_path / "packed" / "organs")), "--studies", str(tmp_path / "studies")]
    return start.parser().parse_args([*line, "--app", str(tmp_path / "app"), "--port", str(free_port()), *words])


def test_the_app_is_as_it_comes_with_the_bundles_in_it(start, python, tmp_path):
    bundles = [packed(tmp_path / name) for name in ("organs", "liver")]
    assert start.prepare_app(tmp_path / "app", bundles, python) == ["organs", "liver"]
    assert (tmp_path / "app" / "main.py").read_text() == "as it comes"
    assert sorted(path.name for path in (tmp_path / "app" / "model").iterdir()) == ["liver", "organs"]


def test_trained_weights_stay_until_the_bundle_is_packed_anew(start, python, tmp_path, capsys):
    bundle, app = packed(tmp_path / "organs"), tmp_path / "app"
    start.prepare_app(app, [bundle], python)
    weights = app / "model" / "organs" / "models" / "model.pt"
    weights.write_text("trained")
    start.prepare_app(app, [bundle], python)
    assert weights.read_text() == "trained"
    start.prepare_app(app, [packed(bundle, "two")], python)
    assert weights.read_text() == "two"
    assert (app / "replaced" / "organs_1" / "models" / "model.pt").read_text() == "trained"
    assert "packed anew" in capsys.readouterr().out


def test_what_can_not_be_served_is_refused(start, python, tmp_path):
    (tmp_path / "source" / "configs").mkdir(parents=True)
    with pytest.raises(
        start.StartError, match="has no PACKED.json: it must be a packed bundle. Run volseg pack source"
    ):
        start.prepare_app(tmp_path / "app", [tmp_path / "source"], python)
    same = [packed(tmp_path / place / "organs") for place in ("a", "b")]
    with pytest.raises(start.StartError, match="organs, organs: each must have a name of its own"):
        start.prepare_app(tmp_path / "app", same, python)
    with pytest.raises(start.StartError, match="has no MONAI Label: pass --environment"):
        start.prepare_app(tmp_path / "app", same[:1], sys.executable)


def test_the_server_runs_in_private_folders_that_go_with_it(start, python, tmp_path, monkeypatch):
    monkeypatch.setattr(start.tempfile, "tempdir", str(tmp_path / "private"))
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    (tmp_path / "private").mkdir()
    asked = given(start, tmp_path, "--origin", "http://viewer.example")
    names = start.prepare_app(asked.app, asked.bundles, python)
    with start.running(asked, names, python) as server:
        seen = json.loads((asked.app / "seen.json").read_text())
        (private,) = (tmp_path / "private").iterdir()
        assert private.stat().st_mode & 0o777 == 0o700 and (private / "temporary" / "upload").is_file()
    assert server.poll() is not None and not private.exists()
    variables, words = seen["variables"], seen["words"]
    assert variables["TMPDIR"] == str(private / "temporary") and variables["PYTHONPATH"] is None
    assert variables["MONAI_LABEL_SESSION_PATH"] == str(private / "sessions")
    guard = json.loads(variables["LABEL_GUARD"])
    assert guard["origins"] == ["http://viewer.example"] and "127.0.0.1" in guard["hosts"]
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("models") + 1] == "organs" and "ngc" in words and "guard.asgi:app" in words


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_cut_short_the_tidying(start, python, tmp_path, number):
    (tmp_path / "private").mkdir()
    asked = given(start, tmp_path)
    start.prepare_app(asked.app, asked.bundles, python)
    (asked.app / "lingers").touch()
    words = [*map(str, asked.bundles), "--app", asked.app, "--studies", asked.studies, "--port", asked.port]
    line = f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); import start; sys.executable = {str(python)!r}"
    line += f"; sys.exit(start.main({list(map(str, words))!r}))"
    environment = os.environ | {"TMPDIR": str(tmp_path / "private")}
    with subprocess.Popen([sys.executable, "-c", line], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert "serves organs" in next(told for told in process.stdout if "serves" in told)
        for _ in range(3):
            process.send_signal(number)
            time.sleep(0.3)
        assert process.wait(60) == 128 + number
    assert not list((tmp_path / "private").iterdir())


def test_a_server_that_ends_or_a_port_that_is_taken_is_told(start, python, tmp_path, monkeypatch):
    monkeypatch.setattr(start.tempfile, "tempdir", str(tmp_path / "private"))
    (tmp_path / "private").mkdir()
    asked = given(start, tmp_path)
    names = start.prepare_app(asked.app, asked.bundles, python)
    (asked.app / "fails").touch()
    with pytest.raises(start.StartError, match="ended with status 3"):
        with start.running(asked, names, python):
            pass
    assert not list((tmp_path / "private").iterdir())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", asked.port))
        taken.listen()
        with pytest.raises(start.StartError, match="pass --port"):
            with start.running(asked, names, python):
                pass


def test_only_names_of_the_server_are_answered_to(start, tmp_path, monkeypatch):
    """A page whose name was made to lead here would be of the same origin as the server's own."""
    monkeypatch.setattr(socket, "gethostname", lambda: "Scanner")
    monkeypatch.setattr(socket, "getfqdn", lambda: "scanner.ward.example")

    def told(*words):
        return json.loads(start.settings(given(start, tmp_path, *words), tmp_path)["LABEL_GUARD"])["hosts"]

    here = ["127.0.0.1", "localhost", "::1"]
    own = ["scanner", "scanner.local", "scanner.ward.example"]
    assert told() == here and told("--host", "localhost") == here
    assert told("--host", "0.0.0.0") == [*own, *here] and told("--host", "::") == [*own, *here]
    assert told("--host", "10.0.0.5") == ["10.0.0.5", *own, *here]
    assert told("--name", "Proxy.example") == [*here, "proxy.example"]
    assert told("--host", "0.0.0.0", "--name", "proxy.example") == ["proxy.example", *own, *here]


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--uploads", "0"), "--uploads 0: no upload could come; it must be more than 0"),
        (("--uploads", "-1"), "--uploads -1: no upload could come"),
        (("--upload_gib", "0"), "--upload_gib 0: no upload could come"),
        (("--upload_gib", "nan"), "--upload_gib nan: no upload could come"),
        (("--name", "http://proxy"), "--name http://proxy: it must be a name alone.*--name proxy.example"),
        (("--name", "proxy", "--name", "proxy:8000"), "--name proxy:8000: it must be a name alone"),
        (("--name", "proxy/label"), "--name proxy/label: it must be a name alone"),
        (("--name", ""), "--name : it must be a name alone"),
    ],
)
def test_words_under_which_nothing_would_be_answered_are_refused(start, tmp_path, capsys, words, match):
    with pytest.raises(start.StartError, match=match):
        start.check(given(start, tmp_path, *words))
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        assert start.main([str(tmp_path), "--studies", str(tmp_path), *words]) == 1
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers):
            signal.signal(number, handler)
    assert words[-2] in capsys.readouterr().err


def test_words_that_can_be_meant_pass(start, tmp_path):
    for words in ((), ("--uploads", "1", "--upload_gib", "0.5"), ("--name", "Proxy-1.ward.example", "--name", "::1")):
        start.check(given(start, tmp_path, *words))


def test_the_number_of_uploads_reaches_the_guard(start, tmp_path):
    told = start.settings(given(start, tmp_path, "--uploads", "2"), tmp_path)
    assert json.loads(told["LABEL_GUARD"])["uploads"] == 2
