"""Bodies of requests: read once, looked at, written anew under neutral names, and handed on."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs

from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from .body import Body, parsed
from .incoming import chunks
from .refused import Refused

TEXT, FILES = 16 << 20, 20_000


async def read(headers: Headers, receive, folder: Path, limit: int) -> Body:
    """Take a request's body in, its files to disk.

    Args:
        headers: of the request.
        receive: ASGI's.
        folder: where files go.
        limit: bytes that the body may have.

    Raises:
        Refused: when it is larger, or not what its content type says.
    """
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _multipart(headers, chunks(receive, limit), folder)
    raw = b"".join([part async for part in chunks(receive, TEXT)])
    if kind == "application/x-www-form-urlencoded":
        # written anew from what was found here, since the server's own parser parts fields elsewhere, too
        found = parse_qs(raw.decode("utf-8", "replace"))
        return Body(fields=[(key, value) for key, values in found.items() for value in values])
    body = Body(raw)
    if raw and (not kind or kind.endswith("json")):  # application/problem+json, for one, is JSON to the server
        body.json = parsed(raw, "the body")
    return body


async def _multipart(headers: Headers, stream: AsyncIterator[bytes], folder: Path) -> Body:
    parser = MultiPartParser(headers, stream, max_files=FILES, max_fields=1000, max_part_size=TEXT)
    try:
        form = await parser.parse()
    except (MultiPartException, MultipartParseError, KeyError) as error:
        raise Refused(
            400, f"the form can not be read ({error})", "it must be multipart/form-data", "send it again"
        ) from None
    body = Body()
    for number, (name, value) in enumerate(form.multi_items()):
        if isinstance(value, str):
            body.fields.append((name, value))
            continue
        path = folder / f"upload_{number:06d}"
        with open(path, "wb") as target:
            while part := await value.read(1 << 20):
                target.write(part)
        body.files.append((name, value.filename or "", path))
    await form.close()
    return body


def written(body: Body, folder: Path) -> tuple[Path, str]:
    """Write a form anew.

    Returns:
        the file of the new body, and its content type.
    """
    boundary, path = uuid.uuid4().hex, folder / "body"
    with open(path, "wb") as target:
        for name, value in body.fields:
            target.write(_head(boundary, name) + value.encode() + b"\r\n")
        for name, filename, source in body.files:
            target.write(_head(boundary, name, filename))
            with open(source, "rb") as stream:
                while part := stream.read(1 << 20):
                    target.write(part)
            target.write(b"\r\n")
        target.write(f"--{boundary}--\r\n".encode())
    return path, f"multipart/form-data; boundary={boundary}"


def _head(boundary: str, name: str, filename: str | None = None) -> bytes:
    told = f'form-data; name="{_quoted(name)}"'
    kind = ""
    if filename is not None:
        told += f'; filename="{_quoted(filename)}"'
        kind = "Content-Type: application/octet-stream\r\n"
    return f"--{boundary}\r\nContent-Disposition: {told}\r\n{kind}\r\n".encode()


def _quoted(text: str) -> str:
    return text.replace("\\", "").replace('"', "%22").replace("\r", "").replace("\n", "")


def replayed(body: Body, path: Path | None, receive):
    """ASGI's `receive` that gives a body again, and then what `receive` gives."""
    stream = open(path, "rb") if path is not None else None
    state = {"left": True}

    async def again() -> dict:
        if not state["left"]:
            return await receive()
        part = stream.read(1 << 20) if stream is not None else body.raw
        state["left"] = bool(stream is not None and part)
        if stream is not None and not part:
            stream.close()
        return {"type": "http.request", "body": part, "more_body": state["left"]}

    return again
