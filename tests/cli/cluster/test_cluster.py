"""Studies in chunks on workers of this machine: killed workers, killing cases, faults of all cases, interrupts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from pretended_lines import Lines, until

from common.checks import InputError, WeightsError
from common.cli.cluster import chunks as chunks_module
from common.cli.cluster.chunks import run_chunks, split_cases
from common.cli.cluster.connect import check_cluster, connected, visible_gpus
from common.cli.cluster.worker import line_environment, log_file, present_versions, run_part
from common.cli.gathering import finished_cases

pytest.importorskip("distributed")


def done(results):
    """The names of all cases that are done."""
    return sorted(name for result in results for folder in result.folders for name in finished_cases(folder))


@pytest.fixture(scope="module")
def workers():
    """Two workers that several studies share, since they take seconds to start."""
    with connected(2, None, None) as client:
        yield client


@pytest.fixture
def here(workers, monkeypatch):
    """Studies run on these."""
    until(lambda: len(workers.nthreads()) == 2)
    monkeypatch.setattr(chunks_module, "connected", lambda *_: contextlib.nullcontext(workers))


def test_all_cases_are_run_and_what_failed_is_told(here, tmp_path, capsys):
    lines = Lines(tmp_path, {"a": "x", "b": "fail no good", "c": "x", "d": "x", "e": "x"})
    results = run_chunks(lines.chunks(2, 2, 1), lines, lines.place, workers=2)
    assert [[path.stem for path in result.cases] for result in results] == [["a", "b"], ["c", "d"], ["e"]]
    assert done(results) == ["a", "c", "d", "e"]
    assert [list(result.failures) for result in results] == [[{"case": "b.nii", "error": "no good"}], [], []]
    assert all(len(result.folders) == 1 and result.seconds > 0 for result in results)
    out = capsys.readouterr().out
    assert out.count("$ python ") == 3 and "5 of 5 cases" in out


def test_a_killed_worker_loses_no_case(tmp_path, capsys):
    go = tmp_path / "go"
    lines = Lines(tmp_path, {"a": "x", "b": f"wait {go}", "c": "x", "d": "x"})
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_chunks, lines.chunks(3, 1), lines, lines.place, workers=2)
        try:
            begun = until(lambda: lines.begun("part_1.1"))
            until(lambda: finished_cases(lines.place / "part_1.1") == {"a"})
            os.kill(begun["pid"], signal.SIGKILL)
            again = until(lambda: lines.begun("part_1.2"))
            until(lambda: not psutil.pid_exists(begun["line"]))  # its line has not outlived it
        finally:
            go.touch()
        results = future.result(60)
    assert again["pid"] != begun["pid"]
    assert lines.asked == [["a", "b", "c"], ["d"], ["b", "c"]]  # what was done is not done again
    assert done(results) == ["a", "b", "c", "d"]
    assert [result.failures for result in results] == [(), ()]
    assert "part 1 of 2: its worker was lost; 2 cases are begun anew, attempt 2" in capsys.readouterr().out


def test_the_only_worker_may_be_killed(tmp_path):
    go = tmp_path / "go"
    lines = Lines(tmp_path, {"a": f"wait {go}", "b": "x"})
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_chunks, lines.chunks(1, 1), lines, lines.place)
        os.kill(until(lambda: lines.begun("part_1.1"))["pid"], signal.SIGKILL)
        go.touch()
        results = future.result(60)
    assert done(results) == ["a", "b"] and not any(result.failures for result in results)


def test_a_case_that_ends_its_process_takes_no_other_with_it(here, tmp_path, capsys):
    lines = Lines(tmp_path, {"a": "x", "b": "die 99", "c": "x", "d": "x"})
    results = run_chunks(lines.chunks(4), lines, lines.place, workers=1, retries=1)
    assert sorted(lines.asked, key=len, reverse=True) == [["a", "b", "c", "d"], ["b", "c", "d"], ["b"], ["c"], ["d"]]
    assert done(results) == ["a", "c", "d"]
    (failure,) = results[0].failures
    assert failure["case"] == "b.nii"
    assert "'b.nii' was not done when its process was ended by signal 9: a case must fit" in failure["error"]
    out = capsys.readouterr().out
    assert "3 cases are begun anew, one by one" in out and "b.nii is given up" in out


def test_a_process_that_is_lost_once_is_begun_anew(here, tmp_path):
    lines = Lines(tmp_path, {"a": "die 1"})
    results = run_chunks(lines.chunks(1), lines, lines.place, workers=1)
    assert done(results) == ["a"] and len(results[0].folders) == 2 and results[0].failures == ()


def test_a_status_that_nothing_explains_ends_as_a_failure(here, tmp_path):
    lines = Lines(tmp_path, {"a": "exit"})
    (result,) = run_chunks(lines.chunks(1), lines, lines.place, workers=1, retries=0)
    assert "its process ended with status 3 (threads" in result.failures[0]["error"]


def test_what_all_cases_have_in_common_ends_the_study(here, tmp_path):
    never = f"wait {tmp_path / 'never'}"
    lines = Lines(tmp_path, {"a": "weights", "b": never, "c": never})
    with pytest.raises(WeightsError, match="^no weights are there$"):
        run_chunks(lines.chunks(1, 1, 1), lines, lines.place, workers=2)
    assert lines.asked == [["a"], ["b"]]
    until(lambda: not psutil.pid_exists(lines.begun("part_2.1")["line"]))


def test_an_interrupt_ends_the_lines(tmp_path):
    lines = Lines(tmp_path, {"a": f"wait {tmp_path / 'never'}"})

    def interrupt():
        begun.update(until(lambda: lines.begun("part_1.1")))
        os.kill(os.getpid(), signal.SIGTERM)

    begun = {}
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_chunks(lines.chunks(1), lines, lines.place, workers=1)
    thread.join()
    until(lambda: not psutil.pid_exists(begun["line"]) and not psutil.pid_exists(begun["pid"]))


def test_a_study_that_is_killed_leaves_no_process_behind(tmp_path, repository):
    lines = Lines(tmp_path, {"a": f"wait {tmp_path / 'never'}"})
    code = (
        "import sys; from pathlib import Path; from common.cli.cluster.chunks import run_chunks\n"
        "script, place, case = sys.argv[1:]\n"
        "run_chunks([[Path(case)]], lambda cases, folder: [sys.executable, script, str(folder), case], Path(place))"
    )
    words = [sys.executable, "-c", code, str(lines.script), str(lines.place), str(lines.cases[0])]
    process = subprocess.Popen(words, cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun = until(lambda: lines.begun("part_1.1"), 120)
    process.kill()
    process.wait()
    until(lambda: not psutil.pid_exists(begun["line"]) and not psutil.pid_exists(begun["pid"]))


def test_a_second_run_uses_other_folders(here, tmp_path):
    lines = Lines(tmp_path, {"a": "x"})
    (lines.place / "part_1.1").mkdir(parents=True)
    (result,) = run_chunks(lines.chunks(1), lines, lines.place, workers=1)
    assert result.folders == (lines.place / "part_1.2",)


def test_without_cases_nothing_is_run(here, tmp_path):
    lines = Lines(tmp_path, {})
    assert run_chunks([], lines, lines.place, workers=1) == []


def test_two_cases_of_one_name_are_refused(tmp_path):
    lines = Lines(tmp_path, {"a": "x"})
    with pytest.raises(InputError, match=r"two inputs are called 'a': .* rename one of them"):
        run_chunks([lines.cases, [tmp_path / "other" / "a.nii"]], lines, lines.place, workers=1)


def test_nothing_listens_but_on_this_machine(workers):
    found, us = workers.nthreads(), psutil.Process()
    assert len(found) == 2 and all(address.startswith("tls://127.0.0.1:") for address in found)
    found = [
        connection.laddr.ip
        for process in (us, *us.children(recursive=True))
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(found) >= 3 and set(found) == {"127.0.0.1"}


@pytest.mark.parametrize(("neighbours", "threads"), [(1, "8"), (3, "2"), (9, "1")])
def test_lines_share_the_cores_whatever_dask_sets_for_its_workers(monkeypatch, neighbours, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    presets = {"OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "65536"}
    found = line_environment({**presets, "HOME": "x"}, presets, neighbours)
    assert found == {"HOME": "x", "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}


def test_each_worker_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert visible_gpus() == ["3", "5"]
    assert visible_gpus("cpu") == []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    go = tmp_path / "go"
    lines = Lines(tmp_path, {"a": f"wait {go}", "b": f"wait {go}"})
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run_chunks, lines.chunks(1, 1), lines, lines.place, workers=2)
        until(lambda: lines.begun("part_1.1") and lines.begun("part_2.1"))
        go.touch()
        results = future.result(60)
    told = sorted(log_file(result.folders[0]).read_text().splitlines()[1] for result in results)
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert told == [f"threads {threads} gpu 3", f"threads {threads} gpu 5"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, None, None), "--workers is 0: it must be 1 or more"),
        ((2, "tls://there:8786", None), "--workers 2 and --scheduler tls://there:8786 were given"),
        ((1, None, None, "cuda:1"), "--device is 'cuda:1': each worker has a GPU of its own"),
        ((1, None, "keys"), "--tls was given without --scheduler"),
        ((None, "tcp://10.0.0.1:8786", None), "neither encrypted nor on this machine: .* by TLS alone"),
        ((None, "tcp://host.example:8786", None), "neither encrypted nor on this machine"),
        ((None, "http://127.0.0.1:8786", None), "it is the address of a Dask scheduler"),
        ((None, "127.0.0.1:8786", None), "it is the address of a Dask scheduler"),
        ((None, "tls://host:port", None), "it is the address of a Dask scheduler"),
        ((None, "tls://host:8786", None), "no --tls was given"),
        ((None, "tls://host:8786", "nowhere"), "'nowhere' holds no ca.pem"),
    ],
)
def test_what_no_study_could_run_on_is_refused(arguments, text):
    with pytest.raises(InputError, match=text):
        check_cluster(*arguments)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:8786", "tcp://localhost:8786", "tcp://[::1]:8786"])
def test_a_scheduler_on_this_machine_needs_no_tls(address):
    check_cluster(None, address, None)


def test_more_workers_than_gpus_are_refused(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_cluster(2, None, None)
    check_cluster(3, None, None, "cpu")
    with pytest.raises(InputError, match=r"--workers is 3: it must be 1 to 2, the GPUs that are here.*--device cpu"):
        check_cluster(3, None, None)


def test_a_key_that_others_may_read_is_refused(tmp_path):
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch(mode=0o644)
    with pytest.raises(InputError, match=r"others may read '.*key.pem': .* chmod 600"):
        check_cluster(None, "tls://host:8786", tmp_path)
    (tmp_path / "key.pem").chmod(0o600)
    check_cluster(None, "tls://host:8786", tmp_path)


@pytest.mark.parametrize(
    ("count", "workers", "sizes"), [(3, 2, [1, 1, 1]), (9, 1, [3, 3, 3]), (200, 1, [16] * 12 + [8])]
)
def test_cases_are_split_in_order(count, workers, sizes):
    cases = [Path(str(number)) for number in range(count)]
    chunks = split_cases(cases, workers)
    assert [len(chunk) for chunk in chunks] == sizes and sum(chunks, []) == cases


def job(tmp_path, **changed):
    """What a worker is handed over."""
    folder = tmp_path / "part_1.1"
    folder.mkdir()
    plain = {"command": ["true"], "python": "", "cwd": str(tmp_path), "folder": str(folder), "presets": {}}
    return {**plain, "stop": str(tmp_path / "stop"), "versions": present_versions(), "neighbours": 1, **changed}


@pytest.mark.parametrize("name", ["cwd", "folder"])
def test_a_worker_that_sees_no_shared_folder_says_so(tmp_path, name):
    told = run_part(job(tmp_path, **{name: "/not/here"}))
    assert told["state"] == "refused" and "does not find the folder '/not/here': all machines see" in told["error"]


def test_a_worker_of_other_versions_says_so(tmp_path):
    told = run_part(job(tmp_path, versions={**present_versions(), "torch": "1.0"}))
    assert told["state"] == "refused" and "torch 1.0, " in told["error"]


def test_a_part_is_taken_up_once(tmp_path):
    given = job(tmp_path)
    assert run_part(given) == {"state": "ended", "status": 0}
    assert set(json.loads((tmp_path / "part_1.1.begun").read_text())) == {"host", "pid"}
    assert run_part(given) == {"state": "again"}


def test_a_line_is_stopped_by_a_file(tmp_path):
    given = job(tmp_path, command=["sleep", "60"])
    (tmp_path / "stop").touch()
    assert run_part(given) == {"state": "stopped"}
