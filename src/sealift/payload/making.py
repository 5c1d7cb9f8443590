"""A container made at the desk, full or delta, with the figures people want to see.

A delta is made behind the fence of ``process``; a full container needs none. Either
appears under its name whole or not at all.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sealift.core.container import Op, open_head
from sealift.payload.delta.make import DROP_PERCENT
from sealift.payload.draft import translated
from sealift.payload.facts import Facts, bare_artifact
from sealift.payload.fence.process import Job, Limits, Quality, Source, run
from sealift.payload.full import make_full
from sealift.payload.images import opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.core.packer import Packed

    Tell = Callable[[str, int, int], None]

__all__ = ["Limits", "Made", "Quality", "Request", "facts_of", "make_container"]


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted; full without ``base``."""

    new: Path
    base: Path | None
    out: Path
    limits: Limits
    quality: Quality


@dataclass(frozen=True, slots=True)
class Made:
    """What was made. ``kinds`` counts segments and their frame bytes by kind; memory is
    the peak of the largest process, in bytes; ``full_length`` is there to compare.
    """

    facts: Facts
    kinds: dict[Op, tuple[int, int]]
    cpu_seconds: float
    memory: int
    strategy: str | None = None
    full_length: int | None = None

    @property
    def kind(self) -> str:
        """Full or delta."""
        return "full" if self.facts.container.base_sha256 is None else "delta"

    @property
    def worth(self) -> bool:
        """Whether devices would get it, rather than the full container."""
        if self.full_length is None:
            return True
        return self.facts.container.length * 100 < self.full_length * DROP_PERCENT

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        found = {key: v for key, v in self.facts.to_json().items() if key != "schema"}
        return {
            **found,
            "kind": self.kind,
            "segments": {
                op.name.lower(): {"count": count, "frame_bytes": length}
                for op, (count, length) in self.kinds.items()
            },
            "strategy": self.strategy,
            "full_length": self.full_length,
            "worth": self.worth,
            "cpu_seconds": round(self.cpu_seconds, 2),
            "memory_bytes": self.memory,
        }


def facts_of(packed: Packed, name: str) -> Facts:
    """What is known of a container that was just written."""
    artifact = bare_artifact(
        packed.image_length,
        packed.image_sha256,
        packed.segment_size,
        packed.segment_root,
    )
    return Facts(artifact, packed.container(name))


def make_container(
    request: Request,
    *,
    compare: bool = True,
    keep: bool = True,
    tell: Tell = lambda *_: None,
) -> Made:
    """Make what is wanted; without ``keep`` it is thrown away again.

    ``compare`` packs the full container of a delta's image, too, to know its length.
    ``tell(step, done, total)`` counts bytes.

    Raises:
        DeltaError: no delta came of it. LimitError, LengthError: no image.
        InvalidConfigError, SpaceError: a file cannot be read or written.
    """
    place = request.out.parent
    try:
        with TemporaryDirectory(prefix=".payload-", dir=place) as name:
            draft = Path(name) / request.out.name
            made = _made(request, draft, tell)
            if keep:
                os.link(draft, request.out)
    except OSError as error:
        raise translated(request.out, error) from error
    if compare and request.base is not None:
        length = full_length(request.new, request.quality, tell)
        made = replace(made, full_length=length)
    return made


def _made(request: Request, draft: Path, tell: Tell) -> Made:
    if request.base is None:
        return _full(request, draft, tell)
    # The process works in a directory of its own.
    base, new = (Source(path.absolute()) for path in (request.base, request.new))
    job = Job(base, new, request.limits, request.quality)
    report = run(job, draft.absolute(), progress=tell)
    return Made(
        facts_of(report.packed, request.out.name),
        report.kinds,
        report.cpu_seconds,
        report.memory,
        report.strategy.value,
    )


def _full(request: Request, draft: Path, tell: Tell) -> Made:
    with opened(request.new) as image, draft.open("w+b") as out:
        found = make_full(
            image,
            out,
            draft.parent,
            quality=request.quality,
            progress=lambda done, total: tell("packing", done, total),
        )
        out.flush()
        facts = facts_of(found.packed, request.out.name)
        kinds = _kinds(draft, facts)
    return Made(facts, kinds, found.cpu_seconds, found.memory)


def _kinds(path: Path, facts: Facts) -> dict[Op, tuple[int, int]]:
    """Segments and frame bytes by kind, as the reader finds them."""
    counts, lengths = Counter[Op](), Counter[Op]()
    with opened(path) as file:
        head = open_head(file.read_at, facts.artifact, facts.container)
        for segment in head.segments():
            counts[segment.op] += 1
            lengths[segment.op] += segment.frame_length
    return {op: (counts[op], lengths[op]) for op in Op}


def full_length(new: Path, quality: Quality, tell: Tell) -> int:
    """Bytes of the full container of an image, which is not kept.

    Raises:
        LimitError, LengthError, InvalidConfigError: the image cannot be packed.
    """
    with opened(new) as image, Path(os.devnull).open("wb") as nowhere:
        found = make_full(
            image,
            nowhere,
            quality=quality,
            progress=lambda done, total: tell("packing to compare", done, total),
        )
    return found.packed.length
