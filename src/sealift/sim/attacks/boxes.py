"""Containers as a thief of the Director's keys makes them: hostile, with true facts.

The Director says how long a container is and which digests it has, so whoever holds its
keys gets any bytes past those checks. What stands behind them is the parser, and the
digests under the offline keys. :func:`ordered` is that thief.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from sealift.core.container import Header, Segment, encode_head, open_head
from sealift.sim.attacks.world import DEVICE

if TYPE_CHECKING:
    from sealift.repo.director import Order
    from sealift.sim.attacks.world import Plan, Scene
    from sealift.sim.vendor import Release

__all__ = ["Box", "ordered", "told"]


@dataclass(frozen=True, slots=True)
class Box:
    """A container taken apart, so that one part of it can be made wrong.

    ``tail`` are entries after the last one; ``said`` is the head length the Director
    names, ``None`` for the true one.
    """

    release: Release
    header: Header
    segments: tuple[Segment, ...]
    frames: tuple[bytes, ...]
    tail: bytes = b""
    said: int | None = None

    @classmethod
    def of(cls, release: Release) -> Box:
        """The honest container of a release."""
        raw = release.packed
        head = open_head(
            lambda at, n: raw[at : at + n], release.artifact, release.container
        )
        segments = tuple(head.segments())
        frames = tuple(
            raw[it.frame_offset : it.frame_offset + it.frame_length] for it in segments
        )
        return cls(release, head.header, segments, frames)

    @property
    def head(self) -> bytes:
        """The head as it would be written."""
        return encode_head(self.header, self.segments) + self.tail

    def close(self) -> Release:
        """The release with this container, as the Director would describe it."""
        head = self.head
        return told(self.release, head + b"".join(self.frames), self.said or len(head))

    def fitted(self) -> Box:
        """The same with a header that counts lengths as they are."""
        header = replace(
            self.header,
            head_length=len(self.head),
            frames_length=sum(map(len, self.frames)),
        )
        return replace(self, header=header)

    def framed(self, index: int, frame: bytes) -> Box:
        """The same with another frame, whose digest its entry names."""
        segment = replace(
            self.segments[index],
            frame_length=len(frame),
            frame_sha256=sha256(frame).digest(),
        )
        segments = (*self.segments[:index], segment, *self.segments[index + 1 :])
        frames = (*self.frames[:index], frame, *self.frames[index + 1 :])
        return replace(self, segments=segments, frames=frames).fitted()


def told(release: Release, raw: bytes, head_length: int) -> Release:
    """The release in a container of these bytes, with true facts about them."""
    container = replace(
        release.container,
        length=len(raw),
        sha256=sha256(raw).digest(),
        head_length=head_length,
        head_sha256=sha256(raw[:head_length]).digest(),
    )
    return replace(release, container=container, packed=raw)


def ordered(made: Release, *, order: Order | None = None) -> Plan:
    """The stolen Director orders it, then the honest one speaks again."""

    def act(scene: Scene) -> str:
        honest = scene.vendor.orders[DEVICE]
        scene.vendor.containers[made.path] = made.packed
        scene.order(order or made.order(scene.device.ecu_id))
        outcome = scene.attempt()
        if outcome.startswith(("payload.", "format.")):
            scene.require_unusable()
        scene.order(*honest)
        return outcome

    return act
