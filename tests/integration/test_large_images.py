"""C-02: images beyond 2^31 and 2^32 bytes, from the encoder over TLS into a slot.

The images are sparse: zeros, and one byte behind them. What could break here is an
offset that is cut to 32 bits; so the byte that counts is the last one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from sealift.agent.payload import PayloadFill
from sealift.agent.slot import PathSlots, WorkFiles
from sealift.agent.transport import HttpsTransport
from sealift.core.container import encode_head, open_head
from sealift.core.errors import DigestError
from sealift.core.packer import pack_full
from sealift.core.types import Artifact, Container, Instruction, Slot
from tests.tls_server import Files, Pki, TlsServer
from tests.unit.agent.system_clock import SystemClock

LAST = b"\x5a"


@dataclass(frozen=True)
class Release:
    """A packed image: what is signed, and the file that travels."""

    artifact: Artifact
    container: Container
    file: Path

    @property
    def raw(self) -> bytes:
        return self.file.read_bytes()


@pytest.fixture(scope="module", params=[2**31 + 1, 2**32 + 1], ids=["2GiB+1", "4GiB+1"])
def release(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Release:
    work = tmp_path_factory.mktemp("release")
    image = work / "image"
    with image.open("wb") as file:
        file.seek(request.param - 1)
        file.write(LAST)
    with (
        image.open("rb") as source,
        (work / "spool").open("w+b") as spool,
        (work / "x.full").open("wb") as out,
    ):
        packed = pack_full(
            lambda at, n: os.pread(source.fileno(), n, at),
            request.param,
            spool=spool,
            out=out,
        )
    artifact = Artifact(
        "demo-board/rootfs-1.img", packed.image_length, packed.image_sha256, None,
        packed.segment_size, packed.segment_root, ("demo-board-r1",), 1, "1",
    )  # fmt: skip
    return Release(artifact, packed.container("x.full"), work / "x.full")


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def slot_path(release: Release, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "slot"
    with path.open("wb") as file:
        file.truncate(release.artifact.length)
    yield path
    path.unlink()


def install(release: Release, raw: bytes, pki: Pki, slot_path: Path) -> int:
    """One install over TLS; the body bytes the server sent."""
    order = Instruction(
        "dev-0001-main", "demo-board-r1", release.artifact, release.container,
        None, None, 1, bytes(32),
    )  # fmt: skip
    target = f"/director/targets/{release.container.sha256.hex()}.x.full"
    files = Files({target: raw})
    with TlsServer(pki, files) as server:
        way = HttpsTransport(server.url, pki.files(), SystemClock(), floor=lambda: 0)
        slot = PathSlots({Slot.B: str(slot_path)}).open(Slot.B, writable=True)
        try:
            PayloadFill(order, way, WorkFiles(str(slot_path.parent)))(slot, None)
        finally:
            slot.close()
            way.close()
    return files.sent


def last_byte(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), 2, length - 1)


def test_c02_a_large_image_arrives_with_its_last_byte(
    release: Release, pki: Pki, slot_path: Path
) -> None:
    """The byte beyond the border is there, and the holes stayed holes."""
    sent = install(release, release.raw, pki, slot_path)
    assert last_byte(slot_path, release.artifact.length) == LAST
    assert sent == release.container.length < 300_000
    assert slot_path.stat().st_blocks * 512 < 1 << 20


def test_c02_its_last_byte_flipped_on_the_way_is_refused(
    release: Release, pki: Pki, slot_path: Path
) -> None:
    """The byte does not get past its frame's digest."""
    bad = release.raw[:-1] + bytes([LAST[0] ^ 1])
    with pytest.raises(DigestError):
        install(release, bad, pki, slot_path)
    assert last_byte(slot_path, release.artifact.length) == b"\0"


def test_c02_its_last_byte_flipped_by_the_director_is_refused(
    release: Release, pki: Pki, slot_path: Path
) -> None:
    """A stolen Director that signs the flipped frame fails at the offline root."""
    raw = release.raw
    head = open_head(
        lambda at, n: raw[at : at + n], release.artifact, release.container
    )
    segments = list(head.segments())
    flipped = bytes([LAST[0] ^ 1])
    segments[-1] = replace(segments[-1], frame_sha256=sha256(flipped).digest())
    bad = encode_head(head.header, segments) + flipped
    told = replace(
        release.container,
        sha256=sha256(bad).digest(),
        head_sha256=sha256(bad[:-1]).digest(),
    )
    with pytest.raises(DigestError):
        install(replace(release, container=told), bad, pki, slot_path)
    assert last_byte(slot_path, release.artifact.length) == b"\0"
