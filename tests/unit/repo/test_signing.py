"""Signing requests: who may sign, what travels, when it is finished."""

from __future__ import annotations

import json
from typing import Any

import pytest
from securesystemslib.signer import Signer
from tuf.api.metadata import Root, Targets

from sealift.core.errors import (
    LimitError,
    MalformedError,
    RefusedError,
    SealiftError,
    SignatureError,
)
from sealift.repo.entries import Listed
from sealift.repo.image import propose_targets
from sealift.repo.repository import read, sign
from sealift.repo.roots import check_next
from sealift.repo.signing import (
    REQUEST_BYTES_MAX,
    Request,
    add_signatures,
    finish,
    propose,
    request_from_json,
    request_to_json,
    sign_request,
    signatures_to_json,
)
from tests.vendor import (
    NOW,
    artifact,
    image_roles,
    image_root,
    online,
    other_signer,
    people,
    rule,
    signer,
)

ROOT = read(sign(image_root(), people("image", "root")), Root)


def release() -> Request:
    """A request for the second Image Targets."""
    first = propose_targets(None, now=NOW)
    base = read(sign(first, people("image", "targets")[:2]), Targets)
    second = propose_targets(first, add=[Listed(artifact(), 1)], now=NOW)
    return propose("image", second, base=base, root=ROOT)


def rotation() -> Request:
    """A request for Root 2, in which the first root key is replaced."""
    fresh = [signer("image-root-fresh"), *people("image", "root")[1:]]
    root = image_root(roles=image_roles(root=rule(fresh, 2)), version=2)
    return propose("image", root, base=ROOT, root=ROOT)


def elsewhere(request: Request, who: Signer) -> bytes:
    """What comes back from a machine that got the request as a file."""
    received = request_from_json(request_to_json(request))
    signed = sign_request(received, who)
    return signatures_to_json(signed, [who.public_key.keyid])


def test_two_machines_make_a_release() -> None:
    """The file goes to two people and comes back as two small files."""
    request = release()
    alice, bob, _ = people("image", "targets")
    for who in (alice, bob):
        assert not request.complete
        request = add_signatures(request, elsewhere(request, who))
    found = read(finish(request), Targets)
    assert found.signed.version == 2
    assert set(found.signatures) == {alice.public_key.keyid, bob.public_key.keyid}


def test_below_the_threshold_there_is_nothing_to_publish() -> None:
    """One signature of two is told by names."""
    request = sign_request(release(), people("image", "targets")[0])
    with pytest.raises(SignatureError) as caught:
        finish(request)
    assert caught.value.hint == ("still to sign: 1 of image-targets-2, image-targets-3")


def test_a_second_signature_by_the_same_key_is_no_second_signature() -> None:
    """Signing twice changes nothing."""
    alice = people("image", "targets")[0]
    once = sign_request(release(), alice)
    assert sign_request(once, alice) == once
    assert not once.complete


STRANGERS = {
    "a key of another role": people("image", "root")[0],
    "an online key": online("image", "timestamp"),
    "a key of the Director": people("director", "root")[0],
    "a stranger": signer("stranger"),
    "a stranger with a good name": other_signer("ed25519", "image-targets-1"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_B03_only_the_keys_of_the_role_sign(what: str) -> None:
    """A key made for something else is refused before it signs."""
    with pytest.raises(RefusedError, match="cannot sign image targets"):
        sign_request(release(), STRANGERS[what])


def test_R2_a_root_needs_both_thresholds() -> None:
    """Old keys for the old Root, new keys for the new one."""
    old = people("image", "root")
    request = sign_request(sign_request(rotation(), old[0]), old[1])
    assert [found.complete for found in request.standings()] == [True, False]
    request = sign_request(request, signer("image-root-fresh"))
    assert check_next(finish(request), ROOT.signed).signed.version == 2


def test_a_request_survives_the_way_through_a_file() -> None:
    """What is read back is what was written, signatures included."""
    request = sign_request(release(), people("image", "targets")[0])
    assert request_from_json(request_to_json(request)) == request


def test_signatures_for_other_bytes_are_refused() -> None:
    """A request changed on its way does not collect the old signatures."""
    alice = people("image", "targets")[0]
    made = elsewhere(release(), alice)
    changed = release()
    changed.proposed.signed.expires = NOW.replace(year=2031)
    with pytest.raises(RefusedError, match="other bytes"):
        add_signatures(changed, made)


def change(raw: bytes, **members: Any) -> bytes:
    return json.dumps({**json.loads(raw), **members}).encode()


def test_forged_signatures_are_refused() -> None:
    """A signature that does not verify is told, not counted."""
    alice = people("image", "targets")[0]
    made = elsewhere(release(), alice)
    forged = [{"keyid": alice.public_key.keyid, "sig": "00" * 64}]
    with pytest.raises(SignatureError):
        add_signatures(release(), change(made, signatures=forged))


def test_B02_junk_signatures_in_a_request_are_dropped() -> None:
    """Whoever hands us a request cannot fill it up to the threshold."""
    request = sign_request(release(), people("image", "targets")[0])
    found = json.loads(request_to_json(request))
    found["proposed"]["signatures"].append(
        {"keyid": people("image", "targets")[1].public_key.keyid, "sig": "11" * 64}
    )
    read_back = request_from_json(json.dumps(found).encode())
    assert len(read_back.proposed.signatures) == 1
    assert not read_back.complete


# what is wrong with a request file → what is changed in it
LIES: dict[str, dict[str, object]] = {
    "another role than its own": {"role": "root"},
    "a repository that is not": {"repository": "other"},
    "a file nobody signs by hand": {"repository": "director"},
    "another version": {"metadata_version": 7},
    "another digest": {"signed_sha256": "0" * 64},
    "no proposal": {"proposed": None},
    "no root": {"root": None},
    "another kind": {"_type": "something"},
    "another schema": {"version": 2},
    "a base that is not Targets": {"base": {"signed": {}, "signatures": []}},
}


@pytest.mark.parametrize("what", LIES)
def test_B16_a_request_that_lies_about_itself_is_refused(what: str) -> None:
    """What a request says about itself must be what is in it."""
    raw = change(request_to_json(release()), **LIES[what])
    with pytest.raises(SealiftError):
        request_from_json(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[]", b"\x00", b'{"a":1,"a":1}', b"{" * 5000]
)
def test_garbage_is_no_request(raw: bytes) -> None:
    """Whatever file is handed over, the answer is an error of ours."""
    for reader in (request_from_json, lambda r: add_signatures(release(), r)):
        with pytest.raises((MalformedError, LimitError)):
            reader(raw)


def test_a_request_is_bounded() -> None:
    """No signer reads more than the largest honest request."""
    with pytest.raises(LimitError):
        request_from_json(b" " * (REQUEST_BYTES_MAX + 1))


def test_a_base_at_or_above_the_proposal_is_refused() -> None:
    """A request goes forward."""
    request = release()
    with pytest.raises(RefusedError, match="does not follow"):
        propose("image", request.proposed.signed, base=request.proposed, root=ROOT)


def test_only_a_first_root_comes_without_a_root() -> None:
    """Somebody must decide; only the beginning vouches for itself."""
    with pytest.raises(RefusedError):
        propose("image", image_root(version=2), base=None, root=None)
    assert propose("image", image_root(), base=None, root=None).deciders


def test_hybrid_people_sign_with_both_keys() -> None:
    """Two classical and two lattice signatures, not four of either."""
    both = [
        [signer(f"image-root-{i}"), other_signer("ml-dsa-65", f"image-root-{i}-pq")]
        for i in range(1, 4)
    ]
    keys = [one for pair in both for one in pair]
    from sealift.repo.roots import RoleKeys

    roles = image_roles(root=RoleKeys.hybrid([k.public_key for k in keys], 2))
    request = propose("image", image_root(roles=roles), base=None, root=None)
    for pair in both:
        request = sign_request(request, pair[0])
    assert (request.complete, request.standings()[0].missing) == (False, 2)
    for pair in both[:2]:
        request = sign_request(request, pair[1])
    assert request.complete
