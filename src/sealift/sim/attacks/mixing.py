"""Rows A-13 and A-34: parts that do not belong together."""

from __future__ import annotations

from collections.abc import Callable

from sealift.sim.attacks.forge import Json, bump, dump
from sealift.sim.attacks.metadata import REPOSITORIES
from sealift.sim.attacks.world import (
    Ground,
    Observed,
    Plan,
    Scene,
    each,
)
from sealift.sim.vendor import HARDWARE


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
