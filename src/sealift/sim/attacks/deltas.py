"""Row C-14: hostile containers, and hostile deltas beside an honest full container."""

from __future__ import annotations

import lzma
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from sealift.core.container import Op
from sealift.core.delta import CONTROL_MAX
from sealift.core.streams import pack
from sealift.core.types import Container
from sealift.core.varints import svarint, varint
from sealift.sim.attacks.boxes import Box, ordered
from sealift.sim.attacks.containers import (
    NEXT_COUNTER,
    VERSION,
    hostile,
    packed,
    waiting,
)
from sealift.sim.attacks.world import INSTALLED, Ground, Observed, Plan, Scene, each
from sealift.sim.shipping import delta_from
from sealift.sim.vendor import SEGMENT_BYTES, make_release, served_at

if TYPE_CHECKING:
    from sealift.sim.network import Request, Response, Server
    from sealift.sim.vendor import Release

_COPY, _ZERO, _ADD, _REPLACE = range(4)
"""Ops by their number in a control stream."""


def attack_c_14(ground: Ground) -> Observed:
    """Full containers that lie; then deltas that do, beside an honest full one."""
    return ground.observed(
        ground.together([*_huge(), *hostile(*_oversized())]),
        ground.together(hostile(*_undecodable())),
        ground.together(hostile(*_wrong_results())),
        each([ground.play(_beside_the_honest), ground.each(_absurd())]),
    )


# ── full containers ──────────────────────────────────────────────────────────────────
def _huge() -> Iterator[Plan]:
    """Lengths of head and container that no container of this image has."""
    release = make_release(VERSION, NEXT_COUNTER)
    for length in (2**31, 2**32 + 500, 2**37):
        for head in (1, 143, release.container.head_length, 2**31 - 1):
            container = replace(release.container, length=length, head_length=head)
            yield ordered(replace(release, container=container))


def _oversized() -> Iterator[Box]:
    """Frames longer than their segment, by one byte and by all of 63 bits."""
    box = waiting()
    for length in (SEGMENT_BYTES + 1, 2**31, 2**32 + 7, 2**63 - 1):
        first = replace(box.segments[0], frame_length=length)
        changed = replace(box, segments=(first, *box.segments[1:]))
        header = replace(changed.header, head_length=len(changed.head))
        yield replace(changed, header=header)


def _undecodable() -> Iterator[Box]:
    box = waiting()
    good = box.frames[-1]
    for frame in (
        good[:-1],
        good + b"\0",
        good + good,
        good[: len(good) // 2],
        b"\0",
        b"\xff" * 100,
        good[1:],
        lzma.compress(b"short", lzma.FORMAT_XZ),
    ):
        yield box.framed(len(box.frames) - 1, frame)


def _wrong_results() -> Iterator[Box]:
    """Frames that decode well, into something else; zeros where there are none."""
    box = waiting()
    yield box.framed(0, bytes(SEGMENT_BYTES))
    yield box.framed(0, box.frames[0][::-1])
    yield box.framed(0, packed(b"evil".ljust(SEGMENT_BYTES, b"!")))
    zero = replace(box.segments[0], op=Op.ZERO, frame_length=0, frame_sha256=b"")
    yield replace(
        box, segments=(zero, *box.segments[1:]), frames=(b"", *box.frames[1:])
    ).fitted()


# ── deltas ───────────────────────────────────────────────────────────────────────────
def _absurd() -> Iterator[Plan]:
    """Facts of a delta that nothing can have; it is not even asked for."""
    junk = Container("x.delta", 300, bytes(32), 250, bytes(32), 2**36, bytes(32))
    for base in (1, 300, 2**36):
        container = replace(junk, base_length=base)
        yield lambda scene, delta=container: _attempt(scene, delta, b"")  # type: ignore[misc]


def _beside_the_honest(scene: Scene) -> str:
    """One hostile delta after the other: each release comes in the end, and whole."""
    outcomes = []
    for number, spoil in enumerate(_SPOILED):
        container, raw = delta_from(scene.first, scene.next)
        honest = replace(scene.next, container=container, packed=raw)
        bad = spoil(Box.of(honest)).close()
        outcomes.append(_attempt(scene, bad.container, bad.packed))
        scene.first = scene.next
        scene.next = scene.publish(f"1.3.{number}", 10 + number)
        scene.waiting = True
    return each(outcomes)


def _attempt(scene: Scene, delta: Container, raw: bytes) -> str:
    """An order with that delta; the base must stay, the delta must have been tried."""
    home = scene.device.running
    base = scene.device.slot(home)
    asked: list[str] = []

    def watch(server: Server, request: Request) -> Response:
        asked.append(request.path)
        return server(request)

    scene.vendor.containers[served_at(delta)] = raw
    scene.order(replace(scene.order_for(scene.next), delta=delta))
    outcome = scene.attempt(watch)
    if scene.device.slot(home) != base:
        scene.faults.append("the base was written")
    if raw and served_at(delta) not in asked:
        scene.faults.append("a delta was not tried")
    if outcome == INSTALLED and scene.runs() != scene.next.artifact.sha256:
        return "installed something else"
    return outcome


Spoil = Callable[[Box], Box]


def _op(op: int, length: int, move: int | None = None) -> bytes:
    """One op of a control stream; ``move`` is its place in the base, if any."""
    return varint(length << 2 | op) + (b"" if move is None else svarint(move))


def _frame(
    control: bytes, difference: bytes = b"", literal: bytes = b"", more: int = 0
) -> bytes:
    """A DELTA frame of these streams; ``more`` is added to what it says of control."""
    streams = (control, difference, literal)
    made = [pack(plain) if plain else b"" for plain in streams]
    sizes = [[len(a), len(b)] for a, b in zip(streams, made, strict=True)]
    sizes[0][0] += more
    head = b"".join(varint(size) for pair in sizes for size in pair)
    return head + b"".join(made)


def _first(frame: bytes) -> Spoil:
    """The first segment by this frame, which its entry names."""

    def spoil(box: Box) -> Box:
        segment = replace(box.segments[0], op=Op.DELTA)
        return replace(box, segments=(segment, *box.segments[1:])).framed(0, frame)

    return spoil


def _copied(offset: int) -> Spoil:
    """The first segment from that place of the base."""

    def spoil(box: Box) -> Box:
        first = replace(
            *box.segments[:1], op=Op.COPY, base_offset=offset, frame_length=0
        )
        return replace(
            box, segments=(first, *box.segments[1:]), frames=(b"", *box.frames[1:])
        ).fitted()

    return spoil


def _of_another_base(box: Box) -> Box:
    """A good delta, made from another image than the one it says."""
    stranger = make_release("0.1", 1, content=box.release.content[::-1])
    container, raw = delta_from(stranger, _plain(box.release))
    said = box.release.container
    lying = replace(container, base_sha256=said.base_sha256)
    other = Box.of(replace(box.release, container=container, packed=raw))
    header = replace(other.header, base_sha256=said.base_sha256)
    return replace(other, release=replace(box.release, container=lying), header=header)


def _plain(release: Release) -> Release:
    return make_release(
        release.artifact.version,
        release.artifact.release_counter,
        content=release.content,
    )


_ALL = SEGMENT_BYTES
_SPOILED: tuple[Spoil, ...] = (
    _first(_frame(_op(_COPY, _ALL, -1))),
    _first(_frame(_op(_COPY, _ALL, SEGMENT_BYTES * 2))),
    _first(_frame(_op(_COPY, _ALL, 2**62 - 1))),
    _first(_frame(_op(_COPY, _ALL, -(2**61)))),
    _first(_frame(_op(_ZERO, 0) + _op(_COPY, _ALL, 0))),
    _first(_frame(_op(_COPY, _ALL - 1, 0))),
    _first(_frame(_op(_COPY, _ALL, 0) + _op(_ZERO, 1))),
    _first(_frame(_op(_ZERO, 2**60))),
    _first(_frame(_op(_ADD, _ALL, 0), b"+" * (_ALL - 1))),
    _first(_frame(_op(_COPY, _ALL, 0), b"+")),
    _first(_frame(_op(_REPLACE, _ALL), literal=b"evil")),
    _first(_frame(_op(_REPLACE, 4) + _op(_ZERO, _ALL - 4), literal=b"evil!")),
    _first(_frame(_op(_REPLACE, _ALL), literal=b"evil".ljust(_ALL, b"!"))),
    _first(_frame(_op(_COPY, _ALL, 0), more=1)),
    _first(_frame(_op(_COPY, _ALL, 0), more=CONTROL_MAX)),
    _first(_frame(_op(_COPY, _ALL, 0)) + b"\0"),
    _first(_frame(_op(_COPY, _ALL, 0))[:-1]),
    _first(b"\xff" * 60),
    _first(_frame(_op(_COPY, _ALL, 0))),
    _copied(-1),
    _copied(SEGMENT_BYTES * 2),
    _copied(2**62),
    _copied(0),
    _of_another_base,
)
"""Places before, behind and far beyond the base; ops that are empty, short, long and
endless; streams with bytes missing or left; good frames that give something else."""
