"""Ceremonies: the first one, single keys, rotation, loss and recovery."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import SSlibKey

from sealift.core.errors import (
    InvalidConfigError,
    KeyUnreadableError,
    MalformedError,
    PassphraseError,
    RefusedError,
    SignatureError,
    StateError,
)
from sealift.repo import signing
from sealift.repo.policy import name_of
from sealift.repo.roots import check_next
from sealift.repo.signers import load_signer
from sealift.sign import drill, keys, rotation
from sealift.sign.ceremony import Plan, hold
from sealift.sign.desk import Desk, Policy
from sealift.sign.rotation import Change
from tests.vendor import NOW, online_keys, other_signer, signer


def begin(path: Path, plan: Plan | None = None, **options: Any) -> Desk:
    options = {"passphrase": None, "now": NOW, "policy": Policy(), **options}
    return hold(path, online_keys(), plan or Plan(), **options)


def signed(desk: Desk, request: signing.Request, *names: str) -> signing.Request:
    for name in names:
        made = load_signer(str(desk.keys / f"{name}.pem"))
        request = signing.sign_request(request, made)
    return request


# ── the first ceremony ───────────────────────────────────────────────────────────────
def test_the_usual_desk(desk: Desk) -> None:
    """Three keys per offline role, two must agree, both Roots vouch for themselves."""
    for repository, root in desk.roots().items():
        raw = desk.store(repository).read("1.root.json") or b""
        assert check_next(raw, None).signed == root
        assert (len(root.roles["root"].keyids), root.roles["root"].threshold) == (3, 2)
    assert len(list(desk.keys.glob("*.pem"))) == 9
    targets = desk.targets()
    assert targets is not None
    assert targets.signed.targets == {}


def test_modes_of_a_desk(desk: Desk) -> None:
    """Nobody else looks into a desk, nobody else opens a key."""
    assert desk.path.stat().st_mode & 0o777 == 0o700
    assert desk.keys.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in desk.keys.glob("*.pem")} == {0o600}


def test_key_files_are_encrypted_with_the_passphrase(tmp_path: Path) -> None:
    """The passphrase of the ceremony opens every key, another one none."""
    made = begin(tmp_path / "desk", passphrase="correct horse")
    for path in made.keys.glob("*.pem"):
        assert b"ENCRYPTED PRIVATE KEY" in path.read_bytes()
    address = str(made.keys / "image-root-1.pem")
    load_signer(address, lambda _: "correct horse")
    with pytest.raises(PassphraseError):
        load_signer(address, lambda _: "wrong")


def test_a_hybrid_desk_has_two_keys_for_each_person(tmp_path: Path) -> None:
    """Ed25519 and ML-DSA-65, two of each family must sign."""
    made = begin(tmp_path / "desk", Plan(hybrid=True))
    role = made.root("image").signed.roles["targets"]
    assert (len(role.keyids), role.threshold) == (6, 4)
    assert role.unrecognized_fields["min_per_family"] == 2


def test_an_external_key_takes_its_place(tmp_path: Path) -> None:
    """A token's key stands in the Root, and no file is made for it."""
    external = other_signer("ecdsa-p256", "token").public_key
    assert isinstance(external, SSlibKey)
    plan = Plan(external={"image-root-3": external})
    made = begin(tmp_path / "desk", plan)
    root = made.root("image").signed
    assert root.keys[external.keyid].scheme == "ecdsa-sha2-nistp256"
    assert not (made.keys / "image-root-3.pem").exists()
    assert keys.read_public(made.keys / "image-root-3.pub").keyid == external.keyid


# what is wrong → the plan
PLANS = {
    "two people": Plan(2, 2),
    "one signature": Plan(3, 1),
    "more signatures than people": Plan(3, 4),
    "no people": Plan(0, 0),
    "17 people": Plan(17, 9),
    "a hybrid one family can meet": Plan(4, 2, hybrid=True),
}


@pytest.mark.parametrize("what", PLANS)
def test_bad_plans_leave_nothing_behind(what: str, tmp_path: Path) -> None:
    """The shape is refused before the first key is made."""
    with pytest.raises(RefusedError):
        begin(tmp_path / "desk", PLANS[what])
    assert list(tmp_path.iterdir()) == []


def test_an_external_key_nobody_asked_for_is_refused(tmp_path: Path) -> None:
    """A typing error in a name is told."""
    key = signer("x").public_key
    assert isinstance(key, SSlibKey)
    with pytest.raises(InvalidConfigError):
        begin(tmp_path / "desk", Plan(external={"image-rot-1": key}))


def test_one_external_key_in_two_places_is_refused(tmp_path: Path) -> None:
    """One key, one role, one repository."""
    key = signer("x").public_key
    assert isinstance(key, SSlibKey)
    plan = Plan(external={"image-root-1": key, "director-root-1": key})
    with pytest.raises(RefusedError):
        begin(tmp_path / "desk", plan)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_desk_is_not_touched(desk: Desk) -> None:
    """A second ceremony in the same place is refused."""
    before = sorted(desk.path.rglob("*"))
    with pytest.raises(InvalidConfigError, match="exists already"):
        begin(desk.path)
    assert sorted(desk.path.rglob("*")) == before


def test_demo_desks_carry_the_mark(tmp_path: Path) -> None:
    """Every key of a demo is marked, and production refuses its Root."""
    made = begin(tmp_path / "desk", policy=Policy(demo=True))
    raw = made.store("image").read("1.root.json") or b""
    with pytest.raises(RefusedError, match="demo key"):
        check_next(raw, None)


# ── the desk's files ─────────────────────────────────────────────────────────────────
def test_a_directory_that_is_no_desk(tmp_path: Path) -> None:
    """The answer says how one is made."""
    with pytest.raises(InvalidConfigError, match="not a signing desk"):
        Desk.open(tmp_path)


POLICIES = [
    "",
    "schema = 2\ndemo = false\nroot_days = 365\ntargets_days = 180\n",
    "schema = 1\ndemo = 1\nroot_days = 365\ntargets_days = 180\n",
    "schema = 1\ndemo = false\nroot_days = 401\ntargets_days = 180\n",
    "schema = 1\ndemo = false\nroot_days = 0\ntargets_days = 180\n",
    "schema = 1\ndemo = false\nroot_days = true\ntargets_days = 180\n",
    "schema = 1\ndemo = false\nroot_days = 365\ntargets_days = 180\nmore = 1\n",
    "= broken",
    "\xff",
]


@pytest.mark.parametrize("text", POLICIES)
def test_a_damaged_policy_is_refused(text: str, desk: Desk) -> None:
    """Unknown, missing and impossible settings are errors with a name."""
    (desk.path / "policy.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidConfigError):
        Desk.open(desk.path)


def test_the_policy_reads_back() -> None:
    """What is written is what is read."""
    policy = Policy(demo=True, root_days=300, targets_days=30)
    assert Policy.from_toml(policy.to_toml().encode()) == policy


def test_a_desk_without_metadata_says_so(desk: Desk) -> None:
    """A half copied desk is an error of ours, with a hint."""
    (desk.path / "metadata/image/1.root.json").unlink()
    with pytest.raises(StateError):
        desk.root("image")


def test_damaged_metadata_names_its_place(desk: Desk) -> None:
    """The hint says which copy is damaged."""
    (desk.path / "metadata/image/1.root.json").write_bytes(b"{")
    with pytest.raises(MalformedError) as caught:
        desk.root("image")
    assert "metadata/image" in str(caught.value.hint)


def test_a_desk_warns_in_time(desk: Desk) -> None:
    """Nothing early; each file from 60 days before its expiry; loudly after it."""
    assert desk.warnings(NOW) == []
    soon = desk.warnings(NOW + timedelta(days=125))
    assert soon == ["image targets version 1 expires in 55 days: renew it"]
    late = desk.warnings(NOW + timedelta(days=400))
    assert [text.split(" version 1 ") for text in late] == [
        ["image root", "expired: renew it"],
        ["director root", "expired: renew it"],
        ["image targets", "expired: renew it"],
    ]


# ── single keys ──────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["", "A", "a b", "../x", "-x", "x" * 65, "é"])
def test_key_names_are_file_names(name: str, tmp_path: Path) -> None:
    """No name that could be a path or an option."""
    with pytest.raises(RefusedError):
        keys.generate(tmp_path / "key.pem", name)
    assert list(tmp_path.iterdir()) == []


def test_a_public_file_is_read_back(tmp_path: Path) -> None:
    """Key, name and mark survive; the id is computed."""
    made = keys.generate(tmp_path / "one.pem", "one", "ecdsa-p256")
    assert keys.read_public(tmp_path / "one.pub") == made.public_key


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"keytype": "rsa"}', b"\xff"])
def test_damaged_public_files_are_refused(raw: bytes) -> None:
    """Garbage is an error of ours."""
    with pytest.raises(MalformedError):
        keys.public_from_json(raw)


def test_a_key_proves_itself(tmp_path: Path) -> None:
    """A signature that does not fit the public half is told before it matters."""
    keys.prove(keys.generate(tmp_path / "one.pem", "one"))

    class Liar(type(signer("a"))):  # type: ignore[misc]
        def sign(self, payload: bytes) -> Any:
            return super().sign(payload + b"!")

    liar = Liar(signer("a")._private_key)  # type: ignore[attr-defined]
    with pytest.raises(KeyUnreadableError):
        keys.prove(liar)


# ── rotation ─────────────────────────────────────────────────────────────────────────
def test_a_rotated_root_goes_into_the_desk(desk: Desk, tmp_path: Path) -> None:
    """Proposed, signed by old and new thresholds, accepted."""
    fresh = keys.generate(desk.keys / "fresh.pem", "fresh").public_key
    change = Change("root", ("image-root-1",), (fresh,))
    request = rotation.propose_change(desk, "image", [change], now=NOW)
    request = signed(desk, request, "image-root-2")
    with pytest.raises(SignatureError):
        rotation.accept_root(desk, request)
    rotation.accept_root(desk, signed(desk, request, "image-root-3"))
    assert desk.root("image").signed.version == 2
    assert len(desk.root_chain("image")) == 2
    names = {name_of(k) for k in desk.root("image").signed.keys.values()}
    assert "fresh" in names
    assert "image-root-1" not in names


def test_a_key_of_the_other_repository_is_refused(desk: Desk) -> None:
    """Rotation cannot bring a Director key into the Image repository."""
    shared = keys.read_public(desk.keys / "director-root-1.pub")
    change = Change("targets", ("image-targets-1",), (shared,))
    with pytest.raises(RefusedError, match="used for"):
        rotation.propose_change(desk, "image", [change], now=NOW)


def test_unknown_keys_cannot_be_removed(desk: Desk) -> None:
    """The hint lists the names there are."""
    change = Change("root", ("image-root-9",))
    with pytest.raises(RefusedError) as caught:
        rotation.propose_change(desk, "image", [change], now=NOW)
    assert "image-root-1" in str(caught.value.hint)


def test_online_keys_are_replaced_as_a_set(desk: Desk) -> None:
    """Only roles whose key changed are touched."""
    fresh = online_keys()
    stolen = signer("fresh-timestamp").public_key
    assert isinstance(stolen, SSlibKey)
    fresh["image"]["timestamp"] = stolen
    changes = rotation.online_changes(desk, "image", fresh)
    assert [(c.role, c.remove) for c in changes] == [
        ("timestamp", ("image-timestamp-online",))
    ]
    assert rotation.online_changes(desk, "director", fresh) == []


def test_a_lost_key_is_replaced_by_one_of_the_same_kind(desk: Desk) -> None:
    """A new file with the next name, and a Root the others can sign."""
    made = rotation.make_replacements(desk, "image", ["image-root-2"], None)
    changes = rotation.replacements(desk, "image", ["image-root-2"], made)
    request = rotation.propose_change(desk, "image", changes, now=NOW)
    rotation.accept_root(desk, signed(desk, request, "image-root-1", "image-root-3"))
    assert (desk.keys / "image-root-2.b.pem").exists()


def test_below_the_threshold_a_root_cannot_be_recovered(desk: Desk) -> None:
    """Said before any key is made."""
    lost = ["director-root-1", "director-root-2"]
    with pytest.raises(RefusedError, match="can never be replaced"):
        rotation.check_recoverable(desk, "director", lost)


# ── the drill ────────────────────────────────────────────────────────────────────────
def test_the_drill_passes_and_opens_no_key_of_the_desk(
    desk: Desk, tmp_path: Path
) -> None:
    """All steps hold for the desk's shape; its keys may be anywhere."""
    for path in desk.keys.glob("*.pem"):
        path.unlink()
    (tmp_path / "scratch").mkdir()
    results = list(
        drill.drill(
            tmp_path / "scratch",
            drill.shape_of(desk),
            now=NOW,
            clock=time.perf_counter,
            passphrase=None,
        )
    )
    assert [r.step for r in results if not r.ok] == []
    assert len(results) == 7


def test_the_drill_fails_where_a_lost_key_is_fatal(tmp_path: Path) -> None:
    """With 3 of 3, one lost root key is the end, and the drill says so."""
    results = list(
        drill.drill(
            tmp_path, Plan(3, 3), now=NOW, clock=time.perf_counter, passphrase=None
        )
    )
    assert (results[-1].step, results[-1].ok) == ("replace one lost root key", False)
    assert "can never be replaced" in results[-1].detail
