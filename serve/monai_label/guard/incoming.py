"""What can be told before a body is there: who sends it, how many others do, how fast and how much comes."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from .refused import Refused

PATIENCE = 60.0  # seconds in which the next part of a body must come


def check_sender(host: str, origin: str, hosts: Sequence[str], origins: Sequence[str]) -> None:
    """Keep web pages of other servers out, which a browser on this machine would let through.

    Such a page may make its own name lead to this machine, but it can not choose the address of numbers.

    Args:
        host: the header.
        origin: the header, empty without one.
        hosts: names by which the server may be addressed, besides addresses of numbers; empty for all.
        origins: web pages of other servers that may use this one.

    Raises:
        Refused: for another name or page.
    """
    name, page = (_parted(address) for address in (f"//{host}", origin))
    if name is None or (hosts and (name.hostname or "") not in hosts and not _is_numbers(name.hostname or "")):
        remedy = f"use {hosts[0] if hosts else 'its address'}, or start the server with --name NAME"
        raise Refused(403, "another host name", "it must be one of the server's", remedy)
    if origin and (page is None or page.netloc != host) and origin not in origins:
        raise Refused(403, "a web page of another server", "it must be allowed", "start with --origin ADDRESS")


def _parted(address: str):
    try:
        return urlsplit(address)
    except ValueError:  # as for http://[::1
        return None


def _is_numbers(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


class Places:
    """As many places for forms as the disk was reckoned for.

    Args:
        most: how many there are.
    """

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    @contextmanager
    def one(self) -> Iterator[Callable[[], None]]:
        """Hold a place until the block ends, or until what is given is called.

        Raises:
            Refused: when all are taken.
        """
        if self.taken >= self.most:
            came, rule = f"an upload besides {self.taken} others", f"{self.most} may come at the same time"
            raise Refused(503, came, rule, "send it again in a while, or start the server with a larger --uploads")
        held = [True]
        self.taken += 1

        def leave() -> None:
            if held:
                held.clear()
                self.taken -= 1

        try:
            yield leave
        finally:
            leave()


async def chunks(receive, limit: int) -> AsyncIterator[bytes]:
    """The parts of a body, and an empty one at its end.

    Args:
        receive: ASGI's.
        limit: bytes that the body may have.

    Raises:
        Refused: when it is larger, or its sender leaves or stalls.
    """
    count, more = 0, True
    while more:
        try:
            message = await asyncio.wait_for(receive(), PATIENCE)
        except asyncio.TimeoutError:
            came, rule = f"nothing more for {PATIENCE:g} s", "a body must be sent without long pauses"
            raise Refused(408, came, rule, "send it again") from None
        if message["type"] != "http.request":
            raise Refused(400, "the sender left", "a body must be sent whole", "send it again")
        part, more = message.get("body", b""), message.get("more_body", False)
        count += len(part)
        if count > limit:
            raise Refused(
                413,
                f"more than {limit / 2**20:.0f} MiB",
                "a body may have no more",
                "send less, or start the server with a larger --upload_gib",
            )
        if part:
            yield part
    yield b""
