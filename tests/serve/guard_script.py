"""The guard around a pretended application, run by the Python of MONAI Label's environment with the guard's folder."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, sys.argv[1])

from guard import asgi, incoming  # noqa: E402
from guard.rules import Rules  # noqa: E402


async def ask(
    guard, method: str, path: str, body: bytes = b"", parts: int = 1, stalls: bool = False, **headers: str
) -> tuple[int, dict, bytes]:
    """One request, its body in parts; returns status, headers and body of the answer."""
    size = -(-len(body) // parts) or 1
    left = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    sent = []

    async def receive():
        if not left:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left) or stalls}

    async def send(message):
        sent.append(message)

    told = {"host": "127.0.0.1:8000", **{key.replace("_", "-"): value for key, value in headers.items()}}
    pairs = [(key.encode(), value.encode()) for key, value in told.items()]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": pairs}
    await guard(scope, receive, send)
    heads = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], heads, b"".join(message.get("body", b"") for message in sent[1:])


async def answered(send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def whole(receive) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    return body


FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="Doe.nii"\r\n\r\n\x00\xff\r\n--b--\r\n'
KIND = {"content_type": "multipart/form-data; boundary=b"}


class Pretended:
    """An application that does as the address says."""

    def __init__(self) -> None:
        self.guard, self.places = None, []

    async def __call__(self, scope, receive, send) -> None:
        path = scope["path"]
        self.places.append(Path(tempfile.mkstemp()[1]))
        if path == "/echo":
            await answered(send, 200, await whole(receive))
        elif path == "/falls":
            raise OSError("/srv/secret")
        elif path == "/fails":
            await answered(send, 500, b'{"detail": "said so"}')
        elif path == "/within":  # as a connection that is kept alive does it
            assert (await ask(self.guard, "GET", "/none"))[0] == 204
            await answered(send, 200, b"")
        elif path == "/besides":  # what comes while an upload is there
            status, _, body = await ask(self.guard, "POST", "/echo", FORM, **KIND)
            assert status == 503 and {"detail", "came", "remedy"} <= json.loads(body).keys(), (status, body)
            assert "--uploads" in json.loads(body)["remedy"] and len(self.places) == 1  # nothing was taken in
            assert (await ask(self.guard, "POST", "/echo", b"{}", content_type="application/json"))[0] == 200
            await answered(send, 200, b"")
        elif path == "/asks":  # what comes while a form without files is answered
            assert (await ask(self.guard, "POST", "/echo", FORM, **KIND))[0] == 200
            await answered(send, 200, b"")
        elif path == "/train":
            await answered(send, 200, dict(scope["headers"])[b"content-length"] + b" " + await whole(receive))
        else:
            await answered(send, 204, b"")


async def mend_or_refuse(guard) -> None:
    """Bodies that stall, are too deep, or are handed on otherwise than they came."""
    incoming.PATIENCE = 0.2
    for _ in range(2):  # nor does one that stalls keep its place
        status, _, body = await ask(guard, "POST", "/echo", FORM[:40], stalls=True, **KIND)
        assert status == 408 and {"detail", "came", "rule", "remedy"} <= json.loads(body).keys(), (status, body)
    assert (await ask(guard, "POST", "/echo", FORM, **KIND))[0] == 200

    sent = b'{"run_id": "", "max_epochs": 2}'
    kind = {"content_type": "application/json", "content_length": str(len(sent))}
    status, _, body = await ask(guard, "POST", "/train", sent, **kind)
    assert (status, body) == (200, b'17 {"max_epochs": 2}'), (status, body)
    for deep in (b'{"a":' * 5000 + b"1" + b"}" * 5000, b'{"a":' * 65 + b"1" + b"}" * 65):
        status, _, body = await ask(guard, "POST", "/train", deep, content_type="application/json")
        assert status == 422 and b"64 deep" in body, (status, body[:200])


async def main() -> None:
    tempfile.gettempdir = asgi._tempdir
    base, app = Path(asgi._usual_tempdir()), Pretended()
    rules = Rules(lambda: SimpleNamespace(_trainers={}), 1000)
    app.guard = guard = asgi.Guard(app, rules, ("scanner.example",), ("http://viewer",), uploads=1)

    status, _, body = await ask(guard, "POST", "/echo", b'{"a": 1}', parts=3, content_type="application/json")
    assert (status, body) == (200, b'{"a": 1}'), (status, body)
    status, _, body = await ask(guard, "POST", "/echo", FORM, parts=7, **KIND)
    assert status == 200 and b"\r\n\r\n\x00\xff\r\n--" in body and b'name="file"' in body, body
    status, _, body = await ask(guard, "POST", "/echo", FORM + bytes(2000), **KIND)
    assert status == 413 and json.loads(body)["rule"] == "a body may have no more", body
    status, _, body = await ask(guard, "POST", "/echo", b"--other", **KIND)
    assert 400 <= status < 500 or body.startswith(b"--"), (status, body)
    status, _, body = await ask(guard, "POST", "/echo", b"{", content_type="application/json")
    assert status == 400 and b"no JSON" in body
    for headers in ({"content_type": "application/problem+json"}, {}):
        status, _, body = await ask(guard, "POST", "/echo", b'{"image": "../a"}', **headers)
        assert status == 400 and b"holds a path" in body, (headers, body)
    kind = {"content_type": "application/x-www-form-urlencoded"}
    status, _, body = await ask(guard, "POST", "/echo", b'a=1;params={"image":"../a"}', **kind)
    assert status == 200 and b'name="a"' in body and b'name="params"' not in body, body

    status, heads, body = await ask(guard, "GET", "/falls", origin="http://viewer")
    assert status == 500 and b"OSError" in body and b"secret" not in body
    assert heads["access-control-allow-origin"] == "http://viewer"
    status, _, body = await ask(guard, "GET", "/fails")
    assert status == 500 and json.loads(body)["came"] == "said so"
    for headers in (
        {"host": "elsewhere"},
        {"host": "127.0.0.1.elsewhere:8000"},
        {"host": "[::1"},
        {"origin": "http://elsewhere"},
        {"origin": "http://[::1"},
    ):
        status, _, body = await ask(guard, "GET", "/none", **headers)
        assert status == 403 and b"start" in body, (headers, body)
    for host in ("127.0.0.1:8000", "10.0.0.5", "[::1]:8000", "SCANNER.example:8000"):
        assert (await ask(guard, "GET", "/none", host=host))[0] == 204, host
    assert (await ask(guard, "GET", "/none", origin="http://127.0.0.1:8000"))[0] == 204

    for _ in range(2):  # the place is free again after each
        app.places.clear()
        assert (await ask(guard, "POST", "/besides", FORM, **KIND))[0] == 200
    text = b'--b\r\nContent-Disposition: form-data; name="params"\r\n\r\n{}\r\n--b--\r\n'
    assert (await ask(guard, "POST", "/asks", text, **KIND))[0] == 200

    await mend_or_refuse(guard)

    app.places.clear()
    assert (await ask(guard, "GET", "/within"))[0] == 200
    assert len(app.places) == 2 and all(place.parent.parent == base for place in app.places), app.places
    assert not any(place.parent.exists() for place in app.places)
    assert not list(base.glob("request_*"))
    print("guarded")


asyncio.run(main())
