"""Bring one image into a slot: look, then fetch what is wrong, verify, write, flush.

The order never changes (payload format, section 4): metadata is complete before this
begins; the head is fetched whole and verified before it is parsed; each frame is
hashed, then decoded, then the segment is hashed, and only then written.

There is no record of how far an install came. The slot is hashed against the signed
list of segments first, and what is right already is neither fetched nor written,
whatever wrote it. So a cut anywhere costs time, and on the network no more than one
segment size of frames: that many bytes are at most on their way between socket and
medium. What survives in the workspace (the head, the bytes spent) is a convenience.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from hashlib import sha256
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

from sealift.agent.ports import Progress
from sealift.core.container import Head, Segment, check_bounds, open_head
from sealift.core.errors import (
    DigestError,
    FailedTransferError,
    LengthError,
    RefusedError,
    SpaceError,
    TransportError,
    UnsafeNameError,
)
from sealift.core.payload import check_frame, open_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.ports import SlotDevice, Transport, Workspace
    from sealift.core.types import Container, Instruction

__all__ = ["PayloadFill"]

GAP_MAX: Final = 256 * 1024
"""Unwanted bytes between two frames that are received rather than asked around."""

_IN_FLIGHT: Final = 4
"""Segments between socket and medium at most, for the sake of memory."""

_HEAD_FILE: Final = "payload.head"
_SPENT_FILE: Final = "payload.spent"
_PIECE: Final = 64 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^-]{0,199}", re.ASCII)


class PayloadFill:
    """:class:`~sealift.agent.ports.Fill` for one instruction.

    ``bytes_max`` is this device's own cap on the body bytes of one install (``None``:
    none); that of the instruction holds as well. ``decoders`` is how many threads
    decode; memory is bounded whatever the image.

    This version knows full containers; a delta that is offered is not used.
    """

    def __init__(
        self,
        order: Instruction,
        transport: Transport,
        work: Workspace,
        *,
        progress: Progress | None = None,
        bytes_max: int | None = None,
        decoders: int = 2,
    ) -> None:
        self._order = order
        self._transport = transport
        self._work = work
        self._progress = progress or Progress()
        self._bytes_max = _least(bytes_max, order.bytes_max)
        self._decoders = decoders

    def __call__(self, into: SlotDevice, base: SlotDevice | None, /) -> None:
        """Have every segment of the image in ``into``, verified and flushed.

        Raises:
            SpaceError: the slot is smaller than the image. SlotError: from the slot.
            DigestError, LengthError, ContainerError, PatchError, LimitError: the bytes
            are not the signed ones, twice in a row where that may be the network's
            fault. UnsafeNameError: the container's name.
            RefusedError: more bytes would be needed than allowed (``reason`` is
            ``budget``): known before anything is written, unless the network's
            mistakes cost the rest of the budget.
            TransportError, NotFoundError, AuthRequiredError, RevokedError: as named.
        """
        del base
        artifact, container = self._order.artifact, self._order.full
        check_bounds(artifact, container)
        if into.size < artifact.length:
            raise SpaceError("the slot is smaller than the image", size=into.size)
        budget = _Budget(self._work, self._order, self._bytes_max)
        source = _Source(self._transport, container, budget)
        file = self._work.open(_HEAD_FILE, container.head_length)
        try:
            head = self._head(file, source)
            plan = _plan(head, into, self._progress)
            budget.require(plan.cost)
            source.follow(plan)
            self._fill(plan, source, into)
        finally:
            source.close()
            budget.close()
            file.close()
        self._work.remove(_HEAD_FILE)
        self._work.remove(_SPENT_FILE)

    def _head(self, file: SlotDevice, source: _Source) -> Head:
        """The verified head: the one kept from an earlier attempt, or fetched."""
        artifact, container = self._order.artifact, self._order.full
        for _ in range(2):
            try:
                return open_head(file.read, artifact, container)
            except DigestError:
                source.head(file)
        return open_head(file.read, artifact, container)

    def _fill(self, plan: _Plan, source: _Source, into: SlotDevice) -> None:
        done = 0
        with _Decoders(self._decoders) as decoders:
            line = _Line(decoders, into, plan.head.header.segment_size)
            for segment in plan.wrong():
                if segment.framed:
                    line.make_room(segment.frame_length)
                    line.add(segment, _fetched(source, segment, line))
                else:
                    into.write(segment.offset, open_frame(segment, b""))
                done += segment.length
                self._progress.report("install", done, plan.length)
            line.drain()
        into.flush()


def _fetched(source: _Source, segment: Segment, line: _Line) -> bytes:
    """The frame; if the network fails, what came before is written first."""
    try:
        return source.frame(segment)
    except TransportError:
        line.drain()
        raise


# ── what is there, what is wrong ─────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class _Plan:
    """Which segments are wrong, one bit each, and what they cost on the network."""

    head: Head
    bits: bytes
    length: int
    cost: int

    def wrong(self) -> Iterator[Segment]:
        """The segments to be written, in order."""
        for segment in self.head.segments():
            if self.bits[segment.index >> 3] >> (segment.index & 7) & 1:
                yield segment

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The ranges of the container that hold their frames, small gaps included."""
        return _ranges(self.wrong())


def _plan(head: Head, into: SlotDevice, progress: Progress) -> _Plan:
    """Hash what is in the slot and compare; reads only."""
    bits = bytearray(-(-head.header.count // 8))
    length = 0
    for segment in head.segments():
        found = into.read(segment.offset, segment.length)
        if sha256(found).digest() != segment.sha256:
            bits[segment.index >> 3] |= 1 << (segment.index & 7)
            length += segment.length
        progress.report(
            "check", segment.offset + segment.length, head.header.image_length
        )
    plan = _Plan(head, bytes(bits), length, 0)
    cost = sum(stop - start for start, stop in plan.ranges())
    return _Plan(head, bytes(bits), length, cost)


def _ranges(segments: Iterator[Segment]) -> Iterator[tuple[int, int]]:
    start = stop = 0
    for segment in segments:
        if not segment.framed:
            continue
        if stop and segment.frame_offset - stop > GAP_MAX:
            yield start, stop
            stop = 0
        if not stop:
            start = segment.frame_offset
        stop = segment.frame_offset + segment.frame_length
    if stop:
        yield start, stop


# ── from the network ─────────────────────────────────────────────────────────────────
class _Source:
    """Head and frames of one container, as few requests as possible, each byte paid."""

    def __init__(
        self, transport: Transport, container: Container, budget: _Budget
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

    def follow(self, plan: _Plan) -> None:
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

    def frame(self, segment: Segment) -> bytes:
        """The verified frame of a segment.

        A frame that is not the signed one is fetched once more (A-19). A connection
        that breaks is replaced as long as each one brings at least one good frame.
        """
        wrong = False
        while True:
            try:
                found = self._fetch(segment)
                check_frame(segment, found)
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
        pieces, have = [self._rest], len(self._rest)
        while have < length:
            piece = next(self._stream or iter(()), b"")
            if not piece:
                raise LengthError("fewer bytes came than the signed length")
            self._budget.spend(len(piece))
            pieces.append(piece)
            have += len(piece)
        found = b"".join(pieces)
        self._rest = found[length:]
        self._at += length
        return found[:length]


def _path(container: Container) -> str:
    """Where the server keeps a container, relative to its base address.

    Raises:
        UnsafeNameError: the name is more than a file name (C-06).
    """
    if not _NAME.fullmatch(container.name):
        raise UnsafeNameError("a container's name is not a plain file name")
    name = quote(container.name, safe="")
    return f"director/targets/{container.sha256.hex()}.{name}"


class _Budget:
    """Body bytes of this install, over restarts, against what is allowed.

    The count is kept in a file without forcing it to the medium at each step: losing
    power may forget what was spent in the last seconds.
    """

    def __init__(self, work: Workspace, order: Instruction, most: int | None) -> None:
        self._most = most
        self._spent = 0
        self._file: SlotDevice | None = None
        self._key = sha256(
            order.full.sha256 + (order.deployment or "").encode()
        ).digest()
        if most is not None:
            self._file = work.open(_SPENT_FILE, len(self._key) + 8)
            kept = self._file.read(0, self._file.size)
            if kept.startswith(self._key):
                self._spent = int.from_bytes(kept[len(self._key) :], "little")

    def require(self, length: int) -> None:
        """Refuse what would need more bytes than are left (product rules, 5.8).

        Raises:
            RefusedError: with the figures, and ``budget`` as reason.
        """
        if self._most is not None and self._spent + length > self._most:
            raise RefusedError(
                f"the install needs {length} more bytes, "
                f"{max(0, self._most - self._spent)} are left of {self._most}",
                hint="allow more bytes for this installation, or wait for a delta",
                reason="budget",
                needed=length,
                spent=self._spent,
                bytes_max=self._most,
            )

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self._most is not None

    def spend(self, length: int) -> None:
        """These bytes came."""
        self._spent += length
        if self._file is not None:
            self._file.write(0, self._key + self._spent.to_bytes(8, "little"))

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


# ── from the frame to the medium ─────────────────────────────────────────────────────
class _Job:
    """One frame on its way to becoming a segment."""

    def __init__(self, segment: Segment, frame: bytes) -> None:
        self.segment = segment
        self.frame = frame
        self._result: SimpleQueue[bytes | BaseException] = SimpleQueue()

    def run(self) -> None:
        """Verify, decode, verify."""
        try:
            self._result.put(open_frame(self.segment, self.frame))
        except BaseException as error:  # noqa: BLE001
            self._result.put(error)

    @property
    def ready(self) -> bool:
        """Whether :meth:`plain` would not wait."""
        return not self._result.empty()

    def plain(self) -> bytes:
        """The verified bytes of the segment; may be asked for once."""
        found = self._result.get()
        if isinstance(found, BaseException):
            raise found
        return found


class _Decoders:
    """Threads that decode; LZMA and SHA-256 run outside the interpreter's lock."""

    def __init__(self, count: int) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work) for _ in range(count)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _thread in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def start(self, job: _Job) -> None:
        """Have it done by whichever thread is free."""
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()


class _Line:
    """Segments between socket and medium: few, and few bytes of network in them."""

    def __init__(self, decoders: _Decoders, into: SlotDevice, most: int) -> None:
        self._decoders = decoders
        self._into = into
        self._most = most
        self._jobs: deque[_Job] = deque()
        self._bytes = 0

    def make_room(self, frame_length: int) -> None:
        """Have so much written and flushed that another frame may be fetched."""
        while self._jobs and (
            self._bytes + frame_length > self._most or len(self._jobs) >= _IN_FLIGHT
        ):
            self._settle()

    def add(self, segment: Segment, frame: bytes) -> None:
        """Take in one more."""
        job = _Job(segment, frame)
        self._jobs.append(job)
        self._bytes += segment.frame_length
        self._decoders.start(job)

    def drain(self) -> None:
        """Have all of them written and flushed."""
        while self._jobs:
            self._settle()

    def _settle(self) -> None:
        """Write the oldest and those already decoded behind it; one flush for all."""
        while True:
            job = self._jobs.popleft()
            self._into.write(job.segment.offset, job.plain())
            self._bytes -= job.segment.frame_length
            if not self._jobs or not self._jobs[0].ready:
                break
        self._into.flush()
