"""What a process of its own is told to do, and what it tells: as JSON.

A job names files; content keys are in it, so it travels by standard input only and
never as an argument, in the environment or in a file. ``repr`` does not show them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sealift.core.container import Op
from sealift.core.errors import RefusedError
from sealift.core.packer import Packed
from sealift.core.types import SEGMENT_SIZE, Artifact, Container
from sealift.payload.delta.make import Limits, Quality, Report
from sealift.payload.delta.match import Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


THREADS: Final = 2
"""Segments that are compressed at a time: CPU seconds per second at most."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image: a file or block device as it is, or a full container of it.

    A container comes with its signed facts, a sealed one with its content key too.
    """

    path: Path
    artifact: Artifact | None = None
    container: Container | None = None
    content_key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if (self.artifact is None) is not (self.container is None):
            raise ValueError("a container has both facts, an image none")

    def to_json(self) -> dict[str, object]:
        """The source as JSON values, key included."""
        found: dict[str, object] = {"path": str(self.path)}
        if self.artifact is not None and self.container is not None:
            found["artifact"] = self.artifact.to_json()
            found["container"] = self.container.to_json()
        if self.content_key is not None:
            found["content_key"] = self.content_key.hex()
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Source:
        """Read what :meth:`to_json` wrote; it never left our own processes."""
        full, key = "container" in found, found.get("content_key")
        return cls(
            Path(found["path"]),
            Artifact.from_json(found["artifact"]) if full else None,
            Container.from_json(found["container"]) if full else None,
            None if key is None else bytes.fromhex(key),
        )


@dataclass(frozen=True, slots=True)
class SealWith:
    """The content key of the new image, and 24 random bytes never used before."""

    content_key: bytes = field(repr=False)
    salt: bytes

    def to_json(self) -> dict[str, object]:
        """As JSON values."""
        return {"content_key": self.content_key.hex(), "salt": self.salt.hex()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> SealWith:
        """Read what :meth:`to_json` wrote."""
        return cls(bytes.fromhex(found["content_key"]), bytes.fromhex(found["salt"]))


@dataclass(frozen=True, slots=True)
class Job:
    """One delta to be made."""

    base: Source
    new: Source
    limits: Limits = field(default_factory=Limits)
    quality: Quality = Quality.BALANCED
    segment_size: int = SEGMENT_SIZE
    seal: SealWith | None = None

    def check(self) -> None:
        """Refuse what would show a sealed image to those without its key.

        Raises:
            RefusedError: an image is sealed and its delta would not be.
        """
        sealed = self.base.content_key or self.new.content_key
        if sealed and self.seal is None:
            raise RefusedError(
                "a delta of sealed images would be plain",
                hint="seal it with the content key of the new image",
            )

    def to_json(self) -> dict[str, object]:
        """The job as JSON values, keys included."""
        return {
            "base": self.base.to_json(),
            "new": self.new.to_json(),
            "memory": self.limits.memory,
            "seconds": self.limits.seconds,
            "quality": self.quality.value,
            "segment_size": self.segment_size,
            "seal": None if self.seal is None else self.seal.to_json(),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Job:
        """Read what :meth:`to_json` wrote."""
        seal = found["seal"]
        return cls(
            Source.from_json(found["base"]),
            Source.from_json(found["new"]),
            Limits(found["memory"], found["seconds"]),
            Quality(found["quality"]),
            found["segment_size"],
            None if seal is None else SealWith.from_json(seal),
        )


def report_to_json(report: Report) -> dict[str, object]:
    """A report as JSON values."""
    packed = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in asdict(report.packed).items()
    }
    return {
        "packed": packed,
        "strategy": report.strategy.value,
        "kinds": {op.name: kind for op, kind in report.kinds.items()},
        "cpu_seconds": report.cpu_seconds,
        "memory": report.memory,
    }


def report_from_json(found: Mapping[str, Any]) -> Report:
    """Read what :func:`report_to_json` wrote."""
    packed: dict[str, Any] = {
        name: bytes.fromhex(value) if isinstance(value, str) else value
        for name, value in found["packed"].items()
    }
    kinds = {Op[name]: (count, size) for name, (count, size) in found["kinds"].items()}
    return Report(
        Packed(**packed),
        Strategy(found["strategy"]),
        kinds,
        found["cpu_seconds"],
        found["memory"],
    )
