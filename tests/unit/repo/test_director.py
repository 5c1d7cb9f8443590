"""One device's files: what is signed when, and for whom."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from sealift.core.encryption import unwrap, wrap_info
from sealift.core.errors import (
    DecryptError,
    LengthError,
    LimitError,
    MalformedError,
    MisdirectedError,
    UnsafeNameError,
)
from sealift.core.hpke import PrivateKey
from sealift.core.metadata import DIRECTOR, Profile, Reader
from sealift.core.trust import accept, resume, wanted
from sealift.core.trusted import Complete, Want, director_rules
from sealift.core.types import Patch, PatchKind, Seal
from sealift.repo.director import (
    JUMP_MAX,
    DirectorSigners,
    Issued,
    Lifetimes,
    Order,
    Sealing,
    Step,
    Versions,
    issue,
    next_step,
    next_version,
)
from sealift.repo.repository import sign
from tests.vendor import (
    NOW,
    artifact,
    container,
    director_root,
    director_signers,
    online,
    order,
    people,
)

HOUR = timedelta(hours=1)
PATCH = Patch(PatchKind.SEQUENTIAL, "x.patch", 9, bytes(32), 9, bytes(32), 8, 7)


def issued(*orders: Any, device: str = "dev-1", now: datetime = NOW) -> Issued:
    return issue(device, orders, None, signers=director_signers(), now=now)


def verified(found: Issued, device: str = "dev-1", now: datetime = NOW) -> Complete:
    """What a device makes of the files, with its own verifier."""
    root = sign(director_root(), people("director", "root"))
    files = {
        "timestamp": found.timestamp,
        "snapshot": found.snapshot,
        "targets": found.targets,
    }
    state = resume(director_rules(device), root, lambda _: None)
    while isinstance(want := wanted(state), Want):
        state = accept(state, want, files.get(want.role), now)
    return want


def test_a_device_accepts_what_it_was_issued() -> None:
    """Targets, Snapshot and Timestamp verify with the device's own code."""
    found = verified(issued(order()))
    assert list(found.targets.body.targets) == ["board/rootfs-1.0.0.img"]


def test_X1_every_file_names_its_device_and_its_moment() -> None:
    """device_id and issued stand in all three files."""
    found = issued()
    reader = Reader(Profile.SEALIFT, DIRECTOR)
    for body in (
        reader.targets(found.targets).body,
        reader.snapshot(found.snapshot).body,
        reader.timestamp(found.timestamp).body,
    ):
        assert (body.device_id, body.issued) == ("dev-1", NOW)


def test_X1_another_device_refuses_them() -> None:
    """Files for one device are misdirected at another."""
    with pytest.raises(MisdirectedError):
        verified(issued(order()), device="dev-2")


def test_C6_without_orders_the_device_still_gets_its_own_files() -> None:
    """An empty list of orders is a signed statement for this device."""
    assert verified(issued()).targets.body.targets == {}


def test_nothing_new_is_the_same_object() -> None:
    """Without news and with life left, nothing is signed and nothing is to be stored."""
    before = issued(order())
    after = issue(
        "dev-1", [order()], before, signers=director_signers(), now=NOW + 11 * HOUR
    )
    assert after is before


# moment after issuing → what has to be signed; lifetimes are 24 hours
AGES = [
    (timedelta(0), Step.KEEP),
    (12 * HOUR - timedelta(seconds=1), Step.KEEP),
    (12 * HOUR, Step.TIMESTAMP),
    (18 * HOUR - timedelta(seconds=1), Step.TIMESTAMP),
    (18 * HOUR, Step.ALL),
    (timedelta(days=900), Step.ALL),
]


@pytest.mark.parametrize(("age", "step"), AGES, ids=str)
def test_D12_old_files_are_signed_in_time(age: timedelta, step: Step) -> None:
    """Timestamp at half of its life, the others at three quarters, also without news."""
    assert next_step(issued(), [], now=NOW + age) is step


def test_D12_a_renewed_timestamp_leads_to_the_same_snapshot() -> None:
    """Only the timestamp changes, and the device follows it."""
    before = issued(order())
    after = issue(
        "dev-1", [order()], before, signers=director_signers(), now=NOW + 13 * HOUR
    )
    assert (after.targets, after.snapshot) == (before.targets, before.snapshot)
    assert after.versions == Versions(1, 1, 2)
    assert verified(after, now=NOW + 23 * HOUR).timestamp.version == 2


def test_renew_at_is_the_moment_of_the_next_step() -> None:
    """A caller may compare one moment instead of asking."""
    found = issued()
    assert next_step(found, [], now=found.renew_at - timedelta(seconds=1)) is Step.KEEP
    assert next_step(found, [], now=found.renew_at) is Step.TIMESTAMP


def test_other_orders_raise_every_version() -> None:
    """A new order means new Targets, Snapshot and Timestamp."""
    before = issued(order())
    after = issue(
        "dev-1", [order(version="1.1.0")], before, signers=director_signers(), now=NOW
    )
    assert after.versions == Versions(2, 2, 2)


# own record, reported → next (D11)
VERSIONS = [
    (0, 0, 1),
    (5, 0, 6),
    (5, 9, 10),
    (5, 5 + JUMP_MAX, 5 + JUMP_MAX + 1),
    (5, 5 + JUMP_MAX + 1, 5 + JUMP_MAX + 1),
    (0, 2**53 - 1, JUMP_MAX + 1),
]


@pytest.mark.parametrize(("own", "reported", "following"), VERSIONS)
def test_D11_versions_follow_what_the_device_reports(
    own: int, reported: int, following: int
) -> None:
    """After a database restore the device's versions count; a lie moves us 2^20."""
    assert next_version(own, reported) == following


def test_D11_the_range_of_versions_ends_with_an_error() -> None:
    """No version above 2^53-1 is ever made."""
    assert next_version(2**53 - 2, 0) == 2**53 - 1
    with pytest.raises(LimitError):
        next_version(2**53 - 1, 0)


def test_D11_a_device_ahead_of_our_record_gets_newer_files() -> None:
    """An old backup of the server does not strand its devices."""
    before = issued(order())
    after = issue(
        "dev-1",
        [order()],
        before,
        reported=Versions(40, 50, 60),
        signers=director_signers(),
        now=NOW,
    )
    assert after.versions == Versions(41, 51, 61)


def test_G7_one_ecu_is_ordered_once() -> None:
    """Two orders for one ECU are refused before anything is signed."""
    with pytest.raises(MalformedError):
        issued(order(), order(version="1.1.0"))


def test_ecus_with_the_same_artifact_share_an_entry() -> None:
    """One path, several ECUs, each with its own container."""
    found = verified(issued(order("dev-1-main"), order("dev-1-spare")))
    (target,) = found.targets.body.targets.values()
    assert target.custom is not None
    assert set(target.custom.ecus) == {"dev-1-main", "dev-1-spare"}


# what is wrong → the orders
BAD = {
    "two artifacts of one name": (
        MalformedError,
        [order("a"), order("b", artifact=artifact(length=5))],
    ),
    "a path out of the repository": (
        UnsafeNameError,
        [order(artifact=artifact(name="../x.img"))],
    ),
    "an ECU id with a control character": (LimitError, [order("a\nb")]),
    "an empty hardware id": (LimitError, [order(hardware_id="")]),
    "a counter out of range": (LimitError, [order(artifact=artifact(counter=2**53))]),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_orders_are_refused(what: str) -> None:
    """Nothing is signed that no device could take."""
    error, orders = BAD[what]
    with pytest.raises(error):
        issued(*orders)


# ── C7: sealed orders ────────────────────────────────────────────────────────────────
OWN = PrivateKey("x25519", bytes([1] * 32))
CONTENT_KEY = bytes(range(32))


class Sealer:
    """A source of content keys and chance that counts how often it was asked."""

    def __init__(self) -> None:
        self.opened = 0
        self.drawn = 0

    def content_key(self) -> bytes:
        self.opened += 1
        return CONTENT_KEY

    def draw(self, count: int) -> bytes:
        self.drawn += 1
        return bytes([self.drawn + 1] * count)

    def order(self, own: PrivateKey = OWN, **changes: Any) -> Order:
        sealing = Sealing(own.recipient, self.content_key, self.draw)
        full = replace(container(), name="rootfs-1.0.0.full.sealed")
        return order(**{"full": full, "sealing": sealing, **changes})


def seal_of(found: Issued, ecu: str = "dev-1-main") -> Seal:
    (target,) = verified(found).targets.body.targets.values()
    assert target.custom is not None
    seal = target.custom.ecus[ecu].sealed
    assert seal is not None
    return seal


def content_key(found: Issued, own: PrivateKey, **named: Any) -> bytes:
    """What the device ``dev-1`` makes of the wrap it was issued."""
    bound = {
        "tenant": "default",
        "device_id": "dev-1",
        "ecu_id": "dev-1-main",
        "path": "board/rootfs-1.0.0.img",
        "sealed_sha256": container().sha256,
        "director_version": found.versions.targets,
    }
    data = seal_of(found).wrap.data
    return unwrap(own.kem, own.public, own.dh, data, wrap_info(**{**bound, **named}))


@pytest.mark.parametrize("kem", ["x25519", "p256"])
def test_C7_a_sealed_order_carries_the_key_for_this_device_alone(kem: str) -> None:
    """The wrap opens with the device's key, and only for what it was made for."""
    own = PrivateKey(kem, bytes([1] * 32))
    found = issued(Sealer().order(own))
    assert seal_of(found).wrap.kid == own.recipient.kid
    assert content_key(found, own) == CONTENT_KEY
    for wrong in ({"director_version": 2}, {"ecu_id": "x"}, {"device_id": "dev-2"}):
        with pytest.raises(DecryptError):
            content_key(found, own, **wrong)
    with pytest.raises(DecryptError):
        content_key(found, PrivateKey(kem, bytes([3] * 32)))


def test_C7_a_wrap_alone_is_no_reason_to_sign() -> None:
    """An unchanged sealed order is kept, and costs neither chance nor a content key."""
    sealer = Sealer()
    before = issued(sealer.order())
    assert (sealer.opened, sealer.drawn) == (1, 1)
    after = issue(
        "dev-1", [sealer.order()], before, signers=director_signers(), now=NOW + HOUR
    )
    assert after is before
    assert (sealer.opened, sealer.drawn) == (1, 1)


def test_C7_a_renewed_timestamp_keeps_the_wrap() -> None:
    """It is bound to the version of Targets, which stays."""
    sealer = Sealer()
    before = issued(sealer.order())
    later = NOW + 13 * HOUR
    after = issue(
        "dev-1", [sealer.order()], before, signers=director_signers(), now=later
    )
    assert after.versions == Versions(1, 1, 2)
    assert seal_of(after) == seal_of(before)


def test_C7_renewed_targets_carry_a_new_wrap() -> None:
    """Fresh randomness, the new version, and the old wrap opens nothing there."""
    sealer = Sealer()
    before = issued(sealer.order())
    after = issue(
        "dev-1",
        [sealer.order()],
        before,
        signers=director_signers(),
        now=NOW + 20 * HOUR,
    )
    assert after.versions.targets == 2
    assert seal_of(after).wrap.data != seal_of(before).wrap.data
    assert content_key(after, OWN) == CONTENT_KEY


@pytest.mark.parametrize("kem", ["x25519", "p256"])
def test_C7_another_key_of_the_device_is_a_reason_to_sign(kem: str) -> None:
    """A device that was given a new key gets a wrap for it at once."""
    sealer, other = Sealer(), PrivateKey(kem, bytes([5] * 32))
    before = issued(sealer.order())
    wanted = [sealer.order(other)]
    assert next_step(before, wanted, now=NOW) is Step.ALL
    after = issue("dev-1", wanted, before, signers=director_signers(), now=NOW)
    assert content_key(after, other) == CONTENT_KEY


def test_C7_sealed_or_not_is_a_reason_to_sign() -> None:
    """The same containers without the seal are another order."""
    sealed = Sealer().order()
    before = issued(sealed)
    assert next_step(before, [replace(sealed, sealing=None)], now=NOW) is Step.ALL
    assert next_step(issued(replace(sealed, sealing=None)), [sealed], now=NOW) is (
        Step.ALL
    )


def test_C7_each_ecu_has_a_wrap_of_its_own() -> None:
    """Two units with one artifact: one key, two wraps that cannot be exchanged."""
    sealer = Sealer()
    found = issued(sealer.order(), sealer.order(ecu_id="dev-1-spare"))
    assert seal_of(found) != seal_of(found, "dev-1-spare")
    assert content_key(found, OWN) == CONTENT_KEY


def test_C7_no_content_key_is_shown_by_accident() -> None:
    """Neither the order nor the files say the key in clear."""
    sealer = Sealer()
    found = issued(sealer.order())
    assert CONTENT_KEY.hex() not in found.targets.decode()
    assert "content_key" not in repr(sealer.order())


BAD_SEALED: dict[str, Any] = {
    "a length no sealed file has": (
        LengthError,
        {"full": replace(container(), length=56 + 16_400 + 3)},
    ),
    "a patch in the open": (MalformedError, {"patch": PATCH}),
}


@pytest.mark.parametrize("what", BAD_SEALED)
def test_C7_bad_sealed_orders_are_refused(what: str) -> None:
    """What no device could take, or tells what is sealed, before anything is signed."""
    error, changes = BAD_SEALED[what]
    with pytest.raises(error):
        next_step(None, [Sealer().order(**changes)], now=NOW)


def test_a_record_of_another_device_is_refused() -> None:
    """Mixing up two devices is an error, not a wrong file."""
    with pytest.raises(MalformedError):
        issue("dev-2", [], issued(), signers=director_signers(), now=NOW)


def test_files_of_two_devices_are_not_one_record() -> None:
    """A record is read back only if all its files are of one device."""
    one, other = issued(), issued(device="dev-2")
    with pytest.raises(MalformedError):
        Issued.parse(one.targets, other.snapshot, one.timestamp)


@pytest.mark.parametrize("days", [0, -1, 401])
def test_impossible_lifetimes_are_refused(days: int) -> None:
    """A life of nothing or above 400 days is never signed."""
    with pytest.raises(LimitError):
        issue(
            "dev-1",
            [],
            None,
            signers=director_signers(),
            now=NOW,
            lifetimes=Lifetimes(timestamp=timedelta(days=days)),
        )


def test_a_record_reads_back_as_it_was() -> None:
    """What the database keeps is the three files, nothing else."""
    found = issued(order())
    assert Issued.parse(found.targets, found.snapshot, found.timestamp) == found


def test_many_devices_at_once() -> None:
    """Nothing is shared: concurrent calls give every device its own files."""
    with ThreadPoolExecutor(8) as pool:
        names = [f"dev-{i}" for i in range(64)]
        made = list(pool.map(lambda name: issued(order(), device=name), names))
    assert [found.device_id for found in made] == names
    assert len({found.timestamp for found in made}) == 64


def test_one_key_does_not_sign_for_two_roles() -> None:
    """The Timestamp key's signature on Targets counts for nothing at the device."""
    stamp = online("director", "timestamp")
    found = issue(
        "dev-1",
        [],
        None,
        signers=DirectorSigners(stamp, online("director", "snapshot"), stamp),
        now=NOW,
    )
    from sealift.core.errors import SignatureError

    with pytest.raises(SignatureError):
        verified(found)
