"""Studies on a scheduler elsewhere: certificates, scheduler and workers by the commands of docs/predicting.md."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from pretended_lines import Lines, until

from common.checks import InputError
from common.cli.cluster.chunks import run_chunks
from common.cli.cluster.worker import log_file
from common.cli.gathering import finished_cases

pytest.importorskip("distributed")
pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")


@pytest.fixture(scope="module")
def commands(repository):
    """The blocks of commands in the section on several machines: keys, scheduler, worker, study."""
    text = (repository / "docs" / "predicting.md").read_text(encoding="utf-8").partition("### Several machines")[2]
    return re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def keys(commands, tmp_path_factory):
    """Makes folders of keys, each of an authority of its own."""

    def make(name):
        place = tmp_path_factory.mktemp(name)
        subprocess.run(["bash", "-ec", commands[0]], cwd=place, check=True, capture_output=True)
        return place / "keys"

    return make


@pytest.fixture(scope="module")
def scheduler(commands, keys, repository):
    """Address and keys of a scheduler with two workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder = keys("ours")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(repository)}
    started = []
    with open(folder.parent / "log.txt", "w") as log:
        for command, count in ((commands[1], 1), (commands[2], 2)):
            line = "exec env " + command.replace("8786", port).replace("HOST", "127.0.0.1")
            for _ in range(count):
                started.append(
                    subprocess.Popen(["bash", "-c", line], cwd=folder.parent, env=environment, stdout=log, stderr=log)
                )
    try:
        until(lambda: (folder.parent / "log.txt").read_text().count("Registered to") == 2)
        yield f"tls://127.0.0.1:{port}", folder, started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


def test_certificates_are_what_strict_readers_want(keys):
    folder = keys("strict")
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(folder / "ca.pem"), str(folder / "cert.pem")]
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert (folder / "key.pem").stat().st_mode & 0o077 == 0 == (folder / "ca.key").stat().st_mode & 0o077


def answer(port):
    """What a port says to a reader of pages."""
    with socket.create_connection(("127.0.0.1", port)) as plain, contextlib.suppress(ConnectionError):
        plain.settimeout(5)
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return plain.recv(1000)
    return b""


def test_pages_of_scheduler_and_workers_are_for_their_own_machine(scheduler):
    for process in scheduler[2]:
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for connection in (one for member in tree for one in member.net_connections()):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.ip not in ("127.0.0.1", "::1"):
                assert b"HTTP" not in answer(connection.laddr.port)


def test_a_worker_elsewhere_may_be_killed(scheduler, tmp_path, capsys):
    go = tmp_path / "go"
    lines = Lines(tmp_path, {"a": "x", "b": f"wait {go}", "c": "x", "d": "x"})
    address, folder, _ = scheduler
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_chunks, lines.chunks(3, 1), lines, lines.place, None, address, folder)
        try:
            begun = until(lambda: lines.begun("part_1.1"))
            until(lambda: finished_cases(lines.place / "part_1.1") == {"a"})
            os.kill(begun["pid"], signal.SIGKILL)
            until(lambda: not psutil.pid_exists(begun["line"]))  # else it may end its cases before its guard ends it
        finally:
            go.touch()
        results = future.result(60)
    assert sorted(name for one in results for part in one.folders for name in finished_cases(part)) == list("abcd")
    assert not any(result.failures for result in results)
    assert lines.asked == [["a", "b", "c"], ["d"], ["b", "c"]]
    assert "its worker was lost; 2 cases are begun anew" in capsys.readouterr().out
    assert " gpu 0\n" in log_file(results[1].folders[0]).read_text()


def test_another_authority_is_refused(scheduler, keys, tmp_path, monkeypatch):
    monkeypatch.setattr("common.cli.cluster.connect._CONNECT", 3.0)
    lines = Lines(tmp_path, {"a": "x"})
    with pytest.raises(InputError, match=r"was not reached \(.*\): it must run there, and take the certificate"):
        run_chunks(lines.chunks(1), lines, lines.place, None, scheduler[0], keys("theirs"))
    assert lines.asked == []


def test_no_certificate_is_refused(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr("common.cli.cluster.connect._CONNECT", 3.0)
    lines = Lines(tmp_path, {"a": "x"})
    with pytest.raises(InputError, match="was not reached"):
        run_chunks(lines.chunks(1), lines, lines.place, None, scheduler[0].replace("tls", "tcp"))


def test_other_versions_are_refused(scheduler, tmp_path, monkeypatch):
    monkeypatch.setattr("common.cli.cluster.study.present_versions", lambda: {"volseg": "0", "torch": "1.0"})
    lines = Lines(tmp_path, {"a": "x"})
    address, folder, _ = scheduler
    with pytest.raises(InputError, match=r"has volseg .*, not volseg 0, torch 1\.0: .* install the same"):
        run_chunks(lines.chunks(1), lines, lines.place, None, address, folder)


def test_without_workers_the_study_ends_and_can_go_on(scheduler, tmp_path):
    lines = Lines(tmp_path, {"a": f"wait {tmp_path / 'never'}"})
    address, folder, started = scheduler
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_chunks, lines.chunks(1), lines, lines.place, None, address, folder, patience=2)
        until(lambda: lines.begun("part_1.1"))
        for process in started[1:]:
            process.terminate()
        with pytest.raises(InputError, match=r"there was no worker for 2 s: .* give the same line again"):
            future.result(60)
