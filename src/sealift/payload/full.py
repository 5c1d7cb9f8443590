"""Full containers at the desk: packed by threads, measured, and as a yardstick only."""

from __future__ import annotations

import lzma
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Final

from sealift.core.packer import pack_full
from sealift.payload.delta.quality import Quality

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sealift.core.packer import MapFunction, Packed
    from sealift.payload.images import Image

PRESETS: Final = {
    Quality.QUICK: 2,
    Quality.BALANCED: 6,
    Quality.BEST: 9 | lzma.PRESET_EXTREME,
}
"""What LZMA is told to do for a full container."""


@dataclass(frozen=True, slots=True)
class Full:
    """A full container that was packed; ``memory`` is the peak of this process."""

    packed: Packed
    cpu_seconds: float
    memory: int


def make_full(
    image: Image,
    out: BinaryIO,
    scratch: Path | None = None,
    *,
    quality: Quality = Quality.BALANCED,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Full:
    """Write the full container of ``image`` to ``out``; ``scratch`` takes its frames.

    Raises:
        LimitError, LengthError: as ``pack_full``. OSError: no room.
    """
    began = time.process_time()
    with TemporaryFile(dir=scratch) as spool, _threads() as apply:
        packed = pack_full(
            image.read_at,
            image.length,
            spool=spool,
            out=out,
            preset=PRESETS[quality],
            apply=apply,
            progress=progress,
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Full(packed, time.process_time() - began, peak)


@contextmanager
def _threads() -> Iterator[MapFunction]:
    """LZMA works outside the interpreter's lock, so threads are enough."""
    count = len(os.sched_getaffinity(0))
    if count == 1:
        yield map
        return
    pool = ThreadPoolExecutor(count)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
