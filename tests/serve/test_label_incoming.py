"""What comes to MONAI Label, looked at before its body is there, and bodies that are JSON; without MONAI Label."""

from __future__ import annotations

import asyncio
import json

import pytest

HOSTS = ("scanner.example", "localhost")


@pytest.mark.parametrize(
    ("host", "origin", "match"),
    [
        ("elsewhere", "", "another host name.*use scanner.example"),
        ("127.0.0.1.elsewhere:8000", "", "another host name"),
        ("", "", "another host name"),
        ("[::1", "", "another host name"),
        ("[elsewhere]:8000", "", "another host name"),
        ("localhost:8000", "http://elsewhere", "web page of another server"),
        ("localhost:8000", "http://[::1", "web page of another server"),
        ("localhost:8000", "null", "web page of another server"),
    ],
)
def test_other_names_and_pages_are_refused(guard, refuses, host, origin, match):
    with refuses(403, match):
        guard.incoming.check_sender(host, origin, HOSTS, ("http://viewer",))


@pytest.mark.parametrize("host", ["localhost:8000", "SCANNER.example", "127.0.0.1:8000", "10.0.0.5", "[::1]:8000"])
def test_the_servers_own_are_answered(guard, host):
    for origin in ("", f"http://{host}", "http://viewer"):
        guard.incoming.check_sender(host, origin, HOSTS, ("http://viewer",))


def test_without_names_a_host_must_still_be_one(guard, refuses):
    guard.incoming.check_sender("anything:8000", "", (), ())
    with refuses(403, "another host name"):
        guard.incoming.check_sender("[::1", "", (), ())


def test_a_place_is_held_until_its_block_ends_or_it_is_left(guard, refuses):
    places = guard.incoming.Places(2)
    with places.one(), places.one() as leave:
        with refuses(503, "besides 2 others: 2 may come.*--uploads"), places.one():
            pass
        leave()  # what came holds no files
        leave()
        with places.one():
            assert places.taken == 2
        assert places.taken == 1
    assert places.taken == 0
    with pytest.raises(OSError, match="fell over"), places.one():
        raise OSError("fell over")
    assert places.taken == 0


def _body(guard, limit: int, *messages: dict) -> bytes:
    left = list(messages)

    async def receive() -> dict:
        if not left:
            await asyncio.sleep(60)
        return left.pop(0)

    async def whole() -> bytes:
        return b"".join([part async for part in guard.incoming.chunks(receive, limit)])

    return asyncio.run(whole())


def _part(content: bytes, more: bool) -> dict:
    return {"type": "http.request", "body": content, "more_body": more}


def test_a_body_comes_whole_in_time_and_within_its_limit(guard, refuses, monkeypatch):
    assert _body(guard, 4, _part(b"ab", True), _part(b"cd", False)) == b"abcd"
    with refuses(413, "a body may have no more"):
        _body(guard, 3, _part(b"ab", True), _part(b"cd", False))
    with refuses(400, "sender left"):
        _body(guard, 4, _part(b"ab", True), {"type": "http.disconnect"})
    monkeypatch.setattr(guard.incoming, "PATIENCE", 0.05)
    with refuses(408, "nothing more for 0.05 s: a body must be sent without long pauses.*send it again"):
        _body(guard, 4, _part(b"ab", True))


@pytest.mark.parametrize("parts", [('{"a":', "}"), ("[", "]")])
def test_json_that_is_too_deep_is_refused(guard, refuses, parts):
    assert guard.body.parsed(parts[0] * 64 + "1" + parts[1] * 64, "the body")
    for depth in (65, 500, 100_000):
        with refuses(422, "the body holds too many lists in each other: it may be 64 deep"):
            guard.body.parsed(parts[0] * depth + "1" + parts[1] * depth, "the body")


@pytest.mark.parametrize("text", ["1", '"a"', "null", "{}", "[]", '{"a": [1, {"b": 2}], "c": "[[["}'])
def test_json_is_told_as_it_is(guard, refuses, text):
    assert guard.body.parsed(text, "params") == json.loads(text)
    with refuses(400, "params is no JSON"):
        guard.body.parsed(text + "}", "params")
