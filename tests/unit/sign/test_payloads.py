"""Containers of a release: sealed for a server, deltas from named bases, no leaks."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sealift.core.container import open_head
from sealift.core.delta import Base as DeltaBase
from sealift.core.encryption import (
    CHUNK,
    PREFIX,
    Opener,
    payload_context,
    plain_length,
    unwrap,
    upload_info,
)
from sealift.core.errors import (
    DecryptError,
    FormatError,
    InvalidConfigError,
    LengthError,
    MalformedError,
    RefusedError,
)
from sealift.core.hpke import PrivateKey
from sealift.core.payload import check_frame, open_frame
from sealift.core.types import Artifact, Container
from sealift.repo.image import artifacts
from sealift.sign.content_key import read_content_key, write_content_key
from sealift.sign.desk import Desk
from sealift.sign.pack import Description, pack
from sealift.sign.payloads import Sealing, Travel
from sealift.sign.release import (
    Release,
    container_of,
    containers_of,
    propose,
    read_release,
)
from sealift.sign.travel import Letter
from tests.unit.sign.test_pack import described, publish
from tests.vendor import NOW

SERVER = PrivateKey("x25519", bytes([9] * 32))
SECRET_TEXT = b"the secret of the vendor "
OLD = random.Random(7).randbytes(160_000) + SECRET_TEXT * 400
NEW = OLD[:80_000] + b"another line" + OLD[80_000:]


WAYS = {"sealing", "bases"}


def sealing(kem: str = "x25519") -> Sealing:
    own = SERVER if kem == "x25519" else PrivateKey(kem, bytes([9] * 32))
    return Sealing(own.recipient, os.urandom)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def packed(
    desk: Desk, out: Path, found: Description | None = None, **options: Any
) -> Release:
    source = written(out.parent / "new.img", options.pop("content", NEW))
    ways = {name: options.pop(name) for name in WAYS & options.keys()}
    options["travel"] = Travel(**ways)
    release = pack(source, out, found or described(), desk, now=NOW, **options)
    assert release is not None
    return release


def content_key(release: Release, own: PrivateKey = SERVER) -> bytes:
    """What the server makes of the wrap in ``release.json``."""
    assert release.seal is not None
    info = upload_info(release.listed.artifact.name, release.container.sha256)
    return unwrap(own.kem, own.public, own.dh, release.seal.wrap.data, info)


def opened(raw: bytes, release: Release, container: Container, key: bytes) -> bytes:
    context = payload_context(release.listed.artifact.sha256, container.head_sha256)
    opener = Opener(key, context, raw[:PREFIX], len(raw))
    return opener.open(0, raw[PREFIX:])


def rebuilt(
    plain: bytes, artifact: Artifact, container: Container, base: bytes
) -> bytes:
    """The image, by the decoder devices have."""
    view = replace(container, length=len(plain))
    head = open_head(lambda at, count: plain[at : at + count], artifact, view)
    source = DeltaBase(lambda at, count: base[at : at + count], len(base))
    frames = (
        check_frame(s, plain[s.frame_offset : s.frame_offset + s.frame_length])
        for s in head.segments()
    )
    return b"".join(open_frame(frame, source) for frame in frames)


# ── sealed ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kem", ["x25519", "p256"])
def test_a_sealed_release_opens_with_the_key_wrapped_for_the_server(
    kem: str, desk: Desk, tmp_path: Path
) -> None:
    """The wrap opens the file, the file is the container, the container the image."""
    own = PrivateKey(kem, bytes([9] * 32))
    release = packed(desk, tmp_path / "rel", sealing=sealing(kem))
    facts = release.container
    assert release.seal is not None
    assert release.seal.wrap.kid == own.recipient.kid
    assert facts.name == "board-rootfs-1.0.0.full.sealed"
    raw = container_of(tmp_path / "rel").read_bytes()
    assert (len(raw), sha256(raw).digest()) == (facts.length, facts.sha256)
    plain = opened(raw, release, facts, content_key(release, own))
    assert len(plain) == plain_length(facts.length)
    assert sha256(plain[: facts.head_length]).digest() == facts.head_sha256
    assert rebuilt(plain, release.listed.artifact, facts, b"") == NEW


def test_a_sealed_release_says_so_where_it_is_signed(
    desk: Desk, tmp_path: Path
) -> None:
    """In the entry people sign, and in the facts, which read back as they were."""
    release = packed(desk, tmp_path / "rel", sealing=sealing())
    request = Letter.open(tmp_path / "rel").request
    (entry,) = artifacts(request.proposed.signed).values()
    assert entry.sealed
    assert read_release(tmp_path / "rel") == release
    again = propose(read_release(tmp_path / "rel"), desk, NOW)
    assert again.proposed.signed.targets == request.proposed.signed.targets


def test_nothing_plain_and_no_key_stays_at_the_desk(desk: Desk, tmp_path: Path) -> None:
    """Every byte of the release directory is ciphertext, a fact or signed metadata."""
    drawn: list[bytes] = []

    def draw(count: int) -> bytes:
        drawn.append(os.urandom(count))
        return drawn[-1]

    old = written(tmp_path / "old.img", OLD)
    release = packed(
        desk,
        tmp_path / "rel",
        sealing=Sealing(SERVER.recipient, draw),
        bases=[old],
    )
    assert content_key(release) == drawn[0]
    names = sorted(path.name for path in (tmp_path / "rel").iterdir())
    assert names == sorted(
        [
            release.container.name,
            release.deltas[0].name,
            "release.json",
            "request.json",
        ]
    )
    for path in (tmp_path / "rel").iterdir():
        raw = path.read_bytes()
        assert SECRET_TEXT not in raw
        assert b"SEALPAY" not in raw
        for secret in (drawn[0], drawn[0].hex().encode()):
            assert secret not in raw, path.name


def test_two_releases_share_neither_key_nor_salt(desk: Desk, tmp_path: Path) -> None:
    """The same image packed twice gives files that have nothing in common."""
    one = packed(desk, tmp_path / "one", sealing=sealing())
    two = packed(desk, tmp_path / "two", sealing=sealing())
    assert content_key(one) != content_key(two)
    first, second = (container_of(tmp_path / name) for name in ("one", "two"))
    assert first.read_bytes()[:24] != second.read_bytes()[:24]


def test_a_wrap_of_another_release_does_not_open(desk: Desk, tmp_path: Path) -> None:
    """It is bound to the target path and to the sealed file."""
    one = packed(desk, tmp_path / "one", sealing=sealing())
    two = packed(desk, tmp_path / "two", described("2.0.0"), sealing=sealing())
    for changed in (
        replace(one, container=two.container),
        replace(one, listed=two.listed),
    ):
        with pytest.raises(DecryptError):
            content_key(changed)


def test_a_sealed_line_goes_plain_only_by_its_word(desk: Desk, tmp_path: Path) -> None:
    """A forgotten --seal is noticed before anything is made."""
    packed(desk, tmp_path / "one", sealing=sealing())
    publish(desk, Letter.open(tmp_path / "one").request)
    with pytest.raises(RefusedError) as caught:
        packed(desk, tmp_path / "two", described("2.0.0"))
    assert "--accept unsealed" in str(caught.value.hint)
    assert not (tmp_path / "two").exists()
    packed(desk, tmp_path / "two", described("2.0.0"), accept=["unsealed"])
    packed(desk, tmp_path / "three", described("3.0.0"), sealing=sealing())


# ── deltas ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("seal", [False, True], ids=["plain", "sealed"])
def test_a_delta_from_each_base_makes_the_image(
    seal: bool, desk: Desk, tmp_path: Path
) -> None:
    """Named by both digests, small, and what devices decode is the image."""
    old = written(tmp_path / "old.img", OLD)
    release = packed(
        desk, tmp_path / "rel", sealing=sealing() if seal else None, bases=[old]
    )
    (delta,) = release.deltas
    new, base = (sha256(content).hexdigest() for content in (NEW, OLD))
    assert delta.name == f"{new}-{base}.delta" + (".sealed" if seal else "")
    assert delta.length * 20 < release.container.length
    (_, _), (facts, path) = containers_of(tmp_path / "rel")
    assert facts == delta
    raw = path.read_bytes()
    plain = opened(raw, release, delta, content_key(release)) if seal else raw
    assert rebuilt(plain, release.listed.artifact, delta, OLD) == NEW


def test_names_relative_to_where_one_stands_are_understood(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that makes a delta stands elsewhere."""
    written(tmp_path / "old.img", OLD)
    monkeypatch.chdir(tmp_path)
    release = packed(desk, Path("rel"), bases=[Path("old.img")])
    assert len(release.deltas) == 1
    found = packed(desk, Path("two"), described("2.0.0"), bases=[], content=OLD)
    assert found.deltas == ()
    again = packed(desk, Path("three"), described("3.0.0"), bases=[Path("two")])
    assert len(again.deltas) == 1


def test_a_plain_release_is_a_base_and_a_sealed_one_is_not(
    desk: Desk, tmp_path: Path
) -> None:
    """Of a sealed release the content key is gone; the image itself will do."""
    packed(desk, tmp_path / "plain", content=OLD)
    packed(desk, tmp_path / "sealed", content=OLD, sealing=sealing())
    found = packed(
        desk, tmp_path / "two", described("2.0.0"), bases=[tmp_path / "plain"]
    )
    assert found.deltas[0].base_sha256 == sha256(OLD).digest()
    with pytest.raises(RefusedError, match="content key was not kept"):
        packed(desk, tmp_path / "no", described("2.0.0"), bases=[tmp_path / "sealed"])


def test_no_delta_in_the_open_from_an_image_that_was_sealed(
    desk: Desk, tmp_path: Path
) -> None:
    """With the public image and the difference anybody could make the secret one."""
    packed(desk, tmp_path / "one", content=OLD, sealing=sealing())
    publish(desk, Letter.open(tmp_path / "one").request)
    old = written(tmp_path / "old.img", OLD)
    with pytest.raises(RefusedError, match="released sealed"):
        packed(
            desk,
            tmp_path / "two",
            described("2.0.0"),
            accept=["unsealed"],
            bases=[old],
        )
    assert not (tmp_path / "two").exists()
    found = packed(
        desk, tmp_path / "two", described("2.0.0"), sealing=sealing(), bases=[old]
    )
    assert len(found.deltas) == 1


def test_a_delta_that_saves_nothing_is_thrown_away(desk: Desk, tmp_path: Path) -> None:
    """From 80 % of the full container on, devices fetch the full one."""
    other = written(tmp_path / "other.img", random.Random(8).randbytes(160_000))
    release = packed(desk, tmp_path / "rel", bases=[other])
    assert release.deltas == ()
    assert not [p for p in (tmp_path / "rel").iterdir() if "delta" in p.name]


def test_bases_are_other_images_each_once(desk: Desk, tmp_path: Path) -> None:
    """The same base twice, the image itself, and a base that is not there."""
    old, same = written(tmp_path / "old.img", OLD), written(tmp_path / "same", NEW)
    copy = written(tmp_path / "copy.img", OLD)
    for bases in ([old, copy], [same]):
        with pytest.raises(RefusedError):
            packed(desk, tmp_path / "rel", bases=bases)
    with pytest.raises(InvalidConfigError):
        packed(desk, tmp_path / "rel", bases=[tmp_path / "missing"])
    assert not (tmp_path / "rel").exists()


def test_a_base_that_changes_meanwhile_is_refused(desk: Desk, tmp_path: Path) -> None:
    """A delta is named by the digest its base had when it was looked at."""
    old = written(tmp_path / "old.img", OLD)

    def disturb(step: str, *_: object) -> None:
        if step == "packing":
            old.write_bytes(OLD[:-1] + b"!")

    with pytest.raises(LengthError):
        packed(desk, tmp_path / "rel", bases=[old], progress=disturb)
    assert not (tmp_path / "rel").exists()


def test_a_dry_run_checks_bases_and_makes_nothing(desk: Desk, tmp_path: Path) -> None:
    source = written(tmp_path / "new.img", NEW)
    before = sorted(tmp_path.iterdir())
    options: dict[str, Any] = {"now": NOW, "dry_run": True}
    good, bad = Travel(sealing=sealing()), Travel(bases=[tmp_path / "missing"])
    place = tmp_path / "rel"
    assert pack(source, place, described(), desk, travel=good, **options) is None
    with pytest.raises(InvalidConfigError):
        pack(source, place, described(), desk, travel=bad, **options)
    assert sorted(tmp_path.iterdir()) == before


# ── files ────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("member", "wrong"),
    [
        ("sealed", {}),
        ("sealed", True),
        ("deltas", {}),
        ("deltas", [{}]),
        ("deltas", [None]),
        ("deltas", None),
    ],
)
def test_facts_of_seals_and_deltas_are_read_strictly(
    member: str, wrong: object, desk: Desk, tmp_path: Path
) -> None:
    """A damaged release is no plain one without deltas."""
    packed(desk, tmp_path / "rel", sealing=sealing())
    path = tmp_path / "rel/release.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, member: wrong}))
    with pytest.raises(FormatError):
        read_release(tmp_path / "rel")


def test_a_release_packed_before_there_were_seals_reads_on(
    desk: Desk, tmp_path: Path
) -> None:
    """Without the two members it is plain and has no deltas."""
    release = packed(desk, tmp_path / "rel")
    path = tmp_path / "rel/release.json"
    found = json.loads(path.read_text())
    del found["deltas"], found["sealed"]
    path.write_text(json.dumps(found))
    assert read_release(tmp_path / "rel") == release


def test_a_missing_or_cut_delta_is_noticed_before_it_is_uploaded(
    desk: Desk, tmp_path: Path
) -> None:
    old = written(tmp_path / "old.img", OLD)
    release = packed(desk, tmp_path / "rel", bases=[old])
    path = tmp_path / "rel" / release.deltas[0].name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LengthError):
        containers_of(tmp_path / "rel")
    path.unlink()
    with pytest.raises(InvalidConfigError):
        containers_of(tmp_path / "rel")


def test_the_desk_keeps_the_servers_key(desk: Desk, tmp_path: Path) -> None:
    """Written and read; a desk without it says where it comes from."""
    with pytest.raises(InvalidConfigError) as caught:
        desk.content_key()
    assert "content-key.json" in str(caught.value.hint)
    write_content_key(desk.path / "content-key.json", SERVER.recipient)
    assert desk.content_key() == SERVER.recipient
    assert read_content_key(desk.path / "content-key.json") == SERVER.recipient


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"kid": "00" * 8},
        {"kid": None},
        {"kem": "x448"},
        {"public": "00" * 32},
        {"public": "11" * 31},
    ],
    ids=str,
)
def test_another_file_is_no_content_key_key(
    change: dict[str, object], tmp_path: Path
) -> None:
    """Another version, an id that is not the key's, a point of small order."""
    path = tmp_path / "content-key.json"
    write_content_key(path, SERVER.recipient)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises((MalformedError, FormatError)):
        read_content_key(path)


def test_sealing_a_large_image_is_told_in_its_own_step(
    desk: Desk, tmp_path: Path
) -> None:
    """Packing, then sealing; the last step ends at the length of the container."""
    seen: list[tuple[str, int, int]] = []
    release = packed(
        desk,
        tmp_path / "rel",
        sealing=sealing(),
        progress=lambda *step: seen.append(step),
    )
    plain = plain_length(release.container.length)
    assert seen[-1] == ("sealing", plain, plain)
    assert {step for step, _, _ in seen} == {"packing", "sealing"}
    assert plain > CHUNK
