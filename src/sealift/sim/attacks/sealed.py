"""Rows A-21 and C-16: payloads that travel encrypted, looked at and tampered with."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sealift.core.encryption import CHUNK, PREFIX, SALT, TAG, payload_context
from sealift.payload.sealing import SUFFIX, seal_file
from sealift.server.adapters.sqlite import SqliteStore
from sealift.server.ports import Device, DirectorRecord, StoredContainer
from sealift.server.services.director import ordered_container
from sealift.sim.attacks.boxes import Box, ordered
from sealift.sim.attacks.forge import Change, Json, bump
from sealift.sim.attacks.payload import changed_order
from sealift.sim.attacks.world import (
    DEVICE,
    OTHER,
    Ground,
    Observed,
    Plan,
    Scene,
    refusal,
)
from sealift.sim.vendor import SEGMENT_BYTES, Release, Shape, make_release

if TYPE_CHECKING:
    from sealift.sim.network import Request, Response, Server

SEALED = Shape(sealed=True)
_STEP = CHUNK + TAG


# ── C-16: ciphertext and wraps ───────────────────────────────────────────────────────
def attack_c_16(ground: Ground) -> Observed:
    """A mirror's changes, then those of stolen Director keys, then a key holder's."""
    return ground.observed(
        ground.each(
            [
                *(_on_the_mirror(change) for change in _tampering()),
                *(changed_order(_wrap(change)) for change in _WRAPS),
                _wrapped_for_another,
                _wrapped_for_another_version,
            ],
            SEALED,
        ),
        ground.each(_cut_at_borders(), SEALED),
        ground.play(_sealed_by_a_key_holder, SEALED),
    )


def _tampering() -> Iterator[Callable[[bytes], bytes]]:
    """Bytes flipped in every part of the file; whole chunks moved about."""
    second = PREFIX + _STEP
    for at in (0, SALT - 1, SALT, PREFIX - 1, PREFIX, second - 1, second, -TAG, -1):
        yield lambda raw, at=at: _flipped(raw, at)  # type: ignore[misc]
    yield lambda raw: _moved(raw, [1, 0])
    yield lambda raw: _moved(raw, [0, 0])
    yield lambda raw: _moved(raw, [1])
    yield lambda raw: raw[:second].ljust(len(raw), b"\0")
    yield lambda raw: raw[:-_STEP] + raw[PREFIX : PREFIX + _STEP]


def _flipped(raw: bytes, at: int) -> bytes:
    changed = bytearray(raw)
    changed[at] ^= 1
    return bytes(changed)


def _moved(raw: bytes, first: list[int]) -> bytes:
    """The file beginning with these of its chunks, as long as before."""
    chunks = [raw[at : at + _STEP] for at in range(PREFIX, len(raw), _STEP)]
    found = raw[:PREFIX] + b"".join([chunks[n] for n in first] + chunks[2:])
    return found[: len(raw)].ljust(len(raw), b"\0")


def _on_the_mirror(change: Callable[[bytes], bytes]) -> Plan:
    def act(scene: Scene) -> str:
        kept, path = scene.vendor.containers, scene.next.path
        good = kept[path]
        kept[path] = change(good)
        outcome = scene.attempt()
        kept[path] = good
        _require_nothing_strange(scene)
        scene.vendor.refresh(anew=True)  # or what failed is not tried again
        return outcome

    return act


def _require_nothing_strange(scene: Scene) -> None:
    """The slot may not be started, and each segment in it is old, or the vendor's."""
    scene.require_unusable()
    slot = scene.device.slot(scene.device.running.other)
    known = [scene.next.content, scene.factory.content, bytes(len(slot))]
    for at in range(0, scene.next.artifact.length, SEGMENT_BYTES):
        found = slot[at : at + SEGMENT_BYTES]
        if not any(found.startswith(it[at : at + SEGMENT_BYTES]) for it in known):
            scene.faults.append(f"something strange was written at {at}")


_WRAPS: tuple[Callable[[Json], None], ...] = (
    lambda wrap: wrap.update(data=wrap["data"][::-1].lstrip("=").ljust(108, "A")[:108]),
    lambda wrap: wrap.update(data="A" * 108),
    lambda wrap: wrap.update(kid="0" * 16),
    lambda wrap: wrap.update(data="A" * 4),
)


def _wrap(change: Callable[[Json], None]) -> Change:
    return lambda ecu: change(ecu["payload"]["sealed"]["wrap"])


def _wrapped_for_another(scene: Scene) -> str:
    """A good wrap, for the key of another device."""
    other = scene.seat(OTHER).device.recipient
    order = scene.next.order(scene.device.ecu_id, recipient=other)
    return ordered(scene.next, order=order)(scene)


def _wrapped_for_another_version(scene: Scene) -> str:
    """The wrap of an older Targets file, in a newer one."""
    files = scene.forger("director").chain({"targets": bump})
    return scene.attempt(scene.serve("director", files, stolen=True))


def _cut_at_borders() -> Iterator[Plan]:
    """By a thief of the Director's keys: the file ends with a whole chunk."""
    for length in (PREFIX + _STEP, PREFIX + 3 * _STEP, PREFIX + TAG - 1, PREFIX):
        yield changed_order(_said(length))


def _said(length: int) -> Change:
    return lambda ecu: ecu["payload"]["full"].update(length=length)


def _sealed_by_a_key_holder(scene: Scene) -> str:
    """Whoever owns one device has the key; the mirror serves what he sealed with it."""
    release = scene.next
    plain = Box.of(_opened(release))
    evil = plain.framed(0, b"evil".ljust(len(plain.frames[0]), b"!"))
    out, key = io.BytesIO(), release.content_key or b""
    context = payload_context(release.artifact.sha256, release.container.head_sha256)
    raw = plain.head + b"".join(evil.frames)
    seal_file(io.BytesIO(raw), out, content_key=key, context=context, salt=b"s" * SALT)
    return _on_the_mirror(lambda _: out.getvalue())(scene)


def _opened(release: Release) -> Release:
    """The same, as it would travel plain."""
    artifact = release.artifact
    return make_release(
        artifact.version, artifact.release_counter, content=release.content
    )


# ── A-21: somebody who only listens ──────────────────────────────────────────────────
_WINDOW = 24


def attack_a_21(ground: Ground) -> Observed:
    """All that is served is recorded; then a device asks for the plain container."""
    return ground.observed(
        ground.play(_recorded, SEALED), ground.play(_asked_in_the_open, SEALED)
    )


def _recorded(scene: Scene) -> str:
    heard = bytearray()

    def listen(server: Server, request: Request) -> Response:
        response = server(request)
        heard.extend(request.body + response.body)
        return response

    scene.require(scene.attempt(listen), "installed")
    if scene.next.packed[PREFIX : PREFIX + _WINDOW] not in heard:
        scene.faults.append("the container was not heard")
    pieces = [scene.next.content_key or b"", *_pieces(scene.next.content)]
    return "heard" if any(it in heard for it in pieces) else "only ciphertext"


def _pieces(content: bytes) -> Iterator[bytes]:
    """Every other piece of what does not compress: it would show as it is."""
    for at in range(0, SEGMENT_BYTES, 2 * _WINDOW):
        yield content[at : at + _WINDOW]


def _asked_in_the_open(scene: Scene) -> str:
    """To the server's own rules, over a store that knows the order."""
    store = SqliteStore(scene.directory / "sealift.db")
    sealed, plain = scene.next.container, _opened(scene.next).container
    with store.begin() as session:
        session.devices.save(Device(DEVICE, "active", "key", {}, scene.true_now()))
        session.releases.add_container(
            StoredContainer(
                sealed.name, sealed.length, sealed.sha256.hex(), scene.true_now()
            )
        )
        issued = scene.vendor.issued[DEVICE]
        files = (issued.targets, issued.snapshot, issued.timestamp)
        record = DirectorRecord(DEVICE, *files, (1, 1, 1), "etag", 0)
        session.metadata.save_director(record, [sealed.name])
    name = sealed.name.removesuffix(SUFFIX)
    found = refusal(
        lambda: ordered_container(store.reader, DEVICE, plain.sha256.hex(), name)
    )
    ordered_container(store.reader, DEVICE, sealed.sha256.hex(), sealed.name)
    store.close()
    return found
