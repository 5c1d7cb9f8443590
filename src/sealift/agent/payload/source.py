"""Head and frames of one container, verified; what is wrong is asked for once more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sealift.agent.payload.plan import wire_bytes
from sealift.agent.payload.stream import Stream
from sealift.core.container import open_head
from sealift.core.errors import DecryptError, DigestError, FailedTransferError
from sealift.core.payload import check_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.payload.box import Box, Reader
    from sealift.agent.payload.plan import Plan
    from sealift.agent.ports import SlotDevice
    from sealift.core.container import Head, Segment
    from sealift.core.payload import Frame
    from sealift.core.types import Artifact

_PIECE: Final = 64 * 1024


class Source:
    """One container: its head through ``file``, then frames in the order of a plan.

    ``file`` is a work file of :func:`head_length` bytes. It holds what came, sealed if
    it was, and survives restarts; it is verified before each use.
    """

    def __init__(self, box: Box, stream: Stream, file: SlotDevice) -> None:
        self._box = box
        self._stream = stream
        self._file = file
        self._reader: Reader | None = None
        self._ranges: Iterator[tuple[int, int]] = iter(())
        self._at = self._stop = 0
        self._begun = False
        self._gained = False

    # ── head ─────────────────────────────────────────────────────────────────────────
    def head(self, artifact: Artifact) -> Head:
        """The verified head: the one kept from an earlier attempt, or fetched.

        Raises:
            DigestError, DecryptError: it is not the signed one, twice in a row.
            ContainerError, LimitError: signed, and yet no head of this image.
            RefusedError, TransportError, NotFoundError, LengthError: not fetched.
        """
        for _ in range(2):
            try:
                return self._verified(artifact)
            except (DigestError, DecryptError):
                self._fetch_head()
        return self._verified(artifact)

    def _verified(self, artifact: Artifact) -> Head:
        return open_head(self._box.head(self._file), artifact, self._box.plain)

    def _fetch_head(self) -> None:
        stream, stop = self._stream, head_length(self._box)
        stream.open(0, stop)
        while stream.at < stop:
            offset = stream.at
            self._file.write(offset, stream.take(min(_PIECE, stop - offset)))
        stream.close()
        self._file.flush()

    # ── frames ───────────────────────────────────────────────────────────────────────
    def cost(self, plan: Plan) -> int:
        """Body bytes that the frames of a plan take."""
        return wire_bytes(plan, self._box.wire, head_length(self._box))

    def follow(self, plan: Plan) -> None:
        """From now on frames are asked for in the order of this plan."""
        self._reader = self._box.reader(self._stream)
        self._ranges = plan.ranges()
        self._stop = 0

    def frame(self, segment: Segment) -> Frame:
        """The verified frame of a segment; segments without one have an empty one.

        A frame that is not the signed one, or does not open, is fetched once more
        (A-19). A connection that breaks is replaced as long as each one brings at least
        one good frame.

        Raises:
            DigestError, DecryptError: wrong twice. TransportError, NotFoundError,
            LengthError, RefusedError: it did not come.
        """
        wrong = False
        while True:
            try:
                found = check_frame(segment, self._fetch(segment))
            except (DigestError, DecryptError):
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
        self._stream.close()
        self._begun = False

    def _may_go_on(self, error: FailedTransferError) -> bool:
        """Whether another connection is worth it.

        Raises:
            RefusedError: bytes would have to be dropped, more than there are left.
        """
        if self._stream.may_drop(error):
            return True
        gained, self._gained = self._gained, False
        return gained and not error.fields.get("retry_after")

    def _fetch(self, segment: Segment) -> bytes:
        if not segment.framed:
            return b""
        while segment.frame_offset >= self._stop:
            self.close()
            self._at, self._stop = next(self._ranges)
        reader = self._reader
        assert reader is not None, "a plan is followed first"  # noqa: S101
        if not self._begun:
            self._at = segment.frame_offset
            reader.open(self._at, self._stop)
            self._begun = True
        while self._at < segment.frame_offset:
            gap = min(_PIECE, segment.frame_offset - self._at)
            reader.take(gap)
            self._at += gap
        found = reader.take(segment.frame_length)
        self._at += segment.frame_length
        return found


def head_length(box: Box) -> int:
    """Bytes of the file that hold its head, from the first on."""
    return box.wire(0, box.plain.head_length)[1]
