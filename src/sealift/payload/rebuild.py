"""Make an image of a container and its base, with the decoder that devices have.

What is there already and right is kept, so a run that was stopped goes on where it was;
what a modified base spoils is taken from the full container (``payload.md`` 1.6, 1.7).
The caller opens files and gives the finished one its name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Protocol

from sealift.core.container import Op, open_head
from sealift.core.delta import Base
from sealift.core.errors import DigestError, PatchError
from sealift.core.payload import check_frame, open_frame
from sealift.payload.facts import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sealift.core.container import ReadAt, Segment
    from sealift.core.payload import Frame
    from sealift.core.types import Artifact
    from sealift.payload.facts import Facts
    from sealift.payload.images import Image

    Progress = Callable[[str, int, int], None]

_FROM_BASE: Final = frozenset({Op.COPY, Op.DELTA})


class Target(Protocol):
    """The image that is to be: what is written so far, zeros where nothing is."""

    def read_at(self, offset: int, length: int) -> bytes:
        """These bytes, fewer only where it ends."""
        ...

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of ``data``; the segments come in order."""
        ...

    def sha256(self, tick: Callable[[int], None]) -> bytes:
        """The digest of the whole; ``tick`` counts the bytes that were read back."""
        ...


@dataclass(frozen=True, slots=True)
class Source:
    """A container that can be read, and what is known of it."""

    read_at: ReadAt
    facts: Facts

    def segments(self) -> Iterable[Segment]:
        """Its segments, after its head was verified.

        Raises:
            PayloadError, FormatError: it is not the one of the facts.
        """
        facts = self.facts
        return open_head(self.read_at, facts.artifact, facts.container).segments()

    def frame(self, segment: Segment) -> Frame:
        """The frame of one segment, empty where it has none.

        Raises:
            LengthError, DigestError: it is not the one of the head.
        """
        raw = b""
        if segment.framed:
            raw = self.read_at(segment.frame_offset, segment.frame_length)
        return check_frame(segment, raw)


@dataclass(frozen=True, slots=True)
class Origin:
    """What lies where the base should be; ``pristine`` if it is the recorded bytes."""

    base: Base
    pristine: bool


@dataclass(slots=True)
class Rebuilt:
    """What was done: segments by how they came about, and bytes that healing took."""

    kept: int = 0
    made: int = 0
    repaired: int = 0
    repair_bytes: int = 0


def rebuild(
    source: Source,
    origin: Origin | None,
    target: Target,
    full: Source | None = None,
    progress: Progress = lambda *_: None,
) -> Rebuilt:
    """Fill ``target`` with the image of ``source`` and read it back.

    ``origin`` comes from :func:`check_base`; a full container needs none. ``full`` is
    the full container of the same image; it heals what a modified base spoils.
    ``progress(step, done, total)`` counts bytes in "building" and "verifying".

    Raises:
        DigestError, PatchError: the container is wrong, or the base is not the one it
            was made for and there is no ``full``.
        PayloadError, FormatError: a head is not the one of the facts.
    """
    artifact = source.facts.artifact
    healer = _Healer(full, artifact) if full is not None else None
    done = Rebuilt()
    for segment in source.segments():
        _fill(segment, source, origin, target, healer, done)
        progress("building", segment.offset + segment.length, artifact.length)
    digest = target.sha256(lambda n: progress("verifying", n, artifact.length))
    if digest != artifact.sha256:
        raise DigestError("the image that was built is not the one of the container")
    return done


def _fill(
    segment: Segment,
    source: Source,
    origin: Origin | None,
    target: Target,
    healer: _Healer | None,
    done: Rebuilt,
) -> None:
    found = target.read_at(segment.offset, segment.length)
    if len(found) == segment.length and sha256(found).digest() == segment.sha256:
        done.kept += 1
        return
    frame = source.frame(segment)
    try:
        plain = open_frame(frame, origin.base if origin else None)
        done.made += 1
    except (DigestError, PatchError) as error:
        if segment.op not in _FROM_BASE or origin is None or origin.pristine:
            raise  # nobody but the container is to blame
        if healer is None:
            raise _spoiled(segment, error) from error
        plain = healer.plain(segment)
        done.repaired += 1
        done.repair_bytes += healer.cost(segment)
    target.write_at(segment.offset, plain)


def _spoiled(segment: Segment, error: DigestError | PatchError) -> DigestError:
    index = segment.index
    return DigestError(
        f"segment {index} does not come out of a modified base: {error.message}",
        hint="--full FULL takes such segments from the full container",
        segment=index,
    )


class _Healer:
    """Segments of the full container, by number."""

    def __init__(self, full: Source, artifact: Artifact) -> None:
        if full.facts.container.base_sha256 is not None:
            raise PatchError("the container to repair from is a delta, not a full one")
        if full.facts.artifact.segment_root != artifact.segment_root:
            raise DigestError("the container to repair from is of another image")
        # Against the wanted image, so that number and lengths of segments are its own.
        self._full = replace(full, facts=replace(full.facts, artifact=artifact))
        self._segments = tuple(self._full.segments())

    def plain(self, segment: Segment) -> bytes:
        """That segment."""
        return open_frame(self._full.frame(self._segments[segment.index]))

    def cost(self, segment: Segment) -> int:
        """Bytes a device would fetch for it."""
        return self._segments[segment.index].frame_length


def check_base(
    image: Image, facts: Facts, progress: Progress = lambda *_: None
) -> Origin:
    """The base out of what lies there, compared with what the delta was made from.

    It may be longer, as a partition is. One that was modified still serves where a full
    container is at hand to heal from.

    Raises:
        PatchError: it is shorter than the base was.
    """
    container = facts.container
    length = container.base_length
    if image.length < length:
        raise PatchError(
            f"the base has {image.length} bytes, the delta starts from {length}",
            hint="it is another image, or cut short",
        )
    progress("reading the base", 0, length)
    digest = digest_of(image.read_at, length)
    progress("reading the base", length, length)
    return Origin(Base(image.read_at, length), digest == container.base_sha256)
