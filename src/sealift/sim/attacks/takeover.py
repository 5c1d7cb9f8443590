"""Rows B-05 to B-08: what the holder of a server's or a supplier's keys can order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.repo.entries import Listed, image_entry
from sealift.sim.attacks.forge import Change, Json, bump
from sealift.sim.attacks.metadata import SUPPLIED
from sealift.sim.attacks.world import DEVICE, Ground, Observed, Plan, Scene
from sealift.sim.vendor import HARDWARE, PRODUCT, Release, Shape, Supplier, make_release

if TYPE_CHECKING:
    from sealift.repo.director import Order

OTHER_HARDWARE = "another-board-r7"
LIMITED = Shape(
    suppliers=(Supplier("acme", (f"{PRODUCT}/acme-*",), (OTHER_HARDWARE,)),)
)


# ── B-05: the Director's keys ────────────────────────────────────────────────────────
def attack_b_05(ground: Ground) -> Observed:
    """Orders for what nobody listed, for what is too old, for other hardware."""
    return ground.observed(
        ground.play(_unlisted),
        ground.each([_older, _older_unseen]),
        ground.each(_foreign()),
    )


def _ordered(scene: Scene, order: Order) -> str:
    """An order by the real online keys, and the honest one again."""
    honest = scene.vendor.orders[DEVICE]
    scene.order(order)
    outcome = scene.attempt()
    scene.order(*honest)
    return outcome


def _unlisted(scene: Scene) -> str:
    made = make_release("6.6", 66)
    scene.vendor.containers[made.path] = made.packed
    return _ordered(scene, made.order(scene.device.ecu_id))


def _older(scene: Scene) -> str:
    """A release that ran before, below the counter of what runs now."""
    old = scene.next
    scene.catch_up()
    scene.catch_up()
    return _ordered(scene, old.order(scene.device.ecu_id))


def _older_unseen(scene: Scene) -> str:
    """A release with a low counter that this device never saw."""
    made = scene.vendor.release(make_release("0.9", 1))
    return _ordered(scene, made.order(scene.device.ecu_id))


def _foreign() -> list[Plan]:
    def for_other(scene: Scene) -> str:
        """The order tells the truth about the image, and that does not fit."""
        made = _release_for(scene, OTHER_HARDWARE)
        return _ordered(scene, made.order(scene.device.ecu_id))

    def for_both(scene: Scene) -> str:
        """The order says that this component is other hardware."""
        made = _release_for(scene, OTHER_HARDWARE)
        return _ordered(scene, made.order(scene.device.ecu_id, OTHER_HARDWARE))

    return [for_other, for_both]


def _release_for(scene: Scene, hardware: str) -> Release:
    made = make_release(
        "7.0", 70, name=f"{PRODUCT}/other-7.0.img", hardware_ids=(hardware,)
    )
    return scene.vendor.release(made)


# ── B-06: the Image repository's online keys ─────────────────────────────────────────
def attack_b_06(ground: Ground) -> Observed:
    """Good Snapshot and Timestamp over own Targets; over fewer roles than before."""

    def own(scene: Scene) -> str:
        thief = [scene.thief["targets-1"], scene.thief["targets-2"]]
        files = scene.forger("image", targets=thief).chain({"targets": bump})
        return scene.attempt(scene.serve("image", files, stolen=True))

    def own_version(scene: Scene) -> str:
        """The same version as the real one, so that no floor moves."""
        thief = [scene.thief["targets-1"], scene.thief["targets-2"]]
        files = scene.forger("image", targets=thief).chain({})
        return scene.attempt(scene.serve("image", files, stolen=True))

    def hiding(role: str) -> Plan:
        def change(signed: Json) -> None:
            del signed["meta"][f"{role}.json"]

        def act(scene: Scene) -> str:
            files = scene.forger("image").chain({"snapshot": change})
            return scene.attempt(scene.serve("image", files, stolen=True))

        return act

    def raised(scene: Scene) -> str:
        """After a raised floor only a Root with other keys helps (R5)."""
        outcome = own(scene)
        scene.vendor.rotate("image", "snapshot", "timestamp")
        return outcome

    return ground.observed(
        ground.each([raised, own_version]),
        ground.each([hiding("targets"), hiding("acme")], SUPPLIED),
    )


# ── B-07, B-08: a supplier's keys ────────────────────────────────────────────────────
def listing(scene: Scene, made: Release) -> Change:
    """List a release, as the attacker wants it."""
    entry = image_entry(Listed(made.artifact, 99)).to_dict()
    scene.vendor.containers[made.path] = made.packed

    def change(signed: Json) -> None:
        signed["targets"][made.artifact.name] = entry

    return change


def by_supplier(scene: Scene, change: Change) -> str:
    """An attempt with the supplier's file changed and signed by its real key."""
    forger = scene.forger("image", acme=[scene.vendor.keys["supplier-acme"]])
    files = forger.chain({"acme": change})
    return scene.attempt(scene.serve("image", files, stolen=True))


def attack_b_07(ground: Ground) -> Observed:
    """A supplier's key and the Director's: elsewhere nothing, on its own ground all."""

    def plan(name: str, *, residual: bool = False) -> Plan:
        def act(scene: Scene) -> str:
            made = make_release("6.0", 60, name=f"{PRODUCT}/{name}")
            honest = scene.vendor.orders[DEVICE]
            scene.order(made.order(scene.device.ecu_id))
            if residual:  # what runs then was indeed never released by the vendor
                scene.vendor.contents.add(made.content)
            outcome = by_supplier(scene, listing(scene, made))
            scene.order(*(() if residual else honest))
            if residual:
                scene.vendor.refresh(anew=True)
                scene.publish("8.0", 80)
                scene.waiting = True
            return outcome

        return act

    elsewhere = ["main-6.0.img", "other-6.0.img", "acme", "deep/acme-6.0.img"]
    return ground.observed(
        _both(
            ground.each([plan(name) for name in elsewhere], SUPPLIED),
            ground.play(plan("acme-6.0.img"), LIMITED),
        ),
        ground.play(plan("acme-6.0.img", residual=True), SUPPLIED),
    )


def _both(first: str, second: str) -> str:
    return first if first == second else f"{first} | {second}"


def attack_b_08(ground: Ground) -> Observed:
    """Another's path, listed by the supplier itself or by somebody it delegates to."""

    def itself(scene: Scene) -> str:
        made = make_release("6.0", 60, name=f"{PRODUCT}/main-6.0.img")
        return _while_ordered(scene, made, listing(scene, made))

    def wider(scene: Scene) -> str:
        """The supplier delegates everything to a helper, whose file lists the path."""
        made = make_release("6.0", 60, name=f"{PRODUCT}/main-6.0.img")
        return _while_ordered(scene, made, _delegating(scene))

    return ground.observed(ground.each([itself, wider], SUPPLIED))


def _while_ordered(scene: Scene, made: Release, change: Change) -> str:
    honest = scene.vendor.orders[DEVICE]
    scene.order(made.order(scene.device.ecu_id, HARDWARE))
    outcome = by_supplier(scene, change)
    scene.order(*honest)
    return outcome


def _delegating(scene: Scene) -> Change:
    helper = scene.thief.public("helper")

    def change(signed: Json) -> None:
        role = {
            "name": "helper",
            "keyids": [helper.keyid],
            "threshold": 1,
            "terminating": False,
            "paths": [f"{PRODUCT}/*"],
        }
        keys = {helper.keyid: helper.to_dict()}
        signed["delegations"] = {"keys": keys, "roles": [role]}

    return change
