"""Sealift's desk in `benchmarks.delta`: one step per process, files in and files out.

    python -m benchmarks._delta_ours full IMAGE OUT
    python -m benchmarks._delta_ours delta OLD NEW OUT QUALITY
    python -m benchmarks._delta_ours seal CONTAINER
    python -m benchmarks._delta_ours decode CONTAINER OLD

What metadata would say of OUT goes beside it, as `OUT.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sealift.core.container import open_head
from sealift.core.delta import Base
from sealift.core.packer import Packed, pack_full
from sealift.core.payload import check_frame, open_frame
from sealift.core.types import Artifact, Container
from sealift.payload.delta.make import make_delta
from sealift.payload.delta.quality import Quality
from sealift.payload.images import opened
from sealift.payload.sealing import seal_container

KEY = bytes(range(32))
"""The content key of everything here: nobody keeps these files."""
HARDWARE = "benchmark"


def full(image: str, out: str) -> None:
    """The full container of an image."""
    with opened(Path(image)) as source, _files(out) as (spool, target):
        packed = pack_full(
            source.read_at, source.length, spool=spool, out=target, preset=9
        )
    _tell(out, packed, {})


def delta(old: str, new: str, out: str, quality: str) -> None:
    """The delta between two images."""
    with (
        opened(Path(old)) as base,
        opened(Path(new)) as image,
        _files(out) as (spool, target),
    ):
        report = make_delta(
            base, image, out=target, spool=spool, quality=Quality(quality)
        )
    kinds = {op.name: list(counts) for op, counts in report.kinds.items()}
    _tell(out, report.packed, {"strategy": report.strategy.value, "kinds": kinds})


def seal(container: str) -> None:
    """A container sealed, beside it."""
    artifact, plain = facts(Path(container))
    out = Path(f"{container}.sealed")
    with open(container, "rb") as source, out.open("wb") as target:
        sealed = seal_container(
            plain,
            source,
            target,
            image_sha256=artifact.sha256,
            content_key=KEY,
            salt=plain.sha256[:24],
        )
    told = {"artifact": artifact.to_json(), "container": sealed.to_json()}
    _beside(str(out)).write_text(json.dumps(told), "utf-8")


def decode(container: str, old: str) -> None:
    """Decode every frame and write nothing: the decoder without an agent."""
    artifact, plain = facts(Path(container))
    with opened(Path(container)) as file, opened(Path(old)) as image:
        base = Base(image.read_at, image.length) if plain.base_sha256 else None
        for segment in open_head(file.read_at, artifact, plain).segments():
            raw = file.read_at(segment.frame_offset, segment.frame_length)
            open_frame(check_frame(segment, raw), base)


def facts(container: Path) -> tuple[Artifact, Container]:
    """What metadata would say of a container made here."""
    told = json.loads(_beside(str(container)).read_bytes())
    return (
        Artifact.from_json(told["artifact"]),
        Container.from_json(told["container"]),
    )


def _tell(out: str, packed: Packed, more: dict[str, object]) -> None:
    artifact = Artifact(
        name=f"{HARDWARE}/image",
        length=packed.image_length,
        sha256=packed.image_sha256,
        sha512=None,
        segment_size=packed.segment_size,
        segment_root=packed.segment_root,
        hardware_ids=(HARDWARE,),
        release_counter=1,
        version="1",
    )
    container = packed.container(Path(out).name)
    told = {"artifact": artifact.to_json(), "container": container.to_json(), **more}
    _beside(out).write_text(json.dumps(told), "utf-8")


def _beside(out: str) -> Path:
    return Path(f"{out}.json")


@contextmanager
def _files(out: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """An empty spool, and the file to write."""
    spool = Path(f"{out}.spool")
    with spool.open("w+b") as frames, open(out, "wb") as target:
        yield frames, target
    spool.unlink()


STEPS: dict[str, Callable[..., None]] = {
    "full": full,
    "delta": delta,
    "seal": seal,
    "decode": decode,
}

if __name__ == "__main__":
    STEPS[sys.argv[1]](*sys.argv[2:])
