"""How a release of the simulation travels other than plain and whole."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING

from sealift.core.encryption import SALT
from sealift.payload.delta.make import make_delta
from sealift.payload.sealing import seal_container

if TYPE_CHECKING:
    from sealift.core.types import Container
    from sealift.sim.vendor import Release

__all__ = ["Memory", "delta_from", "sealed"]


class Memory:
    """An image in memory, as makers of deltas read it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def read_at(self, offset: int, length: int) -> bytes:
        """Those bytes, fewer only at the end."""
        return self._content[offset : offset + length]


def sealed(release: Release) -> Release:
    """The release with its container encrypted, under a key of its own."""
    key = hashlib.sha256(b"content key" + release.artifact.sha256).digest()
    out = io.BytesIO()
    container = seal_container(
        release.container,
        io.BytesIO(release.packed),
        out,
        image_sha256=release.artifact.sha256,
        content_key=key,
        salt=hashlib.shake_256(b"salt" + key).digest(SALT),
    )
    return replace(release, container=container, packed=out.getvalue(), content_key=key)


def delta_from(base: Release, new: Release) -> tuple[Container, bytes]:
    """The plain delta that leads from one release to the other, and its bytes."""
    out = io.BytesIO()
    made = make_delta(
        Memory(base.content),
        Memory(new.content),
        out=out,
        spool=io.BytesIO(),
        segment_size=new.artifact.segment_size,
    )
    name = f"{new.artifact.sha256.hex()}-{base.artifact.sha256.hex()}.delta"
    return made.packed.container(name), out.getvalue()
