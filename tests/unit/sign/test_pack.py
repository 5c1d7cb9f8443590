"""Packing: what comes out, what is refused, and that nothing is half written."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sealift.core.errors import (
    ConflictError,
    FormatError,
    InvalidConfigError,
    LengthError,
    LimitError,
    RefusedError,
    SealiftError,
    UnsafeNameError,
)
from sealift.repo import signing
from sealift.repo.image import artifacts
from sealift.repo.signers import load_signer
from sealift.sign.desk import Desk
from sealift.sign.pack import Description, pack
from sealift.sign.release import (
    Release,
    container_of,
    keep,
    propose,
    propose_renewal,
    read_release,
)
from sealift.sign.travel import Letter
from tests.vendor import NOW


def described(version: str = "1.0.0", counter: Any = 3, **changes: Any) -> Description:
    facts: dict[str, Any] = {
        "product": "board",
        "component": "rootfs",
        "version": version,
        "hardware_ids": ("board-r1",),
        "counter": counter,
    }
    return Description(**{**facts, **changes})


def image(directory: Path, content: bytes = b"an image " * 1000) -> Path:
    path = directory / "rootfs.img"
    path.write_bytes(content)
    return path


def packed(desk: Desk, out: Path, found: Description, **options: Any) -> Release:
    release = pack(image(out.parent), out, found, desk, now=NOW, **options)
    assert release is not None
    return release


def publish(desk: Desk, request: signing.Request) -> None:
    """Two people sign, and the desk keeps what a server would have taken."""
    for name in ("image-targets-1", "image-targets-2"):
        signer = load_signer(str(desk.keys / f"{name}.pem"))
        request = signing.sign_request(request, signer)
    keep(desk, request, signing.finish(request), NOW)


# ── what comes out ───────────────────────────────────────────────────────────────────
def test_a_release_holds_container_facts_and_request(
    desk: Desk, tmp_path: Path
) -> None:
    """Three files; the facts are those of the image and of the container."""
    release = packed(desk, tmp_path / "rel", described())
    names = sorted(p.name for p in (tmp_path / "rel").iterdir())
    assert names == ["board-rootfs-1.0.0.full", "release.json", "request.json"]
    raw = (tmp_path / "rel/board-rootfs-1.0.0.full").read_bytes()
    content = b"an image " * 1000
    one = release.listed.artifact
    assert (one.length, one.sha256) == (len(content), sha256(content).digest())
    assert release.container.length == len(raw)
    assert release.container.sha256 == sha256(raw).digest()
    assert read_release(tmp_path / "rel") == release


def test_the_request_lists_exactly_the_release(desk: Desk, tmp_path: Path) -> None:
    """What is to be signed is what was packed, and starts from the desk's Targets."""
    release = packed(desk, tmp_path / "rel", described())
    request = Letter.open(tmp_path / "rel").request
    assert artifacts(request.proposed.signed) == {
        "board/rootfs-1.0.0.img": release.listed
    }
    assert (request.version, request.root) == (2, desk.root("image"))


def test_an_sbom_is_bound_by_its_digest(desk: Desk, tmp_path: Path) -> None:
    """The signed entry names the SBOM's SHA-256."""
    sbom = tmp_path / "sbom.json"
    sbom.write_text("{}")
    packed(desk, tmp_path / "rel", described(), sbom=sbom)
    request = Letter.open(tmp_path / "rel").request
    (entry,) = artifacts(request.proposed.signed).values()
    assert entry.sbom_sha256 == sha256(b"{}").digest()


def test_progress_ends_at_the_length_of_the_image(desk: Desk, tmp_path: Path) -> None:
    """Steps are told in bytes of the image."""
    seen: list[tuple[str, int, int]] = []
    packed(
        desk,
        tmp_path / "rel",
        described(),
        progress=lambda *step: seen.append(step),
    )
    assert seen[-1] == ("packing", 9000, 9000)


def test_a_dry_run_writes_nothing(desk: Desk, tmp_path: Path) -> None:
    """Everything is checked, nothing is made."""
    source = image(tmp_path)
    before = sorted(tmp_path.iterdir())
    made = pack(source, tmp_path / "rel", described(), desk, now=NOW, dry_run=True)
    assert made is None
    assert sorted(tmp_path.iterdir()) == before


def test_sequences_count_up_over_all_products(desk: Desk, tmp_path: Path) -> None:
    """Each release has a number of its own."""
    packed(desk, tmp_path / "one", described())
    publish(desk, Letter.open(tmp_path / "one").request)
    second = packed(desk, tmp_path / "two", described(component="app"))
    assert second.listed.sequence == 2


# ── what is refused ──────────────────────────────────────────────────────────────────
NAMES = ["", "..", "a/b", "a b", "-x", ".hidden", "a\n", "é", "x" * 65, "a%2f", "a."]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("member", ["product", "component", "version"])
def test_C20_unsafe_names_are_refused(
    member: str, name: str, desk: Desk, tmp_path: Path
) -> None:
    """No name that could be a path, an option or markup."""
    with pytest.raises(UnsafeNameError):
        packed(desk, tmp_path / "rel", described(**{member: name}))
    assert not (tmp_path / "rel").exists()


@pytest.mark.parametrize("ids", [(), ("a", "a"), ("",), ("x" * 129,), ("a\x00",)])
def test_bad_hardware_ids_are_refused(
    ids: tuple[str, ...], desk: Desk, tmp_path: Path
) -> None:
    """At least one, each once, each printable."""
    with pytest.raises(SealiftError):
        packed(desk, tmp_path / "rel", described(hardware_ids=ids))
    assert not (tmp_path / "rel").exists()


def test_an_empty_image_is_refused(desk: Desk, tmp_path: Path) -> None:
    """Nothing is no image."""
    with pytest.raises(LimitError):
        pack(image(tmp_path, b""), tmp_path / "rel", described(), desk, now=NOW)


def test_an_image_above_64_gib_is_refused_at_once(desk: Desk, tmp_path: Path) -> None:
    """By its length, before a byte is read."""
    path = tmp_path / "huge"
    with path.open("wb") as stream:
        stream.truncate((1 << 36) + 1)
    with pytest.raises(LimitError):
        pack(path, tmp_path / "rel", described(), desk, now=NOW)


def test_what_is_no_image_is_refused(desk: Desk, tmp_path: Path) -> None:
    """A directory, a pipe, a missing file, an unreadable place for the release."""
    os.mkfifo(tmp_path / "pipe")
    for bad in (tmp_path, tmp_path / "pipe", tmp_path / "missing"):
        with pytest.raises(InvalidConfigError):
            pack(bad, tmp_path / "rel", described(), desk, now=NOW)
    with pytest.raises(InvalidConfigError):
        pack(image(tmp_path), tmp_path / "no/such/place", described(), desk, now=NOW)


def test_an_existing_release_is_not_overwritten(desk: Desk, tmp_path: Path) -> None:
    """--out names a new directory."""
    packed(desk, tmp_path / "rel", described())
    with pytest.raises(InvalidConfigError, match="exists already"):
        packed(desk, tmp_path / "rel", described("1.1.0"))


def test_an_image_that_changes_while_it_is_read_is_refused(
    desk: Desk, tmp_path: Path
) -> None:
    """A build still running does not become a release, and leaves nothing behind."""
    source = image(tmp_path, os.urandom(3 << 20))

    def disturb(*_: object) -> None:
        with source.open("ab") as stream:
            stream.write(b"more")

    with pytest.raises(LengthError):
        pack(source, tmp_path / "rel", described(), desk, now=NOW, progress=disturb)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["desk", "rootfs.img"]


# version, counter → the word that accepts it; 1.0.0 with counter 3 is published
LINES = [
    ("1.0.1", 3, None),
    ("1.0.1", 9, None),
    ("1.0.0+1", 3, None),
    ("1.0.00", 3, "older-version"),
    ("0.9.0", 3, "older-version"),
    ("1.0.0~rc1", 3, "older-version"),
    ("1.0.1", 2, "lower-counter"),
]


@pytest.mark.parametrize(("version", "counter", "word"), LINES)
def test_W4_versions_and_counters_go_up_or_are_accepted_by_name(
    version: str, counter: int, word: str | None, desk: Desk, tmp_path: Path
) -> None:
    """What devices would refuse later is refused now, unless it is meant."""
    packed(desk, tmp_path / "first", described())
    publish(desk, Letter.open(tmp_path / "first").request)
    found = described(version, counter)
    if word is not None:
        with pytest.raises(RefusedError) as caught:
            packed(desk, tmp_path / "rel", found)
        assert f"--accept {word}" in str(caught.value.hint)
    packed(desk, tmp_path / "rel", found, accept=[word] if word else [])


def test_a_released_name_is_never_reused(desk: Desk, tmp_path: Path) -> None:
    """The same version again is refused even when its order is accepted."""
    packed(desk, tmp_path / "first", described())
    publish(desk, Letter.open(tmp_path / "first").request)
    other = tmp_path / "other.img"
    other.write_bytes(b"other")
    with pytest.raises(ConflictError):
        pack(
            other,
            tmp_path / "rel",
            described(),
            desk,
            now=NOW,
            accept=["older-version"],
        )


# ── later ────────────────────────────────────────────────────────────────────────────
def test_a_release_is_proposed_again_from_newer_targets(
    desk: Desk, tmp_path: Path
) -> None:
    """When another release came first, the container stays and the request is new."""
    late = packed(desk, tmp_path / "late", described("2.0.0"))
    packed(desk, tmp_path / "early", described("1.0.0"))
    publish(desk, Letter.open(tmp_path / "early").request)
    request = propose(late, desk, NOW)
    assert request.version == 3
    assert set(request.proposed.signed.targets) == {
        "board/rootfs-1.0.0.img",
        "board/rootfs-2.0.0.img",
    }


def test_targets_are_renewed_and_images_taken_back(desk: Desk, tmp_path: Path) -> None:
    """The same list later, or with less in it."""
    packed(desk, tmp_path / "rel", described())
    publish(desk, Letter.open(tmp_path / "rel").request)
    same = propose_renewal(desk, [], NOW)
    less = propose_renewal(desk, ["board/rootfs-1.0.0.img"], NOW)
    assert len(same.proposed.signed.targets) == 1
    assert less.proposed.signed.targets == {}


def test_an_incomplete_release_is_not_published(desk: Desk, tmp_path: Path) -> None:
    """A lost or cut container is noticed before anything is uploaded."""
    packed(desk, tmp_path / "rel", described())
    path = container_of(tmp_path / "rel")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LengthError):
        container_of(tmp_path / "rel")
    path.unlink()
    with pytest.raises(InvalidConfigError):
        container_of(tmp_path / "rel")


@pytest.mark.parametrize("member", ["schema", "artifact", "sequence", "container"])
def test_damaged_facts_are_refused(member: str, desk: Desk, tmp_path: Path) -> None:
    """release.json is read as strictly as everything else."""
    packed(desk, tmp_path / "rel", described())
    path = tmp_path / "rel/release.json"
    found = json.loads(path.read_text())
    wrong_values: list[object] = [None, "x", -1, {}]
    for wrong in wrong_values:
        path.write_text(json.dumps({**found, member: wrong}))
        with pytest.raises(FormatError):
            read_release(tmp_path / "rel")
