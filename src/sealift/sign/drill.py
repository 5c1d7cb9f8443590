"""``sealift keys drill``: rehearse what you hope never to need, with throw-away keys.

A scratch desk gets the shape of yours: as many people, the same thresholds, hybrid or
not. A server is played by keys in memory, devices by the verifier they really run
(``core.trust``). Nothing of your desk is opened but its public metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Timestamp

from sealift.core.errors import (
    MetadataError,
    RefusedError,
    SealiftError,
    SignatureError,
)
from sealift.core.trust import accept, resume, wanted
from sealift.core.trusted import Complete, Want, image_rules
from sealift.repo import image, keyfile, signing
from sealift.repo.policy import is_post_quantum, name_of
from sealift.repo.repository import DictStore, file_name, read, sign
from sealift.repo.roots import publish_root, role_keys
from sealift.repo.signers import load_signer, signer_for
from sealift.sign import keys, rotation
from sealift.sign.ceremony import Plan, hold
from sealift.sign.desk import Desk, Policy

if TYPE_CHECKING:
    from pathlib import Path

    from securesystemslib.signer import Key, Signer

    from sealift.repo.online import OnlineKeys

__all__ = ["Result", "drill", "shape_of"]

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one step; ``seconds`` is how long it took."""

    step: str
    ok: bool
    detail: str
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The result as JSON values."""
        return {
            "step": self.step,
            "ok": self.ok,
            "detail": self.detail,
            "seconds": round(self.seconds, 3),
        }


def shape_of(desk: Desk) -> Plan:
    """A plan with as many people and the same threshold as the desk's Image Root.

    Raises:
        StateError: the desk has no Root.
    """
    rule = role_keys(desk.root("image").signed, "root")
    hybrid = rule.min_per_family > 0
    people = sum(not is_post_quantum(key) for key in rule.keys)
    return Plan(people, rule.min_per_family if hybrid else rule.threshold, hybrid)


def drill(
    scratch: Path,
    plan: Plan,
    *,
    now: datetime,
    clock: Clock,
    passphrase: str | None,
) -> Iterator[Result]:
    """Rehearse in an empty directory; one result per step, stopping at the first that
    fails. ``clock`` tells seconds for the figures; the throw-away keys are encrypted
    with ``passphrase``, if there is one.
    """
    world: list[_World] = []
    steps: list[tuple[str, Callable[[], str]]] = [
        ("make keys, sign, publish, verify on a device", lambda: _begin(world)),
        ("replace a stolen online key", lambda: _online(world[0])),
        ("replace one lost root key", lambda: _lost_root_key(world[0])),
        ("replace a targets key and sign the images again", lambda: _targets(world[0])),
        ("recover an expired root, all its keys replaced", lambda: _recover(world[0])),
        ("catch up from the first root in one check", lambda: _catch_up(world[0])),
        ("below the threshold nothing can be signed", lambda: _too_few(world[0])),
    ]

    def _begin(found: list[_World]) -> str:
        found.append(_World.make(scratch, plan, now, passphrase))
        return found[0].check()

    for name, act in steps:
        begun = clock()
        try:
            detail, ok = act(), True
        except (SealiftError, OSError) as error:
            detail, ok = f"{type(error).__name__}: {error}", False
        yield Result(name, ok, detail, clock() - begun)
        if not ok:
            return


# ── the world ────────────────────────────────────────────────────────────────────────
@dataclass(slots=True)
class _Device:
    """The verifier of a device, keeping what it accepts."""

    anchor: bytes
    kept: dict[Any, bytes] = field(default_factory=dict)

    def check(self, store: DictStore, now: datetime) -> Complete:
        """One check of the Image repository, as ``agent.trust`` does it."""
        state = resume(image_rules(), self.anchor, self.kept.get)
        while isinstance(want := wanted(state), Want):
            raw = want.kept if want.kept is not None else _fetch(store, want)
            state = accept(state, want, raw, now)
            for name, content in state.changes.items():
                if content is None:
                    self.kept.pop(name, None)
                else:
                    self.kept[name] = content
        return want


def _fetch(store: DictStore, want: Want) -> bytes | None:
    return store.read(file_name(want.role, want.version or 0))


@dataclass(slots=True)
class _World:
    """A throw-away desk, a server in memory, and one device."""

    desk: Desk
    plan: Plan
    passphrase: str | None
    store: DictStore
    snapshot: Signer
    timestamp: Signer
    device: _Device
    now: datetime

    @classmethod
    def make(
        cls, scratch: Path, plan: Plan, now: datetime, passphrase: str | None
    ) -> _World:
        online = {
            (repository, role): _online_signer(repository, role)
            for repository in ("image", "director")
            for role in ("targets", "snapshot", "timestamp")
        }
        public: OnlineKeys = {
            repository: {
                role: signer.public_key  # type: ignore[misc]
                for (owner, role), signer in online.items()
                if owner == repository and (owner, role) != ("image", "targets")
            }
            for repository in ("image", "director")
        }
        desk = hold(
            scratch / "desk", public, plan, Policy(), passphrase=passphrase, now=now
        )
        store = DictStore()
        anchor = desk.store("image").read("1.root.json") or b""
        world = cls(
            desk,
            plan,
            passphrase,
            store,
            online["image", "snapshot"],
            online["image", "timestamp"],
            _Device(anchor),
            now,
        )
        publish_root(store, anchor)
        world.publish(desk.store("image").read("1.targets.json") or b"")
        return world

    def publish(self, targets: bytes) -> None:
        signers = image.ImageSigners(self.snapshot, self.timestamp)
        image.publish(self.store, targets, signers=signers, now=self.now)

    def refresh(self) -> None:
        signers = image.ImageSigners(self.snapshot, self.timestamp)
        image.refresh(self.store, signers=signers, now=self.now)

    def check(self) -> str:
        """The device verifies everything; what it believes, in words."""
        found = self.device.check(self.store, self.now)
        return (
            f"device verified root {found.root.version}, "
            f"targets {found.targets.body.version}, "
            f"timestamp {found.timestamp.version}"
        )

    def rotate(self, changes: list[rotation.Change], *, without: set[str]) -> None:
        """Propose, sign by file on one machine after another, accept, publish."""
        request = rotation.propose_change(self.desk, "image", changes, now=self.now)
        request = self.signed(request, without=without)
        root = rotation.accept_root(self.desk, request)
        publish_root(self.store, signing.finish(request))
        if root.version != request.version:
            raise RefusedError("the desk kept another Root than was signed")

    def signed(self, request: signing.Request, *, without: set[str]) -> signing.Request:
        """As many signatures as needed, made elsewhere and brought back by file."""
        travelling = signing.request_to_json(request)
        for name in _names(request):
            path = self.desk.keys / f"{name}.pem"
            if request.complete or name in without or not path.exists():
                continue
            elsewhere = signing.request_from_json(travelling)
            signed = signing.sign_request(elsewhere, self.signer(name))
            made = sorted(signed.proposed.signatures)
            request = signing.add_signatures(
                request, signing.signatures_to_json(signed, made)
            )
        return request

    def signer(self, name: str) -> Signer:
        return load_signer(
            f"file:{self.desk.keys / f'{name}.pem'}", lambda _: self.passphrase or ""
        )

    def fresh(self, name: str, like: str) -> Key:
        """A new key file of the same algorithm; its public half."""
        algorithm = "ml-dsa-65" if like.endswith("-pq") else "ed25519"
        path = self.desk.keys / f"{name}.pem"
        return keys.generate(path, name, algorithm, self.passphrase).public_key


def _online_signer(repository: str, role: str) -> Signer:
    return signer_for(keyfile.generate("ed25519"), f"{repository}-{role}-online")


def _names(request: signing.Request) -> list[str]:
    return list(
        dict.fromkeys(
            name_of(root.keys[keyid])
            for root in request.deciders
            for keyid in root.roles[request.role].keyids
        )
    )


# ── the steps ────────────────────────────────────────────────────────────────────────
def _online(world: _World) -> str:
    stolen, new = world.timestamp, _online_signer("image", "timestamp")
    change = rotation.Change(
        "timestamp", ("image-timestamp-online",), (new.public_key,)
    )
    world.rotate([change], without=set())
    world.timestamp = new
    world.refresh()
    said = world.check()
    forged = DictStore(world.store.files)
    known = read(world.store.files["timestamp.json"], Timestamp)
    known.signed.version += 1000
    forged.files["timestamp.json"] = sign(known.signed, [stolen])
    try:
        world.device.check(forged, world.now)
    except SignatureError:
        return f"{said}; what the stolen key signs is refused"
    raise RefusedError("a device still believes the stolen key")


def _lost_root_key(world: _World) -> str:
    lost = world.plan.role_names("image", "root")[-1]
    (world.desk.keys / f"{lost}.pem").unlink()
    new = f"{lost}-new".replace("-pq-new", "-new-pq")
    made = {lost: world.fresh(new, lost)}
    changes = rotation.replacements(world.desk, "image", [lost], made)
    world.rotate(changes, without={lost})
    return world.check()


def _targets(world: _World) -> str:
    old = world.plan.role_names("image", "targets")[0]
    new = world.fresh("image-targets-next", old)
    world.rotate([rotation.Change("targets", (old,), (new,))], without=set())
    current = world.desk.targets()
    proposed = image.propose_targets(
        current.signed if current is not None else None, now=world.now
    )
    request = signing.propose(
        "image", proposed, base=current, root=world.desk.root("image")
    )
    raw = signing.finish(world.signed(request, without={old}))
    world.desk.store("image").write(file_name("targets", proposed.version), raw)
    world.publish(raw)
    return world.check()


def _recover(world: _World) -> str:
    world.now += timedelta(days=400)
    try:
        world.check()
        raise RefusedError("a device believes an expired root")
    except MetadataError:
        pass
    old = role_keys(world.desk.root("image").signed, "root")
    names = [name_of(key) for key in old.keys]
    made = {
        name: world.fresh(f"image-recovered-{i}{'-pq' * name.endswith('-pq')}", name)
        for i, name in enumerate(names, 1)
    }
    world.rotate(
        [rotation.Change("root", tuple(names), tuple(made.values()))], without=set()
    )
    current = world.desk.targets()
    proposed = image.propose_targets(
        current.signed if current is not None else None, now=world.now
    )
    root = world.desk.root("image")
    request = signing.propose("image", proposed, base=current, root=root)
    world.publish(signing.finish(world.signed(request, without=set())))
    return world.check()


def _catch_up(world: _World) -> str:
    world.device = _Device(world.device.anchor)
    return world.check()


def _too_few(world: _World) -> str:
    rule = role_keys(world.desk.root("image").signed, "root")
    names = [name_of(key) for key in rule.keys]
    try:
        lost = names[: len(names) - rule.threshold + 1]
        rotation.replacements(world.desk, "image", lost, {})
    except RefusedError as error:
        return error.message
    raise RefusedError("a Root below its threshold was proposed")
