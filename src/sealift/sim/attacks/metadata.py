"""Rows A-01 to A-05: metadata unsigned, by strangers, and older than what is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sealift.sim import network
from sealift.sim.attacks.forge import Json, bump, dump, load, put
from sealift.sim.attacks.world import (
    Ground,
    Observed,
    Plan,
    Scene,
    each,
)
from sealift.sim.vendor import PRODUCT, Shape, Supplier

if TYPE_CHECKING:
    from sealift.sim.network import Attacker

ROLES = ("root", "targets", "snapshot", "timestamp")
REPOSITORIES = ("director", "image")
LAST = 2**53 - 1
FIRST_FRAME = 400
"""A byte behind the head of the small containers of a simulation."""
SUPPLIED = Shape(suppliers=(Supplier("acme", (f"{PRODUCT}/acme-*",)),))


def forged(
    scene: Scene, repository: str, role: str, spoil: Callable[[bytes], bytes]
) -> Attacker:
    """A file of one role spoiled after it was signed, all others good and linked."""
    forger = scene.forger(repository)
    forger.spoil = {role: spoil}
    if role == "root":
        return scene.serve(repository, forger.role("root", bump))
    return scene.serve(repository, forger.chain({}), stolen=True)


def every_role(ground: Ground, *spoils: Callable[[bytes], bytes]) -> str:
    """Each role of both repositories spoiled in each of these ways."""

    def plan(repository: str, role: str, spoil: Callable[[bytes], bytes]) -> Plan:
        return lambda scene: scene.attempt(forged(scene, repository, role, spoil))

    return each(
        ground.together(plan(name, role, it) for role in ROLES for it in spoils)
        for name in REPOSITORIES
    )


# ──: nobody, or somebody else, signed ─────────────────────────────────────
def attack_a_01(ground: Ground) -> Observed:
    """Each role's file with an empty list of signatures, then without the list."""

    def empty(raw: bytes) -> bytes:
        return dump({**load(raw), "signatures": []})

    def absent(raw: bytes) -> bytes:
        return dump({"signed": load(raw)["signed"]})

    return ground.observed(every_role(ground, empty), every_role(ground, absent))


def attack_a_02(ground: Ground) -> Observed:
    """Everything after the first Root signed by the attacker, then the Root as well."""

    def plan(repository: str, *, root: bool) -> Plan:
        def act(scene: Scene) -> str:
            own = {role: [scene.thief[f"{repository}-{role}"]] for role in ROLES}
            forger = scene.forger(repository, **own)
            files = forger.chain({})
            if root:
                files |= forger.role("root", bump, _name_keys(scene, repository))
            return scene.attempt(scene.serve(repository, files))

        return act

    plans = [plan(name, root=root) for name in REPOSITORIES for root in (False, True)]
    return ground.observed(ground.together(plans))


def _name_keys(scene: Scene, repository: str) -> Callable[[Json], None]:
    """A Root that names the attacker's keys for every role."""

    def change(signed: Json) -> None:
        for role in ROLES:
            key = scene.thief.public(f"{repository}-{role}")
            signed["keys"][key.keyid] = key.to_dict()
            signed["roles"][role] = {"keyids": [key.keyid], "threshold": 1}

    return change


def attack_a_03(ground: Ground) -> Observed:
    """The container, then single frames in it, replaced by bytes of equal length."""

    def flipped(at: int) -> Plan:
        def act(scene: Scene) -> str:
            def change(body: bytes) -> bytes:
                return bytes(b ^ (0x5A if n >= at else 0) for n, b in enumerate(body))

            outcome = scene.attempt(network.alter("director/targets/*", change))
            scene.require_unusable()
            scene.vendor.refresh(anew=True)  # the operator's "try again"
            return outcome

        return act

    return ground.observed(ground.each([flipped(0), flipped(FIRST_FRAME)]))


# ──: back in time ─────────────────────────────────────────────────────────
def attack_a_04(ground: Ground) -> Observed:
    """Older files of every role; by stolen online keys where a parent would not fit."""
    plans = [
        *(_old_timestamp(name) for name in REPOSITORIES),
        *(_by_online_keys(name, _older_snapshot) for name in REPOSITORIES),
        *(
            _by_online_keys(name, _lists("targets", older=True))
            for name in REPOSITORIES
        ),
        *(
            _by_online_keys(name, _lists("targets", older=False))
            for name in REPOSITORIES
        ),
    ]
    supplied = [
        _by_online_keys("image", _lists("acme", older=older)) for older in (True, False)
    ]
    return ground.observed(each([ground.each(plans), ground.each(supplied, SUPPLIED)]))


def _old_timestamp(repository: str) -> Plan:
    def act(scene: Scene) -> str:
        old = scene.served()
        scene.catch_up()
        scene.catch_up()
        recorded = {p: raw for p, raw in old.items() if p.startswith(f"{repository}/m")}
        return scene.attempt(network.replace(recorded))

    return act


Spoil = Callable[[Scene, str], dict[str, bytes]]


def _by_online_keys(repository: str, spoil: Spoil) -> Plan:
    def act(scene: Scene) -> str:
        scene.catch_up()
        files = spoil(scene, repository)
        return scene.attempt(scene.serve(repository, files, stolen=True))

    return act


def _older_snapshot(scene: Scene, repository: str) -> dict[str, bytes]:
    """A new Timestamp over the first Snapshot."""
    return scene.forger(repository).chain({"snapshot": put("version", 1)})


def _lists(role: str, *, older: bool) -> Spoil:
    """A new Snapshot that lists an older file of a role, or none at all."""

    def change(signed: Json) -> None:
        if older:
            signed["meta"][f"{role}.json"]["version"] = 1
        else:
            del signed["meta"][f"{role}.json"]

    return lambda scene, name: scene.forger(name).chain({"snapshot": change})


def attack_a_05(ground: Ground) -> Observed:
    """Root N again, N+2, the last number; then N+1 by old or new keys alone."""

    def numbered(repository: str, version: int) -> Plan:
        def act(scene: Scene) -> str:
            forger = scene.forger(repository)
            [raw] = forger.role("root", put("version", version)).values()
            return scene.attempt(scene.serve(repository, {"2.root.json": raw}))

        return act

    def handed_over(repository: str, *, old: bool) -> Plan:
        def act(scene: Scene) -> str:
            keys = [scene.thief[f"new-{n}"] for n in range(3)]
            signers = scene.vendor.signers(repository, "root") if old else keys
            forger = scene.forger(repository, root=signers)
            named = [key.public_key for key in keys]

            def change(signed: Json) -> None:
                signed["keys"] |= {key.keyid: key.to_dict() for key in named}
                signed["roles"]["root"]["keyids"] = [key.keyid for key in named]

            return scene.attempt(
                scene.serve(repository, forger.role("root", bump, change))
            )

        return act

    return ground.observed(
        ground.together(numbered(n, v) for n in REPOSITORIES for v in (1, 3, LAST)),
        ground.together(
            handed_over(n, old=o) for n in REPOSITORIES for o in (True, False)
        ),
    )
