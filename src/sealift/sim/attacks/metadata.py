"""Rows A-01 to A-13 and A-34: metadata unsigned, old, frozen, mixed, misdirected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sealift.sim import network
from sealift.sim.attacks.forge import Json, bump, dump, load, put
from sealift.sim.attacks.world import (
    DEVICE,
    INSTALLED,
    OTHER,
    Ground,
    Observed,
    Plan,
    Scene,
    each,
)
from sealift.sim.vendor import HARDWARE, PRODUCT, Shape, Supplier

if TYPE_CHECKING:
    from sealift.sim.network import Attacker

ROLES = ("root", "targets", "snapshot", "timestamp")
REPOSITORIES = ("director", "image")
LAST = 2**53 - 1
THEN = " → "
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


# ──: kept in the past ───────────────────────────────────────────────────
def attack_a_06(ground: Ground) -> Observed:
    """What was valid once is replayed; an install that was authorised still ends."""

    def frozen(days: int) -> Plan:
        def act(scene: Scene) -> str:
            recorded = scene.served()
            scene.later(days=days)
            return scene.attempt(network.replay(recorded))

        return act

    def under_way(scene: Scene) -> str:
        recorded = scene.served()
        scene.attempt(network.drop("director/targets/*"))  # authorised, not fetched
        scene.later(days=30)
        lived = scene.attempted(network.replay(recorded))
        return INSTALLED if lived.installed else lived.outcome

    return ground.observed(ground.each([frozen(2), frozen(30)]), ground.play(under_way))


def attack_a_07(ground: Ground) -> Observed:
    """A new Root withheld by 404 or 403, until the old one expires; then by 5xx."""

    def withheld(status: int, days: int) -> Plan:
        def act(scene: Scene) -> str:
            scene.attempt()
            scene.later(days=days * 0.8)
            for name in REPOSITORIES:
                scene.vendor.rotate(name, "root")
            scene.later(days=days * 0.2)
            scene.vendor.refresh()
            return scene.attempt(
                network.status("director/metadata/2.root.json", status)
            )

        return act

    codes = (403, 404)
    return ground.observed(
        ground.each(withheld(code, 0) for code in codes),
        ground.each(withheld(code, 370) for code in codes),
        ground.each(withheld(code, 0) for code in (500, 502, 503)),
    )


def attack_a_08(ground: Ground) -> Observed:
    """A second, valid Timestamp of the same version that leads to another Snapshot."""

    def plan(repository: str) -> Plan:
        def act(scene: Scene) -> str:
            scene.catch_up()
            scene.attempt()
            scene.order(replace(scene.next.order(scene.device.ecu_id), deployment="x"))
            if repository == "director":
                scene.attempt()
            forger = scene.forger(repository)
            forger.step = 0
            files = forger.chain({"snapshot": bump})
            before = scene.wire.asked(f"{repository}/*.snapshot.json")
            lived = scene.attempted(scene.serve(repository, files))
            if scene.wire.asked(f"{repository}/*.snapshot.json") != before:
                return "a Snapshot was fetched"
            if not any("same version" in line for line in lived.lines):
                return "nothing was remarked"
            return lived.outcome

        return act

    return ground.observed(ground.each(map(plan, REPOSITORIES)))


def attack_a_09(ground: Ground) -> Observed:
    """The way to Snapshot cut after Timestamp was taken, and open in the next check."""

    def plan(repository: str) -> Plan:
        def act(scene: Scene) -> str:
            outcome = scene.attempt(
                network.drop(f"{repository}/metadata/*.snapshot.json")
            )
            if "timestamp" not in scene.newly_trusted(repository):
                return "Timestamp was not taken"
            return outcome + THEN + scene.attempt()

        return act

    return ground.observed(ground.each(plan(name) for name in REPOSITORIES))


# ──: too new, and somebody else's ───────────────────────────────────────
def attack_a_10(ground: Ground) -> Observed:
    """Stolen online keys sign the last version there is; the vendor rotates them."""

    def forward(repository: str, roles: tuple[str, ...], *, cut: bool) -> Plan:
        def act(scene: Scene) -> str:
            changes = dict.fromkeys(roles, put("version", LAST))
            files = scene.forger(repository).chain(changes)
            scene.attempt(scene.serve(repository, files, stolen=True))
            scene.waiting = True
            scene.vendor.refresh(anew=True)
            scene.publish("1.4", 5)
            stuck = scene.attempt()
            scene.vendor.rotate(
                repository, "snapshot", "timestamp", *TARGETS[repository]
            )
            if cut:
                scene.killed_at_every_step()
            return stuck + THEN + scene.settled()

        return act

    online = [("timestamp",), ("snapshot", "timestamp")]
    plans = [forward(n, it, cut=c) for n in REPOSITORIES for it in online for c in CUT]
    ours = ("targets", "snapshot", "timestamp")
    plans += [forward("director", ours, cut=cut) for cut in CUT]
    return ground.observed(ground.each(plans))


CUT = (False, True)
TARGETS = {"director": ("targets",), "image": ()}
"""Targets roles whose keys are online, by repository."""


def attack_a_11(ground: Ground) -> Observed:
    """Another device's Timestamp, far ahead of ours, validly signed by our Director."""

    def plan(scene: Scene) -> str:
        scene.seat(OTHER)
        for _ in range(20):
            scene.vendor.refresh(anew=True)
            scene.vendor.order(DEVICE, *scene.vendor.orders[DEVICE])
        files = scene.vendor.repository("director", OTHER)
        taken = {"timestamp.json": files["timestamp.json"]}
        outcome = scene.attempt(scene.serve("director", taken))
        return outcome + THEN + scene.attempt()

    return ground.observed(ground.play(plan))


def attack_a_12(ground: Ground) -> Observed:
    """All of another device's Director files, which order nothing."""

    def plan(scene: Scene) -> str:
        scene.seat(OTHER)
        files = scene.vendor.repository("director", OTHER)
        return scene.attempt(scene.serve("director", files))

    def below(role: str) -> Plan:
        """Ours down to the file of one role, which is the other device's."""

        def act(scene: Scene) -> str:
            changes = {role: put("device_id", OTHER)}
            files = scene.forger("director").chain(changes)
            return scene.attempt(scene.serve("director", files, stolen=True))

        return act

    plans = [plan, *(below(role) for role in ("timestamp", "snapshot", "targets"))]
    return ground.observed(ground.each(plans))


# ──: parts that do not belong together ────────────────────────────────────
def attack_a_13(ground: Ground) -> Observed:
    """Files of two releases mixed; then listings whose facts were permuted."""

    def mixed(repository: str, role: str) -> Plan:
        """Today's files with yesterday's bytes of one role, under today's name."""

        def act(scene: Scene) -> str:
            past = scene.forger(repository).newest(role)
            scene.catch_up()
            [name] = scene.forger(repository).role(role)
            return scene.attempt(scene.serve(repository, {name: dump(past)}))

        return act

    def permuted(repository: str, parent: str, fact: Json) -> Plan:
        """A listing that was validly signed, and is wrong in one fact."""
        child = {"timestamp": "snapshot", "snapshot": "targets"}[parent]

        def change(signed: Json) -> None:
            listed = signed["meta"][f"{child}.json"]
            signed["meta"][f"{child}.json"] = {**listed, **fact}

        def act(scene: Scene) -> str:
            files = scene.forger(repository).chain({parent: change})
            return scene.attempt(scene.serve(repository, files, stolen=True))

        return act

    below = ("snapshot", "targets")
    facts: list[Json] = [{"hashes": {"sha256": "0" * 64}}, {"length": 5000}]
    plans = {
        name: [
            *(
                permuted(name, it, fact)
                for it in ("timestamp", "snapshot")
                for fact in facts
            ),
            *(_other_version(name, role) for role in below),
        ]
        for name in REPOSITORIES
    }
    return ground.observed(
        each(
            [
                ground.each(mixed(n, role) for n in REPOSITORIES for role in below),
                *(ground.together(plans[name]) for name in REPOSITORIES),
            ]
        )
    )


def _other_version(repository: str, role: str) -> Plan:
    """A file whose own version is not the one its parent lists and its name says."""

    def act(scene: Scene) -> str:
        forger = scene.forger(repository)
        version = forger.newest(role)["signed"]["version"]
        forger.number = {role: version + (role == "snapshot") * forger.step}
        files = forger.chain({role: bump})
        return scene.attempt(scene.serve(repository, files, stolen=True))

    return act


def attack_a_34(ground: Ground) -> Observed:
    """The Director describes an image otherwise than the offline keys do."""

    def described(change: Callable[[Json], object]) -> Plan:
        def edit(signed: Json) -> None:
            for entry in signed["targets"].values():
                change(entry)

        def act(scene: Scene) -> str:
            files = scene.forger("director").chain({"targets": edit})
            return scene.attempt(scene.serve("director", files, stolen=True))

        return act

    def unlisted(signed: Json) -> None:
        entries = signed["targets"]
        signed["targets"] = {f"{name}.other": it for name, it in entries.items()}

    def act(scene: Scene) -> str:
        files = scene.forger("director").chain({"targets": unlisted})
        return scene.attempt(scene.serve("director", files, stolen=True))

    return ground.observed(
        ground.together(described(change) for change in _LIES), ground.play(act)
    )


def _must_match(name: str, value: object) -> Callable[[Json], object]:
    return lambda entry: entry["custom"]["must_match"].update({name: value})


_LIES: tuple[Callable[[Json], object], ...] = (
    lambda entry: entry["hashes"].update(sha256="0" * 64),
    lambda entry: entry["hashes"].update(sha512="0" * 128),
    lambda entry: entry.update(length=entry["length"] + 1),
    _must_match("release_counter", 99),
    _must_match("hardware_ids", [HARDWARE, "another-board"]),
)
