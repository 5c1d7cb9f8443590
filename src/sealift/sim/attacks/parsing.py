"""Rows A-22 to A-26 and A-29: files that want to be read otherwise than they are."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sealift.sim.attacks import boots
from sealift.sim.attacks.forge import Change, Json, bump, dump, load, put
from sealift.sim.attacks.metadata import REPOSITORIES, ROLES, every_role, forged
from sealift.sim.attacks.world import (
    INSTALLED,
    Ground,
    Observed,
    Plan,
    Scene,
    bounded,
    each,
)
from sealift.sim.vendor import PRODUCT, Shape, Supplier, make_release

if TYPE_CHECKING:
    from sealift.sim.network import Attacker

FLOOD_SECONDS = 0.1
NAMES = ("../x", "/x", "%2e%2e", "..", ".", "a b?#&", "C:\\x", "x/../../y", "root.json")


# ── A-22: too much of everything ─────────────────────────────────────────────────────
def attack_a_22(ground: Ground) -> Observed:
    """Floods of signatures, keys, depth and digits, within and beyond the byte caps."""
    plans = [
        _flood(role, flood)
        for role in ("root", "timestamp")
        for flood in (_signatures(100_000), _signatures(1_000), _deep, _digits)
    ]
    plans.append(_flood("root", _keys))
    return ground.observed(ground.together(plans))


Flood = Callable[[bytes], bytes]


def _flood(role: str, flood: Flood) -> Plan:
    def act(scene: Scene) -> str:
        attacker = forged(scene, "director", role, flood)
        gc.freeze()  # an agent has no attack suite's objects for its collector to walk
        began = time.process_time()
        outcome = scene.attempt(attacker)
        spent = time.process_time() - began
        gc.unfreeze()
        if spent > FLOOD_SECONDS:
            return f"{outcome}, but not within {FLOOD_SECONDS} s"
        return bounded(lambda it: it.attempt(attacker))(scene)

    return act


def _signatures(count: int) -> Flood:
    """Signatures under different ids, after the real ones were taken away."""
    found = [{"keyid": f"{n:x}", "sig": "00"} for n in range(count)]
    return lambda raw: dump({**load(raw), "signatures": found})


def _keys(raw: bytes) -> bytes:
    file = load(raw)
    key = next(iter(file["signed"]["keys"].values()))
    file["signed"]["keys"] = {f"{n:x}": key for n in range(1500)}
    return dump(file)


def _deep(raw: bytes) -> bytes:
    return raw[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def _digits(raw: bytes) -> bytes:
    return raw.replace(b'"version":', b'"version":' + b"9" * 5000, 1)


# ──: what a lax parser lets pass ──────────────────────────────────────────
def attack_a_23(ground: Ground) -> Observed:
    """Members that stand twice for some reader; then one component ordered twice."""
    twice = [
        lambda raw, at=member: _twice(raw, at) for member in (b"signed", b"version")
    ]
    twins = [put("Version", 1), put("eXpires", "x"), _composed]
    plans = [_signed(role, twin) for role in ROLES for twin in twins]
    return ground.observed(
        each([every_role(ground, *twice), ground.together(plans)]),
        ground.play(_ordered_twice),
    )


def _twice(raw: bytes, member: bytes) -> bytes:
    name = b'"' + member + b'":'
    value = b"1" if member == b"version" else b"{}"
    return raw.replace(name, name + value + b"," + name, 1)


def _composed(signed: Json) -> None:
    """One name in composed and in decomposed form: equal after NFC."""
    signed["x-caf\u00e9"] = signed["x-cafe\u0301"] = 1


def _signed(role: str, change: Change, repository: str = "director") -> Plan:
    """A change inside ``signed``, with real signatures over it."""

    def act(scene: Scene) -> str:
        forger = scene.forger(repository)
        version = forger.newest(role)["signed"]["version"]
        ahead = {"root": 1, "targets": 0}.get(role, forger.step)
        forger.number = {role: version + ahead}
        if role == "root":
            files = forger.role("root", bump, change)
            return scene.attempt(scene.serve(repository, files))
        files = forger.chain({role: change})
        return scene.attempt(scene.serve(repository, files, stolen=True))

    return act


def _ordered_twice(scene: Scene) -> str:
    def change(signed: Json) -> None:
        [(name, entry)] = signed["targets"].items()
        signed["targets"][f"{name}.twin"] = entry

    return _signed("targets", change)(scene)


def attack_a_24(ground: Ground) -> Observed:
    """Versions and thresholds that are no counts, then counts out of range."""
    types: list[object] = [1.0, 1.5, "1", True, None, [1], {}]
    ranges: list[object] = [0, -1, 2**53, 2**63, 10**400]
    plans = [*_numbers(types), _as_timestamp("snapshot"), _as_timestamp("targets")]
    return ground.observed(ground.together(plans), ground.together(_numbers(ranges)))


def _numbers(values: list[object]) -> Iterator[Plan]:
    for value in values:
        for role in ROLES:
            yield _signed(role, put("version", value))
        yield _signed("root", _threshold(value))
        yield _signed("timestamp", _listed("snapshot", value))
        yield _signed("snapshot", _listed("targets", value))


def _threshold(value: object) -> Change:
    return lambda signed: signed["roles"]["timestamp"].update(threshold=value)


def _listed(role: str, value: object) -> Change:
    return lambda signed: signed["meta"][f"{role}.json"].update(version=value)


def _as_timestamp(role: str) -> Plan:
    """Another role's file, signed with the key of Timestamp and served in its place."""

    def act(scene: Scene) -> str:
        key = scene.vendor.signers("director", "timestamp")
        forger = scene.forger("director", **{role: key})
        [raw] = forger.role(role, bump).values()
        return scene.attempt(scene.serve("director", {"timestamp.json": raw}))

    return act


# ── A-25: control data that nobody signed ────────────────────────────────────────────
def attack_a_25(ground: Ground) -> Observed:
    """Members beside ``signed``, and in signatures, that would change everything.

    And what the signature of a boot file does not cover.
    """
    unsigned: Json = {
        "threshold": 0,
        "keys": {},
        "unsigned": {"verified": True, "counter": 0},
        "signed-members": ["_type"],
        "hashed-nodes": ["version"],
        "device_id": "dev-0002",
    }

    def beside(raw: bytes) -> bytes:
        return dump({**unsigned, **load(raw)})

    def within(raw: bytes) -> bytes:
        file = load(raw)
        for signature in file["signatures"]:
            signature |= {"method": "none", "signed-members": [], "threshold": 0}
        return dump(file)

    plans = [
        _passing(repository, role, spoil)
        for spoil in (beside, within)
        for repository in REPOSITORIES
        for role in ROLES
    ]
    return ground.observed(ground.each([*plans, *boots.UNSIGNED]))


def _passing(repository: str, role: str, spoil: Callable[[bytes], bytes]) -> Plan:
    """Like ``forged``, but good: what is taken may be trusted."""

    def act(scene: Scene) -> str:
        forger = scene.forger(repository)
        forger.spoil = {role: spoil}
        files = forger.role("root", bump) if role == "root" else forger.chain({})
        return scene.attempt(scene.serve(repository, files, stolen=True))

    return act


# ── A-26: names that look like paths ─────────────────────────────────────────────────
def attack_a_26(ground: Ground) -> Observed:
    """Names of roles, artifacts and containers; and names that are too long."""
    roles = each(_role_named(ground, name) for name in NAMES)
    unsafe = [
        "../x.img",
        "/x.img",
        "a/../b.img",
        "a//b.img",
        "a/./b",
        "a\0b",
        "a\nb",
        "",
    ]
    containers = ["../x", "a/b", "..", "a b", "-rf", "x\u202e", "%2e%2e"]
    artifacts = ground.together(_signed("targets", _artifact_named(n)) for n in unsafe)
    boxes = ground.each(_signed("targets", _container_named(n)) for n in containers)
    long = [
        _signed("targets", _artifact_named("x" * 1025)),
        _signed("targets", _artifact_named("/".join("x" * 33))),
        _signed("targets", _artifact_named("x" * 241)),
        _signed("targets", _container_named("x" * 300)),
    ]
    role = ground.play(_signed("targets", _delegated_to("x" * 300), "image"))
    return ground.observed(
        roles, each([artifacts, boxes]), each([ground.together(long), role])
    )


def _role_named(ground: Ground, name: str) -> str:
    """An honest supplier with a terrible name: used, and never as a path."""
    shape = Shape(suppliers=(Supplier(name, (f"{PRODUCT}/acme-*",)),))

    def plan(scene: Scene) -> str:
        made = make_release("2.0", 4, name=f"{PRODUCT}/acme-2.0.img")
        scene.vendor.release(made, supplier=name)
        scene.order(made.order(scene.device.ecu_id))
        outcome = scene.attempt()
        below = [it.path.removeprefix("image/metadata/") for it in scene.wire.requests]
        names = [path for path in below if not path.startswith("director/")]
        encoded = all(set(it) & set("/\\ ?#") == set() for it in names)
        return "one component" if outcome == INSTALLED and encoded else outcome

    return ground.play(plan, shape)


def _artifact_named(name: str) -> Change:
    def change(signed: Json) -> None:
        [entry] = signed["targets"].values()
        signed["targets"] = {name: entry}

    return change


def _container_named(name: str) -> Change:
    def change(signed: Json) -> None:
        for entry in signed["targets"].values():
            for ecu in entry["custom"]["ecus"].values():
                ecu["payload"]["full"]["name"] = name

    return change


def _delegated_to(name: str) -> Change:
    role = {
        "name": name,
        "keyids": [],
        "threshold": 1,
        "terminating": False,
        "paths": ["*"],
    }
    return put("delegations", {"keys": {}, "roles": [role]})


# ── A-29: what a refusal leaves behind ───────────────────────────────────────────────
def attack_a_29(ground: Ground) -> Observed:
    """Bad files, the agent killed at each change of its store, then honest ones."""

    def junk(raw: bytes) -> bytes:
        return raw[: len(raw) // 2]

    def unsigned(raw: bytes) -> bytes:
        return dump({**load(raw), "signatures": []})

    def stranger(raw: bytes) -> bytes:
        return raw.replace(b'"sig":"', b'"sig":"00', 1)

    def plan(repository: str, role: str) -> Plan:
        def act(scene: Scene) -> str:
            bad = [
                _only(scene, repository, role, it) for it in (junk, unsigned, stranger)
            ]
            for attacker in bad:
                scene.attempt(attacker)
            kept = any(raw in scene.bad for raw in scene.device.records().values())
            scene.killed_at_every_step(*bad[:1])
            found = "something kept" if kept else "nothing kept"
            return f"{found} → {scene.settled()}"

        return act

    roles = [(name, role) for name in REPOSITORIES for role in ("root", "timestamp")]
    return ground.observed(ground.each(plan(*it) for it in roles))


def _only(
    scene: Scene, repository: str, role: str, spoil: Callable[[bytes], bytes]
) -> Attacker:
    """One spoiled file among honest ones."""
    forger = scene.forger(repository)
    forger.spoil = {role: spoil}
    files = forger.role(role, bump)
    scene.bad |= set(files.values())
    return scene.serve(repository, files)
