"""Rows A-06 to A-12: kept in the past, sent into the future, fed with another's."""

from __future__ import annotations

from dataclasses import replace

from sealift.sim import network
from sealift.sim.attacks.forge import bump, put
from sealift.sim.attacks.metadata import LAST, REPOSITORIES
from sealift.sim.attacks.world import (
    DEVICE,
    INSTALLED,
    OTHER,
    THEN,
    Ground,
    Observed,
    Plan,
    Scene,
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
    """A new Root withheld by 404 or 403, until the old one expires; then by 5xx.

    The server can tell by the Root that the device reports (M11).
    """

    def withheld(status: int, days: int) -> Plan:
        def act(scene: Scene) -> str:
            scene.attempt()
            scene.later(days=days * 0.8)
            for name in REPOSITORIES:
                scene.vendor.rotate(name, "root")
            scene.later(days=days * 0.2)
            scene.vendor.refresh()
            hidden = network.status("director/metadata/2.root.json", status)
            outcome = scene.attempt(hidden)
            told = scene.reports()[-1].versions["director"]["root"]
            return outcome if told == 1 else f"{outcome}, and Root {told} is reported"

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
            told = scene.reports()[-1].reports[0].detail
            if "same version" not in told:
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
