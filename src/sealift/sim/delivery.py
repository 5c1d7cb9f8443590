"""The device in memory with the shipped payload engine: every byte comes by a network.

``sim.device`` fills its slot from a list of images, which is fast enough for a hundred
thousand lives. Here the order is a delta of the image that runs, with one frame that is
malformed though signed (C-14), so that every install heals a segment from the full
container; sealed or not. Work files lie on the same flash and are cut like slots.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING

from sealift.agent.machine import Verdict
from sealift.agent.payload import PayloadFill, clear, moved
from sealift.agent.wiring import Offline
from sealift.core.container import Op
from sealift.core.delta import Base, Extent, encode_delta
from sealift.core.packer import ContainerWriter, Made, Packed, pack_full
from sealift.core.streams import pack
from sealift.core.types import Artifact, Container, Instruction, Seal, Wrap
from sealift.payload.sealing import seal_container
from sealift.sim.device import Device, Image, Kind
from sealift.sim.flash import FlashSlot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.ports import Fill
    from sealift.agent.shell import AttemptResult, Component
    from sealift.sim.flash import Flash

SEGMENT = 1 << 16
SLOT = 4 * SEGMENT
KEY = bytes(range(32))
_MALFORMED = b"\xff" * 40


@dataclass(frozen=True, slots=True)
class Delivery:
    """Two images, and the containers that lead to the second one."""

    old: Image
    new: Image
    full: Container
    delta: Container
    files: tuple[bytes, bytes]
    sealed: bool

    def order(self) -> Instruction:
        """The Director's word."""
        seal = Seal(Wrap("x25519", "0123456789abcdef", b"wrapped"))
        return replace(
            self.new.order(),
            full=self.full,
            delta=self.delta,
            sealed=seal if self.sealed else None,
        )


@cache
def delivery(kind: Kind, *, sealed: bool) -> Delivery:
    """Three segments and a short one: changed, moved, malformed, new."""
    old = b"".join(_noise(f"old {at}") for at in range(3)) + b"old end"
    changed, tail = bytearray(old[:SEGMENT]), f"new end, {kind}".encode()
    changed[777] ^= 1
    new = bytes(changed) + old[9 : 9 + SEGMENT] + _noise("new") + tail
    full, whole = _full(new)
    delta, raw = _delta(old, new)
    before = _image(Kind.GOOD, old, "1.0", 1, _full(old)[0].segment_root)
    after = _image(kind, new, "2.0", 2, full.segment_root)
    names = [full.container("sim.full"), delta.container("sim.delta")]
    files = [whole, raw]
    if sealed:
        for at, salt in enumerate((b"f", b"d")):
            names[at], files[at] = _sealed(names[at], files[at], after, salt * 24)
    return Delivery(before, after, names[0], names[1], (files[0], files[1]), sealed)


def _noise(name: str) -> bytes:
    blocks = (sha256(f"{name} {at}".encode()).digest() for at in range(SEGMENT // 32))
    return b"".join(blocks)


def _image(
    kind: Kind, content: bytes, version: str, counter: int, root: bytes
) -> Image:
    artifact = Artifact(
        name=f"sim-board/main-{version}.img",
        length=len(content),
        sha256=sha256(content).digest(),
        sha512=None,
        segment_size=SEGMENT,
        segment_root=root,
        hardware_ids=("sim-board-r1",),
        release_counter=counter,
        version=version,
    )
    return Image(kind, content, artifact)


def _full(content: bytes) -> tuple[Packed, bytes]:
    out = io.BytesIO()
    packed = pack_full(
        lambda at, n: content[at : at + n],
        len(content),
        spool=io.BytesIO(),
        out=out,
        segment_size=SEGMENT,
        preset=0,
    )
    return packed, out.getvalue()


def _delta(old: bytes, new: bytes) -> tuple[Packed, bytes]:
    base = Base(lambda at, n: old[at : at + n], len(old))
    out = io.BytesIO()
    known = (len(old), sha256(old).digest())
    writer = ContainerWriter(len(new), SEGMENT, spool=io.BytesIO(), out=out, base=known)
    plain = [new[at : at + SEGMENT] for at in range(0, len(new), SEGMENT)]
    whole = [Extent(Op.DELTA, SEGMENT)]
    writer.add(
        Made.of(Op.DELTA, plain[0], encode_delta(plain[0], 0, whole, base, pack))
    )
    writer.add(Made.of(Op.COPY, plain[1], base_offset=9))
    writer.add(Made.of(Op.DELTA, plain[2], _MALFORMED))
    writer.add(Made.of(Op.REPLACE, plain[3], pack(plain[3])))
    return writer.finish(sha256(new).digest()), out.getvalue()


def _sealed(
    container: Container, raw: bytes, image: Image, salt: bytes
) -> tuple[Container, bytes]:
    out = io.BytesIO()
    found = seal_container(
        container,
        io.BytesIO(raw),
        out,
        image_sha256=image.artifact.sha256,
        content_key=KEY,
        salt=salt,
    )
    return found, out.getvalue()


class FlashWork:
    """:class:`~sealift.agent.ports.Workspace` in regions of a flash."""

    def __init__(self, flash: Flash) -> None:
        self._flash = flash

    def open(self, name: str, length: int) -> FlashSlot:
        """A region of that length; what it held stays, as in a file."""
        region = f"work.{name}"
        found = self._flash.read(region, 0, length) or b""
        if region not in self._flash.medium or self._flash.size(region) != length:
            self._flash.make(region, found.ljust(length, b"\0"))
        return FlashSlot(self._flash, region, writable=True)

    def remove(self, name: str) -> None:
        """Forget it."""
        self._flash.remove(f"work.{name}")


class Served(Offline):
    """:class:`~sealift.agent.ports.Transport` of an honest server with two files."""

    def __init__(self, found: Delivery) -> None:
        boxes = zip((found.full, found.delta), found.files, strict=True)
        self._files = {
            f"director/targets/{it.sha256.hex()}.{it.name}": raw for it, raw in boxes
        }

    def stream(self, path: str, *, start: int, stop: int, **_: int) -> Iterator[bytes]:
        """As the port says."""
        raw = self._files[path]
        for at in range(start, stop, SEGMENT):
            yield raw[at : min(stop, at + SEGMENT)]


class DeliveredDevice(Device):
    """A device that is updated by a plain delta."""

    sealed = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.delivery = delivery(self.scene.kind, sealed=self.sealed)
        self.old, self.image = self.delivery.old, self.delivery.new
        self.images = {it.content: it for it in (self.old, self.image)}
        self.orders = [self.delivery.order()]
        self.flash.make("slot.a", self.old.content.ljust(SLOT, b"\xff"))
        self.flash.make("slot.b", bytes(SLOT))

    def make_components(self) -> list[Component]:
        """With the ledger's word, and nothing left behind."""
        work, order = FlashWork(self.flash), self.delivery.order()
        return [
            replace(part, moved=lambda _: moved(work, order), clear=lambda: clear(work))
            for part in super().make_components()
        ]

    def _fill(self, order: Instruction, base: Artifact | None) -> Fill:
        return PayloadFill(
            order,
            Served(self.delivery),
            FlashWork(self.flash),
            base_image=base,
            content_key=lambda _order: KEY,
        )

    def _report(self, result: AttemptResult) -> None:
        """The healed segment may be forgotten by a cut, never invented."""
        told, succeeded = result.moved, result.verdict is Verdict.SUCCEEDED
        invented = told is not None and (told.method == "full" or told.repaired > 1)
        if invented or (told is None and succeeded):
            self.found.append(f"told of its way: {told}")
        super()._report(result)

    def faults(self) -> list[str]:
        """As of every device; and what stayed behind."""
        found = super().faults()
        left = [name for name in self.flash.medium if name.startswith("work.")]
        return [*found, *(f"{name} was left behind" for name in left)]


class SealedDevice(DeliveredDevice):
    """A device that is updated by a sealed delta."""

    sealed = True
