"""The Image repository: what may be published, in which order, and what is renewed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from tuf.api.metadata import Targets

from sealift.core.errors import (
    ConflictError,
    ExpiredError,
    LimitError,
    MalformedError,
    NotFoundError,
    RollbackError,
    SealiftError,
    SignatureError,
    StateError,
    UnsafeNameError,
)
from sealift.core.trust import accept, resume, wanted
from sealift.core.trusted import Complete, Want, image_rules
from sealift.core.types import Bootable, BootKind
from sealift.repo.entries import Listed
from sealift.repo.image import (
    ImageSigners,
    artifacts,
    check_targets,
    propose_targets,
    publish,
    refresh,
    renew_at,
)
from sealift.repo.repository import DictStore, file_name, read, sign
from sealift.repo.roots import publish_root
from tests.vendor import (
    NOW,
    Vendor,
    artifact,
    image_roles,
    image_root,
    image_signers,
    online,
    people,
    rule,
    signer,
)

HOUR = timedelta(hours=1)
FIRST = Listed(artifact("1.0.0", 1), 1)
SECOND = Listed(artifact("1.1.0", 2), 2, sbom_sha256=b"s" * 32)
SEALED = Listed(artifact("1.2.0", 2), 3, sealed=True)


def verified(store: DictStore, now: Any = NOW) -> Complete:
    """What a device makes of the repository, with its own verifier."""
    state = resume(image_rules(), store.files["1.root.json"], lambda _: None)
    while isinstance(want := wanted(state), Want):
        name = file_name(want.role, want.version or 0)
        state = accept(state, want, store.read(name), now)
    return want


def published() -> Vendor:
    vendor = Vendor()
    publish(vendor.store, vendor.targets(FIRST), signers=image_signers(), now=NOW)
    return vendor


def test_a_device_accepts_what_was_published() -> None:
    """Root, Timestamp, Snapshot and Targets verify with the device's own code."""
    found = verified(published().store)
    assert list(found.targets.body.targets) == [FIRST.artifact.name]


def test_entries_come_back_as_the_artifacts_they_were() -> None:
    """Artifact, sequence, SBOM, seal and boot file survive the way through metadata."""
    vendor = Vendor()
    third = Listed(artifact("3.0.0", 3, bootable=BOOTABLE), 9)
    raw = vendor.targets(FIRST, SECOND, SEALED, third)
    found = artifacts(read(raw, Targets).signed)
    entries = (FIRST, SECOND, SEALED, third)
    assert found == {entry.artifact.name: entry for entry in entries}


def test_C7_a_published_name_never_stops_being_sealed() -> None:
    """Sealed or not is part of what a name stands for, like its digest."""
    vendor = Vendor()
    current = read(vendor.targets(SEALED), Targets).signed
    with pytest.raises(ConflictError):
        vendor.targets(replace(SEALED, sealed=False), current=current)


def test_C7_sealed_is_true_or_false() -> None:
    """An entry that says something else is not one of ours."""
    targets = read(Vendor().targets(SEALED), Targets).signed
    entry = targets.targets[SEALED.artifact.name]
    entry.custom["payload"]["sealed"] = "yes"
    with pytest.raises(MalformedError):
        artifacts(targets)


class Recording(DictStore):
    """A store that remembers the order of writes, and may die before one of them."""

    def __init__(self, files: dict[str, bytes], dies_at: int = 99) -> None:
        super().__init__(files)
        self.written: list[str] = []
        self.dies_at = dies_at

    def write(self, name: str, raw: bytes) -> None:
        if len(self.written) == self.dies_at:
            raise StateError("power cut")
        self.written.append(name)
        super().write(name, raw)


def test_I5_order_of_publication() -> None:
    """Targets, then Snapshot, then Timestamp, so that no reader meets a half state."""
    vendor = Vendor()
    store = Recording(vendor.store.files)
    publish(store, vendor.targets(FIRST), signers=image_signers(), now=NOW)
    assert store.written == ["1.targets.json", "1.snapshot.json", "timestamp.json"]


@pytest.mark.parametrize("dies_at", [0, 1, 2])
def test_a_cut_between_two_writes_is_mended_by_publishing_again(dies_at: int) -> None:
    """After each cut the old state is served whole, and the next try finishes."""
    vendor = published()
    current = read(vendor.store.files["1.targets.json"], Targets).signed
    raw = vendor.targets(SECOND, current=current)
    cut = Recording(vendor.store.files, dies_at)
    with pytest.raises(StateError):
        publish(cut, raw, signers=image_signers(), now=NOW)
    assert verified(cut).targets.body.version == 1
    cut.dies_at = 99
    assert publish(cut, raw, signers=image_signers(), now=NOW).changed
    assert verified(cut).targets.body.version == 2


def test_publishing_again_changes_nothing() -> None:
    """The same bytes twice are one publication."""
    vendor = published()
    before = dict(vendor.store.files)
    again = publish(
        vendor.store, before["1.targets.json"], signers=image_signers(), now=NOW
    )
    assert (again.changed, vendor.store.files) == (False, before)


# ── what is not published ────────────────────────────────────────────────────────────
def test_B02_one_signature_less_than_the_threshold_is_refused() -> None:
    """k-1 real keys, and k-1 with junk beside them, publish nothing."""
    vendor = Vendor()
    proposed = propose_targets(None, add=[FIRST], now=NOW)
    one = sign(proposed, people("image", "targets")[:1])
    junk = sign(proposed, [people("image", "targets")[0], signer("junk")])
    for raw in (one, junk):
        with pytest.raises(SignatureError):
            publish(vendor.store, raw, signers=image_signers(), now=NOW)
    assert vendor.store.names() == ["1.root.json"]


def test_B03_the_online_keys_cannot_publish_targets() -> None:
    """Timestamp and Snapshot keys on Targets count nothing."""
    vendor = Vendor()
    raw = sign(
        propose_targets(None, add=[FIRST], now=NOW),
        [online("image", "snapshot"), online("image", "timestamp")],
    )
    with pytest.raises(SignatureError):
        publish(vendor.store, raw, signers=image_signers(), now=NOW)


def test_versions_only_rise() -> None:
    """The same version with other content, and a lower one, are refused."""
    vendor = published()
    other = vendor.targets(SECOND)
    with pytest.raises(RollbackError):
        publish(vendor.store, other, signers=image_signers(), now=NOW)


def test_a_name_keeps_its_meaning() -> None:
    """A published name never comes to stand for other bytes."""
    vendor = published()
    current = read(vendor.store.files["1.targets.json"], Targets).signed
    changed = Listed(artifact("1.0.0", 7), 1)
    with pytest.raises(ConflictError):
        propose_targets(current, add=[changed], now=NOW)
    forged = propose_targets(None, add=[changed], now=NOW)
    forged.version = 2
    with pytest.raises(ConflictError):
        publish(
            vendor.store,
            sign(forged, people("image", "targets")),
            signers=image_signers(),
            now=NOW,
        )


def test_expired_targets_are_refused() -> None:
    """What devices would refuse as expired is not published."""
    vendor = Vendor()
    raw = vendor.targets(FIRST, now=NOW - timedelta(days=200))
    with pytest.raises(ExpiredError):
        check_targets(vendor.root, raw, None, now=NOW)


BOOTABLE = Bootable(
    BootKind.FIT, 3 << 19, 1 << 19, bytes(32), bytes(32), bytes(32), 256
)

# what is wrong → the artifact
BAD = {
    "a boot file in the data": (
        MalformedError,
        artifact(bootable=replace(BOOTABLE, offset=1 << 20)),
    ),
    "a boot file too long": (
        MalformedError,
        artifact(bootable=replace(BOOTABLE, length=3 << 19 | 1)),
    ),
    "a step up": (UnsafeNameError, artifact(name="../rootfs-1.0.0.img")),
    "an absolute path": (UnsafeNameError, artifact(name="/rootfs-1.0.0.img")),
    "an empty part": (UnsafeNameError, artifact(name="board//rootfs-1.0.0.img")),
    "a backslash": (UnsafeNameError, artifact(name="board\\rootfs-1.0.0.img")),
    "a pattern": (UnsafeNameError, artifact(name="board/*-1.0.0.img")),
    "a control character": (UnsafeNameError, artifact(name="board/a\x1b-1.0.0.img")),
    "no hardware": (LimitError, artifact(hardware_ids=())),
    "no bytes": (LimitError, artifact(length=0)),
    "a counter too high": (LimitError, artifact(counter=2**53)),
    "an empty version": (LimitError, artifact(version="")),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_artifacts_are_not_proposed(what: str) -> None:
    """Nobody is asked to sign what no device could take."""
    error, bad = BAD[what]
    with pytest.raises(error):
        propose_targets(None, add=[Listed(bad, 1)], now=NOW)


def test_what_is_not_listed_cannot_be_removed() -> None:
    """A typing error in a name is told, not passed over."""
    with pytest.raises(NotFoundError):
        propose_targets(None, remove=["board/rootfs-9.img"], now=NOW)


def test_a_signed_entry_of_a_foreign_form_is_refused() -> None:
    """Signatures do not excuse an entry that is not one of ours."""
    vendor = Vendor()
    proposed = propose_targets(None, add=[FIRST], now=NOW)
    del proposed.targets[FIRST.artifact.name].custom["release"]
    with pytest.raises(MalformedError):
        publish(
            vendor.store,
            sign(proposed, people("image", "targets")),
            signers=image_signers(),
            now=NOW,
        )


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b'{"signed": 1, "signatures": []}', b"\xff", b"[" * 100_000],
)
def test_garbage_is_refused(raw: bytes) -> None:
    """Whatever is uploaded, the answer is an error of ours."""
    vendor = Vendor()
    with pytest.raises(SealiftError):
        publish(vendor.store, raw, signers=image_signers(), now=NOW)
    assert vendor.store.names() == ["1.root.json"]


# ── renewal ──────────────────────────────────────────────────────────────────────────
def test_D12_the_online_files_are_renewed_in_time() -> None:
    """Timestamp at half a day, Snapshot at half a week; nothing before."""
    store = published().store
    again = partial(refresh, store, signers=image_signers())
    assert renew_at(store) == NOW + 12 * HOUR
    assert not again(now=NOW + 12 * HOUR - timedelta(seconds=1))
    assert again(now=NOW + 12 * HOUR)
    assert "2.snapshot.json" not in store.files
    assert again(now=NOW + 84 * HOUR)
    assert "2.snapshot.json" in store.files
    assert verified(store, NOW + 84 * HOUR).timestamp.version == 3


def test_a_new_root_has_the_online_files_signed_by_its_keys() -> None:
    """After a rotation the files of the old key are replaced at once."""
    vendor = published()
    fresh = signer("image-timestamp-fresh")
    roles = image_roles(timestamp=rule([fresh], 1))
    root = image_root(roles=roles, version=2)
    publish_root(vendor.store, sign(root, people("image", "root")))
    with pytest.raises(SignatureError):
        refresh(vendor.store, signers=image_signers(), now=NOW)
    signers = ImageSigners(online("image", "snapshot"), fresh)
    assert refresh(vendor.store, signers=signers, now=NOW)
    assert verified(vendor.store).root.version == 2


def test_without_a_root_nothing_is_published() -> None:
    """A store without Root has nobody who could vouch."""
    with pytest.raises(StateError):
        publish(DictStore(), Vendor().targets(), signers=image_signers(), now=NOW)
