"""A slot and a way to the server in memory, which tests can tell to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sealift.agent.ports import Answer
from sealift.core.errors import FailedTransferError
from tests.containers import SEGMENT

PIECE = 10_000


class CutError(BaseException):
    """The power is gone."""


class MemorySlot:
    """A slot whose unflushed writes are lost with the power."""

    def __init__(self, data: bytes) -> None:
        self.durable = bytearray(data)
        self.cached = bytearray(data)
        self.writes: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        return len(self.durable)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.cached[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= self.size
        self.writes.append((offset, len(data)))
        self.cached[offset : offset + len(data)] = data

    def flush(self) -> None:
        self.durable[:] = self.cached

    def drop_cache(self) -> None: ...

    def close(self) -> None: ...

    def lose_power(self) -> None:
        self.cached[:] = self.durable


@dataclass
class MemoryTransport:
    """One container over a network that can be told to lie, break and count."""

    raw: bytes
    tamper: Callable[[int, bytes], bytes] = lambda _at, piece: piece
    """What becomes of the bytes at a place of the container."""
    broken_at: list[int] = field(default_factory=list)
    """Places where the connection breaks, once each."""
    ranges: bool = True
    sent: int = 0
    asked: list[tuple[int, int]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def stream(
        self, path: str, *, start: int, stop: int, length: int, drop_max: int
    ) -> Iterator[bytes]:
        self.paths.append(path)
        self.asked.append((start, stop))
        if not self.ranges and start:
            if start > drop_max:
                raise FailedTransferError("no ranges here", drop=start)
            self.sent += start
        for at in range(start, stop, PIECE):
            piece = self.raw[at : min(stop, at + PIECE)]
            if any(at <= place < at + len(piece) for place in self.broken_at):
                self.broken_at = [
                    p for p in self.broken_at if not at <= p < at + len(piece)
                ]
                raise FailedTransferError("the connection broke")
            self.sent += len(piece)
            yield self.tamper(at, piece)

    def get(self, path: str, *, limit: int, etag: str | None = None) -> Answer:
        raise AssertionError(path)

    def put(self, path: str, body: bytes, *, limit: int) -> bytes:
        raise AssertionError(path)


def only_verified(slot: MemorySlot, image: bytes) -> None:
    """Each segment of the slot is the image's, or was never written."""
    for offset in range(0, len(image), SEGMENT):
        want = image[offset : offset + SEGMENT]
        assert slot.cached[offset : offset + len(want)] in (want, b"\xee" * len(want))


class Doors:
    """Counts every step that touches the world and cuts the power at one of them."""

    def __init__(self, cut: int) -> None:
        self.steps = 0
        self.cut = cut

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.cut:
            raise CutError


class CutSlot(MemorySlot):
    doors: Doors

    def write(self, offset: int, data: bytes) -> None:
        self.doors.step()
        super().write(offset, data)
        self.doors.step()

    def flush(self) -> None:
        self.doors.step()
        super().flush()
        self.doors.step()


def one_byte_wrong(place: int, times: int) -> Callable[[int, bytes], bytes]:
    """How a server's bytes are changed: one of a file, so many times."""
    left = [times]

    def tamper(at: int, piece: bytes) -> bytes:
        if at <= place < at + len(piece) and left[0]:
            left[0] -= 1
            inside = place - at
            return piece[:inside] + bytes([piece[inside] ^ 1]) + piece[inside + 1 :]
        return piece

    return tamper
