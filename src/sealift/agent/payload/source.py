"""Head and frames from the network: few requests, no byte unpaid or unverified."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from sealift.core.errors import (
    DigestError,
    FailedTransferError,
    LengthError,
    UnsafeNameError,
)
from sealift.core.payload import check_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.payload.budget import Budget
    from sealift.agent.payload.plan import Plan
    from sealift.agent.ports import SlotDevice, Transport
    from sealift.core.container import Segment
    from sealift.core.payload import Frame
    from sealift.core.types import Container

_PIECE: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^-]{0,199}", re.ASCII)


class Source:
    """Head and frames of one container, as few requests as possible, each byte paid."""

    def __init__(
        self, transport: Transport, container: Container, budget: Budget
    ) -> None:
        self._transport = transport
        self._container = container
        self._budget = budget
        self._path = _path(container)
        self._ranges: Iterator[tuple[int, int]] = iter(())
        self._stream: Iterator[bytes] | None = None
        self._rest = b""
        self._at = 0
        self._stop = 0
        self._gained = False
        self._free = 0 if budget.limited else container.length
        self._drop_max = self._free

    def follow(self, plan: Plan) -> None:
        """From now on frames are asked for in the order of this plan."""
        self._ranges = plan.ranges()
        self._stop = 0

    def head(self, file: SlotDevice) -> None:
        """Fetch the head into its file; not verified."""
        self._budget.require(self._container.head_length)
        self._open(0, self._container.head_length)
        while self._at < self._container.head_length:
            offset = self._at
            file.write(offset, self._take(min(_PIECE, self._stop - offset)))
        self.close()
        file.flush()

    def frame(self, segment: Segment) -> Frame:
        """The verified frame of a segment.

        A frame that is not the signed one is fetched once more (A-19). A connection
        that breaks is replaced as long as each one brings at least one good frame.
        """
        wrong = False
        while True:
            try:
                found = check_frame(segment, self._fetch(segment))
            except DigestError:
                self.close()
                if wrong:
                    raise
                wrong = True
            except FailedTransferError as error:
                self.close()
                if not self._may_go_on(error):
                    raise
            else:
                self._gained = True
                return found

    def close(self) -> None:
        """Drop the connection if it is in the middle of something."""
        stream, self._stream = self._stream, None
        self._rest = b""
        if isinstance(stream, Generator):
            stream.close()

    def _may_go_on(self, error: FailedTransferError) -> bool:
        """Whether another connection is worth it; pays for bytes that must be dropped.

        Raises:
            RefusedError: there are not enough bytes left for that.
        """
        drop = error.fields.get("drop")
        if isinstance(drop, int):
            self._budget.require(drop + self._stop - self._at)
            self._budget.spend(drop)
            self._drop_max = drop
            return True
        gained, self._gained = self._gained, False
        return gained and not error.fields.get("retry_after")

    def _fetch(self, segment: Segment) -> bytes:
        while segment.frame_offset >= self._stop:
            self.close()
            self._at, self._stop = next(self._ranges)
        if self._stream is None:
            self._open(segment.frame_offset, self._stop)
        while self._at < segment.frame_offset:
            self._take(min(_PIECE, segment.frame_offset - self._at))
        return self._take(segment.frame_length)

    def _open(self, start: int, stop: int) -> None:
        self.close()
        self._budget.require(stop - start)
        self._at, self._stop = start, stop
        self._stream = self._transport.stream(
            self._path,
            start=start,
            stop=stop,
            length=self._container.length,
            drop_max=self._drop_max,
        )
        self._drop_max = self._free

    def _take(self, length: int) -> bytes:
        """Exactly the next ``length`` bytes of the stream."""
        pieces, want = [], length
        while want:
            piece = self._rest or self._receive()
            pieces.append(piece[:want])
            self._rest = piece[want:]
            want -= len(pieces[-1])
        self._at += length
        return b"".join(pieces)

    def _receive(self) -> bytes:
        """The next piece of the stream, paid for."""
        piece = next(self._stream or iter(()), b"")
        if not piece:
            raise LengthError("fewer bytes came than the signed length")
        self._budget.spend(len(piece))
        return piece


def _path(container: Container) -> str:
    """Where the server keeps a container, relative to its base address.

    Raises:
        UnsafeNameError: the name is more than a file name (C-06).
    """
    if not _NAME.fullmatch(container.name):
        raise UnsafeNameError("a container's name is not a plain file name")
    name = quote(container.name, safe="")
    return f"director/targets/{container.sha256.hex()}.{name}"
