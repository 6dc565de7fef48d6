"""MONAI Label behind a guard: ``monailabel start_server --uvicorn_app guard.asgi:app``.

The server itself is as it came. The guard is the ASGI application around it: it looks at what a request brings before
the server does, gives each request a private folder for its temporary files, which goes with it, and turns what the
server falls over into an answer that says what came, what the rule is and what to do.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from contextlib import nullcontext
from contextvars import ContextVar
from pathlib import Path

from starlette.datastructures import Headers

from . import forms
from .incoming import Places, check_sender
from .refused import Refused, explained
from .rules import Rules

logger = logging.getLogger("guard")
SETTINGS, UPLOADS = "LABEL_GUARD", 4

_FOLDER: ContextVar[str | None] = ContextVar("folder of the request", default=None)
_usual_tempdir = tempfile.gettempdir


def _tempdir() -> str:
    return _FOLDER.get() or _usual_tempdir()


class Guard:
    """The ASGI application around another.

    Args:
        app: what is guarded.
        rules: what requests must be like.
        hosts: names by which the server may be addressed, besides addresses of numbers; empty for all.
        origins: web pages of other servers that may use this one.
        uploads: forms with files that may be there at the same time.
    """

    def __init__(
        self, app, rules: Rules, hosts: tuple[str, ...] = (), origins: tuple[str, ...] = (), uploads: int = UPLOADS
    ) -> None:
        self.app, self.rules, self.hosts, self.origins = app, rules, hosts, origins
        self._places = Places(uploads)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send, Headers(scope=scope).get("origin", "") if self.origins else "")
        try:
            await self._answered(scope, receive, answer)
            await answer.end()
        except Refused as refused:
            logger.warning("%s %s: %s (%s)", scope["method"], _route(scope), refused.status, refused.parts["rule"])
            await answer.refuse(refused)
        except Exception as error:
            if answer.began:
                raise
            refused = explained(error)
            told = "see below" if refused.status == 500 else refused.parts["rule"]
            trace = refused.status == 500
            logger.warning("%s %s: %s (%s)", scope["method"], _route(scope), refused.status, told, exc_info=trace)
            await answer.refuse(refused)

    async def _answered(self, scope, receive, answer: _Answer) -> None:
        """Let the server answer, in a folder that is gone before an error is told."""
        # the next request on a connection may start in the context of the one before, whose folder is going
        place, headers = _usual_tempdir(), Headers(scope=scope)
        check_sender(headers.get("host", ""), headers.get("origin", ""), self.hosts, self.origins)
        is_form = headers.get("content-type", "").lower().startswith("multipart/")
        with (
            self._places.one() if is_form else nullcontext(lambda: None) as leave,
            tempfile.TemporaryDirectory(prefix="request_", dir=place, ignore_cleanup_errors=True) as folder,
        ):
            token = _FOLDER.set(folder)
            try:
                scope, receive, holds_files = await self._looked_at(scope, receive, Path(folder))
                if not holds_files:  # viewers send every question as a form
                    leave()
                await self.app(scope, receive, answer)
            finally:
                _FOLDER.reset(token)

    async def _looked_at(self, scope, receive, folder: Path):
        """The scope and the receiver with which the server goes on, and whether files came."""
        method, path, query = scope["method"], scope["path"], scope.get("query_string", b"").decode("latin-1")
        self.rules.before_body(method, path, query)
        if method not in ("POST", "PUT", "PATCH"):
            return scope, receive, False
        body = await forms.read(Headers(scope=scope), receive, folder, self.rules.limit)
        anew = await asyncio.to_thread(self.rules.apply, method, path, query, body, folder)
        if not anew and not body.raw and body.fields:
            anew = True
        if not anew:
            return _with_body(scope, len(body.raw)), forms.replayed(body, None, receive), False
        written, kind = await asyncio.to_thread(forms.written, body, folder)
        scope = _with_body(scope, written.stat().st_size, kind)
        return scope, forms.replayed(body, written, receive), bool(body.files)


def _with_body(scope, length: int, kind: str = ""):
    """The scope with the headers of the body that is handed on, which may be another than what came."""
    changed = {b"content-length": str(length).encode()} | ({b"content-type": kind.encode()} if kind else {})
    kept = [pair for pair in scope["headers"] if pair[0] not in (*changed, b"transfer-encoding")]
    return {**scope, "headers": [*kept, *changed.items()]}


def _route(scope) -> str:
    """The first parts of an address, which name nobody's data."""
    return "/".join(scope["path"].split("/")[:3])


class _Answer:
    """ASGI's `send`, which holds an error of the server back until it can be told better.

    Args:
        send: ASGI's.
        origin: the web page that asks, where it may be of another server.
    """

    def __init__(self, send, origin: str) -> None:
        self._send, self._origin, self._held, self.began = send, origin, None, False

    async def __call__(self, message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 500:
            self._held = b""
        elif self._held is not None:
            self._held += message.get("body", b"")
        else:
            self.began = True
            await self._send(message)

    async def end(self) -> None:
        """Send what was held back and was no exception."""
        if self._held is not None:
            try:
                detail = str(json.loads(self._held)["detail"])
            except (ValueError, KeyError, TypeError):
                detail = "the server failed"
            await self.refuse(Refused(500, detail, "its log has the reason", "ask who runs it"))

    async def refuse(self, refused: Refused) -> None:
        body = refused.body()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if self._origin:  # else its browser would keep the reason from it
            headers.append((b"access-control-allow-origin", self._origin.encode()))
        await self._send({"type": "http.response.start", "status": refused.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def guarded() -> Guard:
    """MONAI Label's application, guarded as the environment says."""
    from monailabel.app import app as label
    from monailabel.interfaces.utils.app import app_instance

    # the server asks for temporary names in many places, and leaves them behind when it fails
    tempfile.gettempdir = _tempdir
    settings = json.loads(os.environ.get(SETTINGS, "{}"))
    rules = Rules(app_instance, int(settings.get("upload_gib", 4) * 2**30))
    hosts, origins = (tuple(settings.get(name, ())) for name in ("hosts", "origins"))
    return Guard(label, rules, hosts, origins, int(settings.get("uploads", UPLOADS)))


def __getattr__(name: str):
    # made when uvicorn asks for it, so that importing this module needs no server
    if name == "app":
        globals()["app"] = guarded()
        return globals()["app"]
    raise AttributeError(name)
