"""B-16: what a signature would change, in words, from the bytes alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Root, Targets

from sealift.core.errors import RefusedError
from sealift.core.types import Artifact
from sealift.repo.entries import Listed
from sealift.repo.image import propose_targets
from sealift.repo.repository import read, sign
from sealift.repo.signing import Request, propose
from sealift.sign.review import (
    Level,
    Review,
    compare_image,
    require_consent,
    review,
)
from tests.vendor import (
    NOW,
    artifact,
    image_roles,
    image_root,
    people,
    rule,
    signer,
)

ROOT = read(sign(image_root(), people("image", "root")), Root)
FIRST = propose_targets(None, add=[Listed(artifact("1.0.0", 2), 1)], now=NOW)
BASE = read(sign(FIRST, people("image", "targets")[:2]), Targets)


def release(found: Artifact, **changes: Any) -> Request:
    """A request that adds one artifact; ``changes`` are made to the proposed Targets."""
    proposed = propose_targets(FIRST, add=[Listed(found, 2)], now=NOW)
    for name, value in changes.items():
        setattr(proposed, name, value)
    return propose("image", proposed, base=BASE, root=ROOT)


def judged(request: Request, **own: Any) -> Review:
    own = {"trusted": ROOT.signed, "trusted_base": request.base, **own}
    return review(request, now=NOW, **own)


def told(found: Review) -> str:
    return "\n".join(finding.text for finding in found.findings)


def test_an_ordinary_release_needs_no_consent() -> None:
    """Version up, counter equal or up, same hardware: only facts."""
    found = judged(release(artifact("1.1.0", 3)))
    assert {finding.level for finding in found.findings} == {Level.FACT}
    require_consent(found, [])


def test_everything_that_matters_is_told() -> None:
    """Name, version, length, counter, hardware, digest, expiry."""
    one = artifact("1.1.0", 3)
    text = told(judged(release(one)))
    for word in (
        "board/rootfs-1.1.0.img",
        "version 1.1.0",
        str(one.length),
        "release counter 3",
        "board-r1",
        one.sha256.hex(),
        "expires 2030-11-28T12:00:00Z, in 180 days",
        "release counter rises from 2 to 3",
    ):
        assert word in text


# what is proposed → the word of consent it needs
DANGERS: dict[str, tuple[Request, str]] = {
    "a lower counter": (release(artifact("1.1.0", 1)), "lower-counter"),
    "an older version": (release(artifact("0.9.0", 2)), "older-version"),
    "other hardware": (
        release(artifact("1.1.0", 2, hardware_ids=("board-r2",))),
        "new-hardware",
    ),
    "a jump of versions": (release(artifact("1.1.0", 2), version=9), "version-jump"),
    "a very late expiry": (
        release(artifact("1.1.0", 2), expires=NOW + timedelta(days=401)),
        "long-expiry",
    ),
    "an image taken back": (
        propose(
            "image",
            propose_targets(FIRST, remove=["board/rootfs-1.0.0.img"], now=NOW),
            base=BASE,
            root=ROOT,
        ),
        "remove-image",
    ),
}


@pytest.mark.parametrize("what", DANGERS)
def test_dangers_need_their_word(what: str) -> None:
    """policy.refused without it, and with another word; allowed with it."""
    request, word = DANGERS[what]
    found = judged(request)
    assert found.words() == [word]
    for accepted in ([], ["something-else"]):
        with pytest.raises(RefusedError) as caught:
            require_consent(found, accepted)
        assert f"--accept {word}" in str(caught.value.hint)
    require_consent(found, [word])


SEALED_FIRST = propose_targets(
    None, add=[Listed(artifact("1.0.0", 2), 1, sealed=True)], now=NOW
)


def after_a_sealed_one(*, sealed: bool) -> Request:
    found = Listed(artifact("1.1.0", 3), 2, sealed=sealed)
    base = read(sign(SEALED_FIRST, people("image", "targets")[:2]), Targets)
    proposed = propose_targets(SEALED_FIRST, add=[found], now=NOW)
    return propose("image", proposed, base=base, root=ROOT)


def test_a_sealed_line_goes_plain_only_with_consent() -> None:
    """What was secret once becomes readable by one forgotten option."""
    found = judged(after_a_sealed_one(sealed=False))
    assert found.words() == ["unsealed"]
    assert "readable on its way" in told(found)
    with pytest.raises(RefusedError):
        require_consent(found, [])
    require_consent(found, ["unsealed"])


def test_sealed_is_told_and_needs_no_consent() -> None:
    """A line that stays sealed is a fact; one that begins says what devices need."""
    stays = judged(after_a_sealed_one(sealed=True))
    assert stays.words() == []
    assert "board-r1, sealed, sha256" in told(stays)
    assert "for the first time" not in told(stays)
    one = Listed(artifact("1.1.0", 3), 2, sealed=True)
    proposed = propose_targets(FIRST, add=[one], now=NOW)
    begins = judged(propose("image", proposed, base=BASE, root=ROOT))
    assert begins.words() == []
    assert "for the first time" in told(begins)


def with_member(request: Request, *path: str) -> Request:
    """The request with a member that Sealift does not write."""
    target = request.proposed.signed.targets["board/rootfs-1.1.0.img"]
    place = target.unrecognized_fields if not path else target.custom[path[0]]
    place["x-more"] = "hidden"
    return request


def test_members_nobody_told_are_told() -> None:
    """Bytes that our programs would not have written cannot hide in a signature."""
    found = judged(with_member(release(artifact("1.1.0", 3)), "release"))
    assert found.words() == ["unknown-content"]


def test_what_is_never_signed() -> None:
    """A name with another meaning, an expired file, an unknown member of Targets."""
    changed = propose_targets(None, add=[Listed(artifact("1.0.0", 9), 1)], now=NOW)
    changed.version = 2
    expired = release(artifact("1.1.0", 3), expires=NOW - timedelta(seconds=1))
    hidden = release(artifact("1.1.0", 3), unrecognized_fields={"x": 1})
    for request in (
        propose("image", changed, base=BASE, root=ROOT),
        expired,
        hidden,
    ):
        with pytest.raises(RefusedError, match="must not be signed"):
            require_consent(judged(request), judged(request).words())


def test_a_wrong_clock_is_told() -> None:
    """A desk in 1970 signs nothing; one in 2100 finds its Root expired."""
    request = release(artifact("1.1.0", 3), expires=NOW.replace(year=2101))
    own: dict[str, Any] = {"trusted": ROOT.signed, "trusted_base": request.base}
    early = review(request, now=NOW.replace(year=1970), **own)
    assert any(f.level is Level.REFUSED for f in early.findings)
    late = review(request, now=NOW.replace(year=2100), **own)
    assert "expired-root" in late.words()


# ── whose word is it ─────────────────────────────────────────────────────────────────
def test_a_root_of_the_requests_own_is_a_danger() -> None:
    """Without a copy of one's own, the signer compares by hand and says so."""
    found = review(release(artifact("1.1.0", 3)), now=NOW)
    assert found.words() == ["unknown-root"]
    assert str(found.root_fingerprint) in told(found)


def test_another_root_than_ones_own_is_refused() -> None:
    """Whoever brings another Root in force does not get a signature."""
    other = image_root(version=2)
    with pytest.raises(RefusedError, match="must not be signed"):
        require_consent(judged(release(artifact("1.1.0")), trusted=other), [])


def test_another_base_than_ones_own_is_told() -> None:
    """A comparison with something else than the desk's newest is not the desk's."""
    newer = propose_targets(FIRST, now=NOW)
    own = read(sign(newer, people("image", "targets")), Targets)
    found = judged(release(artifact("1.1.0", 3)), trusted_base=own)
    assert found.words() == ["other-base"]


def test_a_base_nobody_signed_is_told() -> None:
    """An invented base could hide what is new."""
    invented = propose_targets(None, add=[Listed(artifact("1.1.0", 3), 2)], now=NOW)
    request = release(artifact("1.1.0", 3))
    request = replace(request, base=read(sign(invented), Targets))
    found = review(request, now=NOW, trusted=ROOT.signed)
    assert "unverified-base" in found.words()


# ── new Roots ────────────────────────────────────────────────────────────────────────
def root_request(**options: Any) -> Request:
    options = {"version": 2, **options}
    return propose("image", image_root(**options), base=ROOT, root=ROOT)


def test_a_renewed_root_needs_no_consent() -> None:
    """The same keys with a later expiry are facts."""
    found = judged(root_request())
    require_consent(found, [])
    assert "root: unchanged, 2 of 3" in told(found)


KEYS = people("image", "root")
FRESH = signer("image-root-fresh")
ROOTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "a key more": ({"root": rule([*KEYS, FRESH], 2)}, ["new-key"]),
    "a key replaced": (
        {"root": rule([FRESH, *KEYS[1:]], 2)},
        ["new-key", "removed-key"],
    ),
    "fewer must agree": (
        {"targets": rule(people("image", "targets"), 1)},
        ["lower-threshold"],
    ),
    "an online key replaced": (
        {"timestamp": rule([signer("other-timestamp")], 1)},
        ["new-key", "removed-key"],
    ),
}


@pytest.mark.parametrize("what", ROOTS)
def test_other_keys_and_thresholds_need_consent(what: str) -> None:
    """Who may sign from now on is never changed in passing."""
    roles, words = ROOTS[what]
    found = judged(root_request(roles=image_roles(**roles)))
    assert found.words() == words
    with pytest.raises(RefusedError):
        require_consent(found, [])
    require_consent(found, words)


def test_refused_shapes_are_never_signed() -> None:
    """A Root that no shape rule would have let through."""
    root = image_root(version=2)
    root.roles["root"].threshold = 1
    found = judged(propose("image", root, base=ROOT, root=ROOT))
    with pytest.raises(RefusedError, match="must not be signed"):
        require_consent(found, found.words())


def test_a_key_under_a_known_name_is_told_by_its_id() -> None:
    """A stranger's key with a good name is still a new key."""
    fresh = signer("somebody")
    twin = SSlibKey(
        fresh.public_key.keyid,
        "ed25519",
        "ed25519",
        fresh.public_key.keyval,
        {"x-sealift-name": "image-root-1"},
    )
    kept = tuple(s.public_key for s in KEYS[1:])
    roles = image_roles(root=replace(rule(KEYS, 2), keys=(twin, *kept)))
    found = judged(root_request(roles=roles))
    assert found.words() == ["new-key", "removed-key"]
    assert twin.keyid[:12] in told(found)


# ── ones own build ───────────────────────────────────────────────────────────────────
def test_an_own_build_is_compared(tmp_path: Path) -> None:
    """The signer's image is the proposed one, or the release is not signed."""
    from hashlib import sha256

    path = tmp_path / "mine.img"
    path.write_bytes(b"mine")
    one = artifact("1.1.0", 3, sha256=sha256(b"mine").digest(), length=4)
    assert compare_image(release(one), path).level is Level.FACT
    path.write_bytes(b"mine!")
    assert compare_image(release(one), path).level is Level.REFUSED
