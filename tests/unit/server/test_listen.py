"""The listeners' sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sealift.core.errors import InvalidConfigError
from sealift.server.listen import bind


def test_answers_do_not_wait_for_a_late_ack() -> None:
    """Nagle's algorithm is off on every connection: it cost 40 ms an answer."""
    found: list[int] = []

    async def served() -> None:
        ended = asyncio.Event()

        async def answer(_: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
            connection = out.get_extra_info("socket")
            found.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            out.close()
            ended.set()

        listening = bind("127.0.0.1", 0)
        async with await asyncio.start_server(answer, sock=listening):
            _, out = await asyncio.open_connection(*listening.getsockname())
            await ended.wait()
            out.close()

    asyncio.run(served())
    assert found == [1]


def test_an_address_that_is_taken_is_named() -> None:
    """And the hint says what to do."""
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(InvalidConfigError, match=str(port)):
            bind("127.0.0.1", port)
