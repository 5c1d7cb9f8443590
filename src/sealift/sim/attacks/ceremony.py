"""Row B-16: a signer who is shown one thing and handed another."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

from tuf.api.metadata import Metadata, Root, Targets

from sealift.repo import roots
from sealift.repo.entries import Listed
from sealift.repo.image import propose_targets
from sealift.repo.repository import newest, read
from sealift.repo.roots import RoleKeys
from sealift.repo.signing import Request, propose, request_from_json, request_to_json
from sealift.sign.review import Review, require_consent, review
from sealift.sim.attacks.forge import dump, load
from sealift.sim.attacks.world import Ground, Observed, Scene, each, refusal
from sealift.sim.vendor import make_release


def attack_b_16(ground: Ground) -> Observed:
    """Requests that say one thing and hold another; and dangers nobody agreed to."""
    return ground.observed(ground.play(_shown), ground.play(_refused))


def _shown(scene: Scene) -> str:
    """What the signer reads is recomputed from the bytes that would be signed."""
    honest = _request(scene, "1.4", 5)
    swapped = make_release("6.6", 66)
    told = load(request_to_json(honest))
    listed = propose_targets(
        _base(scene).signed, add=[Listed(swapped.artifact, 9)], now=scene.true_now()
    )
    told["proposed"]["signed"] = listed.to_dict()
    lied = refusal(lambda: request_from_json(dump(told)))
    request = propose("image", listed, base=_base(scene), root=_root(scene))
    said = " ".join(finding.text for finding in _reviewed(scene, request).findings)
    shown = swapped.artifact.sha256.hex() in said and swapped.artifact.name in said
    return (
        "difference shown"
        if shown and lied == "format.malformed"
        else f"{lied}: {said}"
    )


def _refused(scene: Scene) -> str:
    """Without explicit consent nothing dangerous is signed."""
    lower = scene.vendor.rule("image", "targets")
    requests = [
        _root_request(scene, targets=RoleKeys(lower.keys, 1)),
        _root_request(scene, timestamp=RoleKeys((scene.thief.public("t"),), 1)),
        _jumping(scene),
        _request(scene, "0.1", 1),
        _without(scene),
    ]
    return each(
        refusal(partial(require_consent, _reviewed(scene, it), ())) for it in requests
    )


def _reviewed(scene: Scene, request: Request) -> Review:
    return review(
        request,
        now=scene.true_now(),
        trusted=_root(scene).signed,
        trusted_base=request.base,
    )


def _root(scene: Scene) -> Metadata[Root]:
    return read(scene.vendor.stores["image"].files["1.root.json"], Root)


def _base(scene: Scene) -> Metadata[Targets]:
    store = scene.vendor.stores["image"]
    return read(store.files[f"{newest(store, 'targets')}.targets.json"], Targets)


def _request(scene: Scene, version: str, counter: int) -> Request:
    """A request to list one more release."""
    listed = Listed(make_release(version, counter).artifact, 9)
    signed = propose_targets(_base(scene).signed, add=[listed], now=scene.true_now())
    return propose("image", signed, base=_base(scene), root=_root(scene))


def _jumping(scene: Scene) -> Request:
    """A version far ahead, so that no later one fits."""
    request = _request(scene, "1.4", 5)
    request.proposed.signed.version = 2**53 - 1
    return request


def _without(scene: Scene) -> Request:
    """A release that would no longer be vouched for."""
    name = scene.next.artifact.name
    signed = propose_targets(_base(scene).signed, remove=[name], now=scene.true_now())
    return propose("image", signed, base=_base(scene), root=_root(scene))


def _root_request(scene: Scene, **rules: RoleKeys) -> Request:
    """A request for the next Root, with some roles otherwise."""
    named = {role: scene.vendor.rule("image", role) for role in roots.ROLES}
    now, life = scene.true_now(), timedelta(days=365)
    signed = roots.author({**named, **rules}, version=2, now=now, lifetime=life)
    return propose("image", signed, base=_root(scene), root=_root(scene))
