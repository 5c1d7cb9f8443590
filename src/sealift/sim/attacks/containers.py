"""Rows C-03 to C-05, C-09, C-10 and C-15: the container that carries an image.

Most of them have the Director's stolen keys in the attacker's hands (``boxes``), so
that the digest of the head stands in nobody's way and the parser has to refuse.
"""

from __future__ import annotations

import bz2
import gc
import gzip
import io
import lzma
import tarfile
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING

from sealift.agent.payload import PayloadFill
from sealift.agent.slot import PathSlots, WorkFiles
from sealift.core.container import HEADER_SIZE, Kind
from sealift.core.errors import SealiftError
from sealift.core.merkle import tree_root
from sealift.core.types import Container, Instruction, Slot
from sealift.core.varints import varint
from sealift.sim.attacks.boxes import Box, ordered, told
from sealift.sim.attacks.forge import Json
from sealift.sim.attacks.metadata import forged
from sealift.sim.attacks.outcome import code_of
from sealift.sim.attacks.world import Ground, Observed, Plan, Scene, each
from sealift.sim.network import MemoryTransport, file_server
from sealift.sim.vendor import HARDWARE, PRODUCT, SEGMENT_BYTES, Release, make_release
from sealift.sim.world import SimClock

if TYPE_CHECKING:
    from pathlib import Path

VERSION, NEXT_COUNTER = "1.2", 3
"""Of the release that waits in every scene; hostile containers pretend to be its."""
REFUSAL_SECONDS = 0.1


def waiting() -> Box:
    """The container of the release that waits in every scene, taken apart."""
    return Box.of(make_release(VERSION, NEXT_COUNTER))


def hostile(*boxes: Box) -> list[Plan]:
    """Each of them ordered by a stolen Director."""
    return [ordered(box.close()) for box in boxes]


def raw_of(release: Release, raw: bytes, head: int | None = None) -> Plan:
    """Any bytes in the container's place, told as they are."""
    length = release.container.head_length if head is None else head
    return ordered(told(release, raw, length))


# ── C-03: what is listed and what is there ───────────────────────────────────────────
def attack_c_03(ground: Ground) -> Observed:
    """Frames nobody lists, listed ones that are missing, no list; other formats."""
    box = waiting()
    header, release = box.header, box.release
    fewer = replace(header, count=header.count - 1)
    based = replace(header, kind=Kind.DELTA, base_length=1, base_sha256=bytes(32))
    boxes = [
        replace(box, frames=(*box.frames, b"unlisted")),
        replace(box, frames=(*box.frames, b"unlisted")).fitted(),
        replace(box, frames=box.frames[:-1]),
        replace(box, frames=box.frames[:-1]).fitted(),
        replace(box, segments=box.segments[:-1]),
        replace(box, segments=box.segments[:-1]).fitted(),
        replace(box, header=fewer, segments=box.segments[:-1]).fitted(),
        replace(box, header=replace(header, count=0), segments=()),
        replace(box, header=replace(header, image_sha256=bytes(32))),
        replace(box, header=replace(header, segment_root=bytes(32))),
        _without_digests(box),
        box.framed(0, b""),
        replace(box, header=based),
    ]
    padded = map(_padded, boxes)
    formats = [raw_of(release, raw.ljust(len(box.head), b"\0")) for raw in _formats()]
    return ground.observed(ground.together([*padded, *formats]))


def _padded(box: Box) -> Plan:
    """A head is at least as long as the image needs, or no byte of it is fetched."""
    least = HEADER_SIZE + 33 * len(waiting().segments)
    release = box.close()
    container = release.container
    if container.head_length >= least:
        return ordered(release)
    return ordered(told(release, release.packed.ljust(least, b"\0"), least))


def _without_digests(box: Box) -> Box:
    """Every segment's digest is empty, and the tree over them fits."""
    segments = tuple(replace(it, sha256=bytes(32)) for it in box.segments)
    root = tree_root(it.sha256 for it in segments)
    header = replace(box.header, segment_root=root)
    return replace(box, header=header, segments=segments)


def _formats() -> Iterator[bytes]:
    """Older, newer, foreign and bare: what a lenient reader would also take."""
    raw = waiting().release.packed
    for version in (0, 2, 255):
        yield raw[:7] + bytes([version]) + raw[8:]
    yield b"sealpay\x01" + raw[8:]
    yield bytes(8) + raw[8:]
    yield waiting().release.content
    yield b"hsqs" + raw


# ── C-04, C-10: names and members ────────────────────────────────────────────────────
def attack_c_04(ground: Ground) -> Observed:
    """Archives, whose members could be called anything; then twins of a listed name."""
    box = waiting()
    length = box.release.container.head_length
    names = (
        "image",
        "image.gz",
        "image.",
        "image/",
        "IMAGE",
        "cafe\u0301",
        "caf\u00e9",
    )
    archives = [
        raw_of(box.release, raw.ljust(length, b"\0")) for raw in _archives(names)
    ]
    listed = f"{PRODUCT}/main-{VERSION}.img"
    twins = (
        f"{listed}.gz",
        f"{listed}.",
        listed.upper(),
        listed.removesuffix(".img"),
        listed.replace("main", "ma\u0131n"),
        listed.replace("-", "\u2010"),
    )
    named = [_ordered_as(name) for name in twins]
    return ground.observed(ground.together(archives), ground.together(named))


def _archives(names: tuple[str, ...]) -> Iterator[bytes]:
    """The image, packed the way others do it, under each name and under all of them."""
    content = waiting().release.content
    yield gzip.compress(content, 1, mtime=0)
    yield bz2.compress(content)
    yield lzma.compress(content, preset=0)
    for members in [*((name,) for name in names), names, names[:1] * 2]:
        yield _tar(members, content[:1000])
        yield _zip(members, content[:1000])


def _tar(names: tuple[str, ...], content: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _zip(names: tuple[str, ...], content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            with warnings.catch_warnings():  # a name twice is the point
                warnings.simplefilter("ignore", UserWarning)
                archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def _ordered_as(name: str) -> Plan:
    """The Director orders the waiting release under a name that looks like its own."""

    def rename(signed: Json) -> None:
        [entry] = signed["targets"].values()
        signed["targets"] = {name: entry}

    def act(scene: Scene) -> str:
        files = scene.forger("director").chain({"targets": rename})
        return scene.attempt(scene.serve("director", files, stolen=True))

    return act


def attack_c_10(ground: Ground) -> Observed:
    """A segment, an entry, a frame that is there twice; a member of metadata."""
    box = waiting()
    first, zero, last = box.segments
    other = replace(first, frame_sha256=sha256(b"other").digest())
    twice = (first, zero, replace(zero, sha256=sha256(b"other").digest()), last)
    count = replace(box.header, count=len(twice))
    boxes = [
        replace(box, segments=twice).fitted(),
        replace(box, header=count, segments=twice).fitted(),
        replace(box, segments=(first, other, last)).fitted(),
        replace(box, frames=(box.frames[0], *box.frames)),
        replace(box, frames=(box.frames[0], *box.frames)).fitted(),
        replace(box, tail=other.entry()).fitted(),
    ]
    twins = [
        _member_twice("director", member)
        for member in (b"full", b"head_sha256", b"sha256", b"length")
    ]
    image = _member_twice("image", b"segment_root")
    return ground.observed(
        ground.together(hostile(*boxes)),
        each([ground.together(twins), ground.play(image)]),
    )


def _member_twice(repository: str, member: bytes) -> Plan:
    """A member of a signed Targets file written twice, the second time otherwise."""
    name = b'"' + member + b'":'

    def spoil(raw: bytes) -> bytes:
        return raw.replace(name, name + b'"other",' + name, 1)

    return lambda scene: scene.attempt(forged(scene, repository, "targets", spoil))


# ── C-05: every byte ─────────────────────────────────────────────────────────────────
def attack_c_05(ground: Ground) -> Observed:
    """Every byte of a small container flipped, by a mirror and by the Director.

    All of them through the agent's payload code into a real slot file; those of the
    header also through whole cycles of a device.
    """
    ground.faults += _flips(ground.directory, _small())
    box = waiting()
    raw, length = box.release.packed, box.release.container.head_length
    fields = (0, 7, 8, 9, 10, 12, 16, 24, 32, 40, 72, 104, 136, 140, 144, length - 1)
    outcome = ground.together(raw_of(box.release, _flip(raw, at)) for at in fields)
    refused = all(it.partition(".")[0] in _FAMILIES for it in outcome.split(" | "))
    return ground.observed("every flip refused" if refused else outcome)


_FAMILIES = ("payload", "format")
"""The codes of a flipped header differ with the field."""


def _small() -> Release:
    """A stored, a zero and a packed segment in about 500 bytes."""
    zeros = bytes(SEGMENT_BYTES)
    content = b"packed" * (SEGMENT_BYTES // 6 + 1)
    content = content[:SEGMENT_BYTES] + zeros + bytes(range(1, 33))
    return make_release("5.0", 5, content=content)


def _flip(raw: bytes, at: int, mask: int = 0xFF) -> bytes:
    return raw[:at] + bytes([raw[at] ^ mask]) + raw[at + 1 :]


def _flips(directory: Path, small: Release) -> Iterator[str]:
    """What went wrong with a flip; nothing, if all is well."""
    fill = Filling(directory, small)
    if fill(small.packed, small.container) != "filled" or not fill.holds_image():
        yield "the control was refused"
    head = small.container.head_length
    for at in range(len(small.packed)):
        for mask in (0xFF, 1 << at % 8):
            bad = _flip(small.packed, at, mask)
            for container in (small.container, told(small, bad, head).container):
                found = fill(bad, container)
                if found == "filled" or found.startswith("crash"):
                    yield f"byte {at}: {found}"
                if not fill.holds_good():
                    yield f"byte {at}: a segment was written that is not the vendor's"


class Filling:
    """The agent's payload code over a slot file that is empty each time."""

    def __init__(self, directory: Path, release: Release) -> None:
        self._release = release
        self._work = directory / "filling"
        self._work.mkdir(mode=0o700, parents=True)
        self.slot = self._work / "slot"

    def __call__(self, raw: bytes, container: Container) -> str:
        """Fill; ``filled``, or the code with which it was refused."""
        with self.slot.open("wb") as file:
            file.truncate(self._release.artifact.length)
        order = Instruction(
            ecu_id="dev-0001-main",
            hardware_id=HARDWARE,
            artifact=self._release.artifact,
            full=container,
            delta=None,
            bytes_max=None,
            director_version=1,
            targets_sha256=bytes(32),
        )
        path = f"director/targets/{container.sha256.hex()}.{container.name}"
        server = file_server(lambda: {path: raw}, lambda _: b"")
        fill = PayloadFill(
            order, MemoryTransport(server, SimClock()), WorkFiles(str(self._work))
        )
        slots = PathSlots({Slot.B: str(self.slot)})
        try:
            with closing(slots.open(Slot.B, writable=True)) as into:
                fill(into, None)
        except SealiftError as error:
            return error.code
        except Exception as error:  # noqa: BLE001 -- a crash is a finding, by its name
            return code_of(error)
        return "filled"

    def holds_image(self) -> bool:
        """Whether the slot is the image."""
        return self.slot.read_bytes() == self._release.content

    def holds_good(self) -> bool:
        """Whether each segment is the image's or was not written."""
        found, wanted = self.slot.read_bytes(), self._release.content
        size = self._release.artifact.segment_size
        return all(
            found[at : at + size]
            in {wanted[at : at + size], bytes(size)[: len(wanted) - at]}
            for at in range(0, len(wanted), size)
        )


# ── C-09: where things begin and end ─────────────────────────────────────────────────
def attack_c_09(ground: Ground) -> Observed:
    """Garbage before, between and behind; lengths in the file that lie; a polyglot."""
    box = waiting()
    release, header = box.release, box.header
    raw, length = release.packed, release.container.head_length
    boxes = [
        replace(box, tail=b"\0"),
        replace(box, tail=b"\0").fitted(),
        replace(box, tail=bytes(32)).fitted(),
        replace(box, header=replace(header, head_length=length - 1)),
        replace(box, header=replace(header, head_length=length + 1)),
        replace(box, header=replace(header, head_length=2**32 - 1)),
        replace(box, header=replace(header, frames_length=header.frames_length - 1)),
        replace(box, header=replace(header, frames_length=2**64 - 1)),
        replace(box, header=replace(header, image_length=header.image_length - 1)),
        replace(box, header=replace(header, segment_size=SEGMENT_BYTES * 2)),
        replace(box, said=length - 1),
        replace(box, said=length + 1),
    ]
    archive = _zip(("image",), release.content)[: SEGMENT_BYTES // 2]
    bare = [
        raw_of(release, b"\0" + raw),
        raw_of(release, raw, length - 1),
        raw_of(release, b"\0" + raw, length + 1),
        raw_of(release, b"#!/bin/sh\n" + raw, length + 10),
        raw_of(release, raw + b"\0"),
        raw_of(release, raw + b"SEALPAY\x01"),
        raw_of(release, raw + archive),
        raw_of(release, raw[:-1]),
        raw_of(release, _long_form(box), length + 1),
    ]
    return ground.observed(ground.together([*hostile(*boxes), *bare]))


def _long_form(box: Box) -> bytes:
    """A frame length in one byte more than it needs."""
    last = box.segments[-1]
    short = varint(last.frame_length)
    long = short[:-1] + bytes([short[-1] | 0x80, 0])
    entry = last.entry()
    head = box.head[: -len(entry)] + entry[:1] + long + entry[1 + len(short) :]
    head = head[:12] + len(head).to_bytes(4, "little") + head[16:]
    return head + b"".join(box.frames)


# ── C-15: bombs ──────────────────────────────────────────────────────────────────────
def packed(plain: bytes) -> bytes:
    """A raw LZMA2 stream of these bytes."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 16}]
    return lzma.compress(plain, lzma.FORMAT_RAW, filters=filters)


def attack_c_15(ground: Ground) -> Observed:
    """Streams that would become thousands of times their segment; one in another."""
    box = waiting()
    nested = packed(_bomb(1 << 22).ljust(SEGMENT_BYTES + 1, b"\0"))
    frames = [_bomb(SEGMENT_BYTES + 1), _bomb(1 << 26), _bomb(1 << 28), nested]
    return ground.observed(
        ground.together(_quickly(box.framed(0, frame)) for frame in frames)
    )


@lru_cache
def _bomb(length: int) -> bytes:
    """A raw stream of so many zeros."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 16}]
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=filters)
    piece = bytes(1 << 20)
    whole, rest = divmod(length, len(piece))
    packed = b"".join(packer.compress(piece) for _ in range(whole))
    return packed + packer.compress(bytes(rest)) + packer.flush()


def _quickly(box: Box) -> Plan:
    """The agent's whole cycle included, it costs next to nothing to refuse."""
    plan = ordered(box.close())

    def act(scene: Scene) -> str:
        gc.freeze()  # an agent has no attack suite's objects for its collector to walk
        began = time.process_time()
        outcome = plan(scene)
        spent = time.process_time() - began
        gc.unfreeze()
        return outcome if spent < REFUSAL_SECONDS else f"{outcome}, after {spent:.1f} s"

    return act
