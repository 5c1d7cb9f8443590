"""Shapes of a Root that the signer refuses, and which Root may follow which."""

from __future__ import annotations

from typing import Any

import pytest
from securesystemslib.signer import Signer, SSlibKey
from tuf.api.metadata import Root

from sealift.core.errors import (
    ConflictError,
    MalformedError,
    RefusedError,
    RollbackError,
    SignatureError,
)
from sealift.core.metadata import IMAGE, Profile, Reader
from sealift.core.trust import accept, resume
from sealift.core.trusted import Want, image_rules
from sealift.repo.repository import DictStore, sign, verify
from sealift.repo.roots import (
    RoleKeys,
    check_next,
    check_shape,
    publish_root,
    refuse_shared_keys,
)
from tests.vendor import (
    NOW,
    director_root,
    image_roles,
    image_root,
    online,
    other_signer,
    people,
    rule,
    signer,
)


def pairs(count: int) -> list[Signer]:
    """An Ed25519 and an ML-DSA-65 key for each of ``count`` people."""
    names = [f"image-root-{i}" for i in range(1, count + 1)]
    return [
        *(signer(name) for name in names),
        *(other_signer("ml-dsa-65", f"{name}-pq") for name in names),
    ]


def hybrid(signers: list[Signer], threshold: int, least: int) -> RoleKeys:
    return RoleKeys(tuple(s.public_key for s in signers), threshold, least)


# ── shapes ───────────────────────────────────────────────────────────────────────────
def test_the_usual_roots_are_accepted() -> None:
    """2 of 3 offline keys, one online key for each online role."""
    check_shape(image_root())
    check_shape(director_root())
    refuse_shared_keys(image=image_root(), director=director_root())


def shapes() -> dict[str, tuple[dict[str, RoleKeys], str]]:
    """What is wrong → the roles, and a word of the answer."""
    three = people("image", "root")
    classical, lattice = pairs(2)[:2], pairs(2)[2:]
    return {
        "more signatures than keys": ({"root": rule(three, 4)}, "4 signatures of 3"),
        "two root keys": ({"root": rule(three[:2], 2)}, "root has 2 of 2"),
        "one root signature": ({"root": rule(three, 1)}, "root has 1 of 3"),
        "no threshold": ({"targets": rule(people("image", "targets"), 0)}, "0"),
        "no keys": ({"targets": RoleKeys((), 1)}, "of 0 keys"),
        "33 keys": ({"targets": rule(people("image", "targets", 33), 2)}, "33 keys"),
        "one key for two roles": ({"snapshot": rule(three[:1], 1)}, "used for root"),
        "an online key offline": (
            {"timestamp": rule([online("image", "snapshot")], 1)},
            "used for snapshot",
        ),
        "1 of 2 hybrid": (
            {"targets": hybrid([*classical, *lattice], 2, 1)},
            "from one family alone",
        ),
        "two families without a rule": (
            {"targets": hybrid([*classical, *lattice], 3, 0)},
            "mixes families",
        ),
        "a family rule without a second family": (
            {"targets": hybrid(people("image", "targets"), 2, 1)},
            "mixes families",
        ),
        "more of each family than there are": (
            {"targets": hybrid([*classical, *lattice], 4, 3)},
            "can never have 3",
        ),
        "a family rule above the threshold": (
            {"targets": hybrid([*classical, *lattice], 3, 2)},
            "can never have 2",
        ),
    }


@pytest.mark.parametrize("what", shapes())
def test_refused_shapes(what: str) -> None:
    """Nobody is asked to sign a Root that cannot work or protects nothing."""
    roles, word = shapes()[what]
    with pytest.raises(RefusedError, match=word):
        image_root(roles=image_roles(**roles))


@pytest.mark.parametrize(("people_", "threshold"), [(3, 2), (5, 3)])
def test_B15_hybrid_shapes_hold_against_one_broken_family(
    people_: int, threshold: int
) -> None:
    """All classical keys together, or all lattice keys, do not meet the role."""
    both = pairs(people_)
    roles = image_roles(root=RoleKeys.hybrid([s.public_key for s in both], threshold))
    root = image_root(roles=roles)
    for family in (both[:people_], both[people_:]):
        raw = sign(root, family)
        with pytest.raises(SignatureError):
            check_next(raw, None)
    agreed = [*both[:threshold], *both[people_ : people_ + threshold]]
    assert check_next(sign(root, agreed), None).signed == root


def test_one_key_in_two_repositories_is_refused() -> None:
    """The Director's key cannot also be an Image key."""
    shared = people("director", "root")
    roles = image_roles(targets=rule(shared, 2))
    with pytest.raises(RefusedError, match="used for"):
        refuse_shared_keys(image=image_root(roles=roles), director=director_root())


def test_B01_one_key_in_two_spellings_is_one_key() -> None:
    """Another id and another spelling do not make a second key."""
    key = people("image", "root")[0].public_key
    twin = SSlibKey(
        "f" * 64, key.keytype, key.scheme, {"public": key.keyval["public"].upper()}
    )
    others = tuple(s.public_key for s in people("image", "root")[:2])
    with pytest.raises(RefusedError, match="used for"):
        image_root(roles=image_roles(root=RoleKeys((*others, twin), 2)))


def test_two_keys_of_one_name_are_refused() -> None:
    """Names stand for one key, or a review would mislead."""
    twin = other_signer("ed25519", "image-root-1")
    roles = image_roles(root=rule([*people("image", "root"), twin], 2))
    with pytest.raises(RefusedError, match="two keys are called"):
        image_root(roles=roles)


# ── keys ─────────────────────────────────────────────────────────────────────────────
def test_B11_demo_keys_are_refused_outside_of_a_demo() -> None:
    """A marked key needs a demo, whoever signs."""
    marked = [signer(f"image-targets-{i}", demo=True) for i in range(3)]
    roles = image_roles(targets=rule(marked, 2))
    with pytest.raises(RefusedError, match="demo key"):
        image_root(roles=roles)
    assert image_root(roles=roles, allow_demo=True).roles["targets"].threshold == 2


def test_B11_published_keys_are_refused() -> None:
    """The keys printed in RFC 8032 are known to everybody."""
    known = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    key = SSlibKey("a", "ed25519", "ed25519", {"public": known})
    with pytest.raises(RefusedError, match="published"):
        image_root(roles=image_roles(snapshot=RoleKeys((key,), 1)))


# keytype, scheme, public
WEAK = [
    ("rsa", "rsassa-pss-sha256", "irrelevant"),
    ("ecdsa", "ecdsa-sha2-nistp521", "irrelevant"),
    ("ml-dsa", "ml-dsa-44/1", "irrelevant"),
    ("hmac", "hmac-sha256", "00"),
    ("ed25519", "ed25519", "00"),
    ("ed25519", "ed25519", "0" * 64),
    ("ed25519", "ed25519", "01" + "0" * 62),
    ("ecdsa", "ecdsa-sha2-nistp256", "not a key"),
]


@pytest.mark.parametrize(("keytype", "scheme", "public"), WEAK)
def test_B12_weak_and_malformed_keys_are_refused_when_introduced(
    keytype: str, scheme: str, public: str
) -> None:
    """Only the algorithms of the policy list, and only keys that protect something."""
    key = SSlibKey("a", keytype, scheme, {"public": public})
    with pytest.raises(RefusedError):
        image_root(roles=image_roles(snapshot=RoleKeys((key,), 1)))


# ── one after the other ──────────────────────────────────────────────────────────────
def second(**options: Any) -> Root:
    """Root 2, with the first root key replaced."""
    fresh = [signer("image-root-fresh"), *people("image", "root")[1:]]
    roles = image_roles(root=rule(fresh, 2))
    return image_root(roles=roles, version=2, **options)


def follow(raw: bytes) -> Root:
    return check_next(raw, image_root()).signed


def test_old_and_new_threshold_make_a_root() -> None:
    """Two keys that stand in both Roots are enough."""
    assert follow(sign(second(), people("image", "root")[1:])).version == 2


def test_R2_the_old_threshold_alone_is_not_enough() -> None:
    """Two old keys, of which the new Root knows one."""
    with pytest.raises(SignatureError):
        follow(sign(second(), people("image", "root")[:2]))


def test_R2_the_new_threshold_alone_is_not_enough() -> None:
    """Two new keys, of which the old Root knows one."""
    signers = [signer("image-root-fresh"), people("image", "root")[1]]
    with pytest.raises(SignatureError):
        follow(sign(second(), signers))


def test_B02_stolen_keys_count_nowhere_after_rotation() -> None:
    """k-1 old keys and a rotated one do not make a Root any more."""
    root = second()
    third = image_root(version=3)
    stolen = [people("image", "root")[0], signer("junk")]
    with pytest.raises(SignatureError):
        check_next(sign(third, [*stolen, people("image", "root")[1]]), root)


@pytest.mark.parametrize("version", [1, 3, 1000])
def test_R3_a_root_follows_by_exactly_one(version: int) -> None:
    """Neither a repetition nor a jump."""
    raw = sign(image_root(version=version), people("image", "root"))
    with pytest.raises(RollbackError):
        follow(raw)


def test_devices_follow_what_was_published() -> None:
    """The device's verifier accepts the chain the store took."""
    store = DictStore()
    publish_root(store, sign(image_root(), people("image", "root")))
    publish_root(store, sign(second(), people("image", "root")[1:]))
    state = resume(image_rules(), store.files["1.root.json"], lambda _: None)
    want = Want("root", 2, 262_144, may_be_absent=True)
    grown = accept(state, want, store.read("2.root.json"), NOW)
    assert grown.root.body.version == 2


def test_a_published_root_never_changes() -> None:
    """The same again is no change, another of the version is refused."""
    store = DictStore()
    raw = sign(image_root(), people("image", "root")[:2])
    publish_root(store, raw)
    publish_root(store, raw)
    with pytest.raises(ConflictError):
        publish_root(store, sign(image_root(), people("image", "root")))


def test_a_store_takes_no_key_of_another_repository() -> None:
    """The server checks Image Roots against the Director's, and the reverse."""
    roles = image_roles(targets=rule(people("director", "root"), 2))
    raw = sign(image_root(roles=roles), people("image", "root"))
    with pytest.raises(RefusedError):
        publish_root(DictStore(), raw, others={"director": director_root()})


@pytest.mark.parametrize("raw", [b"", b"{}", b"null", b"[1]", b'{"signed": {}}'])
def test_garbage_is_no_root(raw: bytes) -> None:
    """An upload that is no Root is an error of ours."""
    with pytest.raises(MalformedError):
        check_next(raw, None)


def test_a_root_says_what_device_and_desk_both_read() -> None:
    """Thresholds, family rule and key ids are the same in both parsers."""
    both = pairs(3)
    made = image_root(
        roles=image_roles(root=RoleKeys.hybrid([s.public_key for s in both], 2))
    )
    body = Reader(Profile.SEALIFT, IMAGE).root(sign(made, both)).body
    for role, listed in made.roles.items():
        assert body.roles[role].key_ids == tuple(listed.keyids)
        assert body.roles[role].threshold == listed.threshold
    assert body.roles["root"].min_per_family == 2
    assert {k: v.key_id for k, v in body.keys.items()} == {k: k for k in made.keys}


def test_the_verification_of_a_role_needs_its_own_keys() -> None:
    """Signatures by the keys of another role leave a role unsigned."""
    from sealift.repo.repository import read

    raw = sign(image_root(), people("image", "targets"))
    with pytest.raises(SignatureError):
        verify(image_root(), "root", read(raw, Root))
