"""Making a delta: covers are found, segments made, a container written.

:func:`make_delta` does it all in this process, in bounded memory and without a clock;
``process`` runs it fenced in, and checks the result with the decoder that devices have.
The same images, quality, memory and versions of engine and liblzma give the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from sealift.core.container import Op, segment_count
from sealift.core.errors import DeltaCancelledError
from sealift.core.packer import ContainerWriter
from sealift.core.types import SEGMENT_SIZE
from sealift.payload.delta.engine import hdiffpatch_covers
from sealift.payload.delta.match import Strategy, match
from sealift.payload.delta.quality import Quality
from sealift.payload.delta.segments import SegmentMaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sealift.core.packer import Made, Packed
    from sealift.payload.delta.covers import Engine
    from sealift.payload.delta.match import Tick
    from sealift.payload.images import Image

__all__ = ["Limits", "Quality", "Report", "make_delta"]

MEMORY: Final = 4 << 30
"""Bytes a delta may take where nobody says otherwise."""
SECONDS: Final = 3600
"""Wall-clock seconds, likewise; CPU may be twice that, for two threads."""
OVERHEAD: Final = 192 << 20
"""Bytes of the limit that matching leaves to the interpreter, libraries and threads."""
DROP_PERCENT: Final = 80
"""A delta of so much of the full container is thrown away (``payload.md`` 1.8)."""
_BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """What making one delta may take: bytes of memory, seconds of time."""

    memory: int = MEMORY
    seconds: float = SECONDS


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it. ``kinds`` counts segments and their frame bytes by kind.

    ``cpu_seconds`` and ``memory`` (peak, bytes) are what a process of its own took to
    make and to check it; zero where it was made in this one.
    """

    packed: Packed
    strategy: Strategy
    kinds: dict[Op, tuple[int, int]]
    cpu_seconds: float = 0.0
    memory: int = 0

    def worth(self, full_length: int) -> bool:
        """Whether devices are better off with it than with the full container."""
        return self.packed.length * 100 < full_length * DROP_PERCENT


class Apply(Protocol):
    """``map`` itself, or that of a pool of threads."""

    def __call__(
        self, function: Callable[[int], Made], items: Iterable[int], /
    ) -> Iterable[Made]:
        """The results of ``function``, in the order of ``items``."""
        ...


def make_delta(
    base: Image,
    new: Image,
    *,
    out: BinaryIO,
    spool: BinaryIO,
    limits: Limits | None = None,
    quality: Quality = Quality.BALANCED,
    segment_size: int = SEGMENT_SIZE,
    engine: Engine = hdiffpatch_covers,
    apply: Apply = map,
    progress: Tick = lambda _step, _done, _total: None,
    cancel: Callable[[], bool] = lambda: False,
) -> Report:
    """Write the container that turns ``base`` into ``new`` to ``out``.

    ``spool`` is empty, for reading and writing. ``segment_size`` is that of the
    artifact. ``progress(step, done, total)`` counts bytes in the steps "reading" (both
    images), "matching" and "packing"; ``cancel`` is asked where progress is told.
    ``limits.memory`` chooses the strategy; time and the hard limit on memory are for
    whoever runs this in a process of its own.

    Raises:
        DeltaError: cancelled, too little memory, or the engine failed.
        LengthError: an image holds fewer bytes than it said.
        LimitError: an image, or its segments, beyond the format.
    """
    limits = limits or Limits()

    def tick(step: str, done: int, total: int) -> None:
        if cancel():
            raise DeltaCancelledError("delta: cancelled", step=step)
        progress(step, done, total)

    found = match(base, new, engine, limits.memory - OVERHEAD, tick)
    writer = ContainerWriter(
        new.length,
        segment_size,
        spool=spool,
        out=out,
        base=(base.length, found.base_sha256),
    )
    maker = SegmentMaker(
        base,
        new,
        found.covers,
        segment_size=segment_size,
        quality=quality,
        spare=found.strategy is not Strategy.WHOLE,
    )
    count = segment_count(new.length, segment_size)
    kinds = _write(writer, _made(maker, count, apply), new.length, tick)
    return Report(writer.finish(found.new_sha256), found.strategy, kinds)


def _write(
    writer: ContainerWriter, segments: Iterable[Made], total: int, tick: Tick
) -> dict[Op, tuple[int, int]]:
    """Add all segments; how many of each kind there are, and their frame bytes."""
    kinds = dict.fromkeys(Op, (0, 0))
    done = 0
    for made in segments:
        writer.add(made)
        count, size = kinds[made.op]
        kinds[made.op] = count + 1, size + len(made.frame)
        done += made.length
        tick("packing", done, total)
    return kinds


def _made(maker: SegmentMaker, count: int, apply: Apply) -> Iterator[Made]:
    """All segments in order; an eager ``apply`` holds a few of them at a time."""
    indexes = iter(range(count))
    while batch := list(islice(indexes, _BATCH)):
        yield from apply(maker.make, batch)
