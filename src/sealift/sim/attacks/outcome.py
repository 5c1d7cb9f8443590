"""What an attack must leave as it was: the intact set of the threat model, section 6.

``Intact`` is a picture of it, and :func:`broken` compares two. Trusted state may change
in one way only: to files the vendor itself signed for this device, and never back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.agent.boot.file import open_boot
from sealift.core.errors import SealiftError

if TYPE_CHECKING:
    from sealift.core.types import Slot
    from sealift.sim.attacks.simulated import SimulatedDevice

__all__ = ["Intact", "broken", "observe"]

METADATA = ("director.", "image.")
"""How the records of trusted metadata begin."""


@dataclass(frozen=True, slots=True)
class Intact:
    """What has to be there after an attack as it was before."""

    running: Slot
    running_sha256: str
    next: Slot
    trusted: Mapping[str, bytes]
    floor: int
    keys: Mapping[str, tuple[int, str]]
    """Mode and digest of the anchors, the report key and the configuration."""


def observe(device: SimulatedDevice) -> Intact:
    """A picture of the intact set as it is on disk."""
    boot = open_boot(str(device.path("boot")))
    records = device.records()
    return Intact(
        running=boot.current(),
        running_sha256=hashlib.sha256(device.slot(boot.current())).hexdigest(),
        next=boot.next(),
        trusted={n: raw for n, raw in records.items() if n.startswith(METADATA)},
        floor=device.floor(),
        keys={name: _file(device, name) for name in KEPT},
    )


KEPT = ("anchors/director.json", "anchors/image.json", "report.pem", "agent.toml")


def _file(device: SimulatedDevice, name: str) -> tuple[int, str]:
    path = device.path(name)
    try:
        mode = os.lstat(path).st_mode
        return mode, hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return 0, type(error).__name__


def broken(before: Intact, after: Intact, said: Collection[bytes]) -> list[str]:
    """Everything that is not as it was; ``said`` are the files that may be trusted."""
    return [
        *_device_faults(before, after),
        *_trust_faults(before.trusted, after.trusted, said),
    ]


def _device_faults(before: Intact, after: Intact) -> Iterator[str]:
    if after.running is not before.running:
        yield f"slot {after.running} runs"
    elif after.running_sha256 != before.running_sha256:
        yield "the running slot was written"
    if after.next is not before.next:
        yield f"slot {after.next} would start next"
    if after.floor != before.floor:
        yield f"the counter floor went from {before.floor} to {after.floor}"
    for name, facts in before.keys.items():
        if after.keys[name] != facts:
            yield f"{name} changed"


def _trust_faults(
    before: Mapping[str, bytes], after: Mapping[str, bytes], said: Collection[bytes]
) -> Iterator[str]:
    rotated = any(".root." in name for name in after.keys() - before.keys())
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        if new is None:
            if not rotated:
                yield f"{name} was deleted"
        elif new not in said:
            yield f"{name} is trusted, though the vendor never said so"
        elif old is not None and not rotated and version(new) < version(old):
            yield f"{name} went back"


def version(raw: bytes) -> int:
    """The version of a metadata file."""
    return int(json.loads(raw)["signed"]["version"])


def code_of(error: BaseException) -> str:
    """What an observed error is called; an error that is not ours is a crash."""
    if isinstance(error, SealiftError):
        return error.code
    return f"crash: {type(error).__name__}: {error}"[:200]
