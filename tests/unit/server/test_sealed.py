"""Sealed images: keys stay wrapped, nothing travels or lies in the open."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from sealift.core import encryption, hpke
from sealift.core.container import MAGIC
from sealift.core.errors import (
    ConflictError,
    DecryptError,
    ForbiddenError,
    InvalidInputError,
    LimitError,
    NotFoundError,
)
from sealift.core.types import Container, Seal, Wrap
from sealift.repo.entries import Listed
from sealift.server.adapters import content
from sealift.server.api.operations import PREFIX
from sealift.server.api.operator import OperatorFace
from sealift.server.config import Config
from sealift.server.domain import deltas as rules
from sealift.server.ports import PayloadPolicy, Release
from sealift.server.services import accounts, deltas, director, metadata, releases
from sealift.server.services.releases import NewArtifact
from tests.unit.server.fleet import DELTAS, MAKER, Fleet
from tests.unit.server.test_faces import ask, at_once, guarded
from tests.unit.server.test_reports import Voice
from tests.unit.server.world import HARDWARE, OPERATOR, World, artifact

KEY = bytes(range(100, 132))
ABLE = ("delta/1", "cobblestone-256", "x25519")


def full(version: str, plain: int = 5000) -> Container:
    """The facts of a sealed full container."""
    digest = hashlib.sha256(f"sealed {version}".encode()).digest()
    length = encryption.sealed_length(plain)
    return Container(f"rootfs-{version}.full.sealed", length, digest, 32, bytes(32))


def seal_for(world: World, path: str, container: Container) -> Seal:
    """The content key, wrapped to the server as the desk does it."""
    opener = world.means.content
    assert isinstance(opener, content.ContentKeyFile)
    to = opener.public()
    info = encryption.upload_info(path, container.sha256)
    data = encryption.wrap(to.kem, to.public, KEY, info, os.urandom(32))
    return Seal(Wrap(to.kem, to.kid, data))


def stored(world: World, container: Container) -> None:
    releases.add_container(
        world.means,
        OPERATOR,
        container.name,
        container.length,
        container.sha256.hex(),
    )


def listed(world: World, version: str, sequence: int, *, sealed: bool = True) -> str:
    entry = Listed(artifact(version), sequence, sealed=sealed)
    raw = world.vendor.listing(entry)
    metadata.publish_targets(world.means, OPERATOR, raw)
    return entry.artifact.name


def release(world: World, version: str, sequence: int, **changes: Any) -> Release:
    """A sealed release, published."""
    path = listed(world, version, sequence)
    facts = full(version)
    stored(world, facts)
    wanted = NewArtifact(path, facts, seal=seal_for(world, path, facts))
    return releases.publish_release(world.means, OPERATOR, [replace(wanted, **changes)])


@dataclass
class Recipients(Fleet):
    """Devices with decryption keys; the private halves are the test's."""

    keys: dict[str, hpke.PrivateKey] = field(default_factory=dict)

    def enrol(self, name: str) -> None:
        """A device with a decryption key."""
        key = hpke.PrivateKey("x25519", hashlib.sha256(name.encode()).digest())
        self.keys[name] = key
        made = self.world.device(name, decryption_key=key.recipient.to_json())
        self.voices[name] = Voice(made)

    def running(
        self, version: str, *names: str, abilities: tuple[str, ...] = ABLE, **more: Any
    ) -> None:
        """As before; devices report the id of their decryption key."""
        for name in names:
            if name not in self.keys:
                self.enrol(name)
            kid = more.get("kid", self.keys[name].recipient.kid)
            super().running(version, name, abilities=abilities, kid=kid)

    def targets(self, name: str) -> dict[str, Any]:
        """The Director's Targets of a device, after a poll."""
        self.poll(name)
        record = self.world.means.store.reader.metadata.director(name)
        assert record is not None
        signed = json.loads(record.targets)["signed"]
        assert isinstance(signed, dict)
        return signed


def held(world: World, name: str = "dev-0001") -> str | None:
    (found,) = world.means.store.reader.deployments.installations_on(name)
    assert found.offer is not None
    return found.offer.held


@pytest.fixture
def fleet(world: World) -> Recipients:
    """One device with a decryption key that can do everything."""
    found = Recipients(world)
    found.enrol("dev-0001")
    world.means = replace(world.means, payload=replace(DELTAS, sealed_deltas=True))
    return found


# ── publishing ───────────────────────────────────────────────────────────────────────
def test_the_key_must_open_now(world: World) -> None:
    """A wrap for another file, another path, another server or changed is refused."""
    path = listed(world, "1.0.0", 1)
    facts = full("1.0.0")
    stored(world, facts)
    good = seal_for(world, path, facts)
    spoilt = replace(good.wrap, data=good.wrap.data[:-1] + b"\0")
    bad = [
        seal_for(world, "demo-board/rootfs-9.9.9.img", facts),
        seal_for(world, path, full("9.9.9")),
        Seal(replace(good.wrap, kid="0123456789abcdef")),
        Seal(spoilt if spoilt != good.wrap else replace(good.wrap, data=bytes(80))),
        Seal(replace(good.wrap, data=b"short")),
    ]
    for seal in bad:
        wanted = [NewArtifact(path, facts, seal=seal)]
        with pytest.raises(DecryptError):
            releases.publish_release(world.means, OPERATOR, wanted)
    assert world.means.store.reader.releases.all() == []
    wanted = [NewArtifact(path, facts, seal=good)]
    found = releases.publish_release(world.means, OPERATOR, wanted)
    assert found.items[0].sealed
    assert releases.publish_release(world.means, OPERATOR, wanted) == found


def test_listing_and_publication_agree(world: World) -> None:
    """Sealed as listed, or not at all: devices would refuse it (metadata.mismatch)."""
    path = listed(world, "1.0.0", 1)
    plain = replace(full("1.0.0"), name="rootfs-1.0.0.full")
    stored(world, plain)
    with pytest.raises(ForbiddenError, match="listed as sealed"):
        releases.publish_release(world.means, OPERATOR, [NewArtifact(path, plain)])
    path = listed(world, "1.1.0", 2, sealed=False)
    facts = full("1.1.0")
    stored(world, facts)
    seal = seal_for(world, path, facts)
    with pytest.raises(InvalidInputError, match="not listed as sealed"):
        releases.publish_release(
            world.means, OPERATOR, [NewArtifact(path, facts, seal=seal)]
        )


@pytest.mark.parametrize(
    "change",
    [
        {"name": "rootfs-1.0.0.full"},
        {"length": 56 + 15},
        {"length": 56 + 16400 + 3},
        {"head_length": 6000},
    ],
)
def test_impossible_containers(world: World, change: dict[str, Any]) -> None:
    """A name that does not say it, a length no sealed file has, a head too long."""
    path = listed(world, "1.0.0", 1)
    facts = replace(full("1.0.0"), **change)
    stored(world, facts)
    wanted = NewArtifact(path, facts, seal=seal_for(world, path, facts))
    with pytest.raises((InvalidInputError, LimitError)):
        releases.publish_release(world.means, OPERATOR, [wanted])


def test_must_seal(world: World) -> None:
    """Hardware that takes sealed images only: no plain publication, no plain order."""
    before = world.release("1.0.0", 1)
    world.device()
    waiting = world.deploy(before)
    world.means = replace(
        world.means, payload=PayloadPolicy(must_seal=frozenset({HARDWARE}))
    )
    with pytest.raises(ForbiddenError, match=HARDWARE):
        world.release("1.1.0", 2)
    with pytest.raises(ForbiddenError, match=HARDWARE):
        world.deploy(before)
    actor = Fleet(world)  # an order made before the policy: held, and it says so
    assert actor.rows() == []
    world.means = replace(
        world.means, payload=PayloadPolicy(must_seal=frozenset({HARDWARE}))
    )
    director.issue_for(world.means, OPERATOR, "dev-0001")
    assert held(world) == "policy"
    (row,) = world.means.store.reader.deployments.installations(waiting)
    assert row.state == "waiting"


def test_never_plain_again(world: World) -> None:
    """An image that was published sealed is not published in the open later."""
    release(world, "1.0.0", 1)
    again = replace(artifact("1.0.0", 2), name="demo-board/rootfs-1.0.1.img")
    again = replace(again, version="1.0.1")
    raw = world.vendor.listing(Listed(again, 2))
    metadata.publish_targets(world.means, OPERATOR, raw)
    plain = Container("rootfs-1.0.1.full", 500, bytes(32), 32, bytes(32))
    stored(world, plain)
    with pytest.raises(ForbiddenError, match="sealed before"):
        releases.publish_release(
            world.means, OPERATOR, [NewArtifact(again.name, plain)]
        )


def put(world: World, name: str, body: bytes) -> int:
    """Upload a body as the operator; the status of the answer."""
    token = accounts.rotate_token(world.means, OPERATOR)
    digest = base64.b64encode(hashlib.sha256(body).digest())
    headers = [
        (b"authorization", f"Bearer {token}".encode()),
        (b"content-length", str(len(body)).encode()),
        (b"repr-digest", b"sha-256=:" + digest + b":"),
    ]
    app = guarded(OperatorFace(world.means, at_once, Config(), "1", {}))
    return ask(app, "PUT", f"{PREFIX}/containers/{name}", headers, body=body).status


def test_plain_bytes_are_refused_at_the_door(world: World, tmp_path: Path) -> None:
    """No plain container of or from a sealed image is stored, whatever it is called."""
    release(world, "1.0.0", 1)
    listed(world, "1.1.0", 2)  # not published yet, but the vendor says it is sealed
    images = [artifact(v).sha256 for v in ("1.0.0", "1.1.0")]
    bodies = [
        ("x.full", MAGIC + bytes(32) + images[0] + bytes(200)),
        ("x.full", MAGIC + bytes(32) + images[1] + bytes(200)),
        ("x.delta", MAGIC + bytes(32) + bytes([7]) * 32 + images[0] + bytes(99)),
    ]
    for name, body in bodies:
        assert put(world, name, body) == 403
    assert put(world, "x.full.sealed", MAGIC + bytes(300)) == 422
    assert put(world, "x.full.sealed", MAGIC) == 422
    assert list((tmp_path / "server/blobs").iterdir()) == []
    assert put(world, "y.full", MAGIC + bytes(32) + bytes([9]) * 64) == 200
    assert put(world, "y.full.sealed", os.urandom(300)) == 200
    assert put(world, "empty.full", b"") == 200


# ── ordering ─────────────────────────────────────────────────────────────────────────
def test_wrapped_for_this_device_alone(world: World, fleet: Recipients) -> None:
    """The order carries the content key for the device's key; nobody else opens it."""
    found = release(world, "1.0.0", 1)
    fleet.running("0.9.0", "dev-0001", abilities=ABLE)
    world.deploy(found)
    signed = fleet.targets("dev-0001")
    (entry,) = signed["targets"].values()
    ecu = entry["custom"]["ecus"]["dev-0001-main"]
    wrap = Wrap.from_json(ecu["payload"]["sealed"]["wrap"])
    info = encryption.wrap_info(
        "default",
        "dev-0001",
        "dev-0001-main",
        "demo-board/rootfs-1.0.0.img",
        full("1.0.0").sha256,
        signed["version"],
    )
    key = fleet.keys["dev-0001"]
    opened = encryption.unwrap(key.kem, key.public, key.dh, wrap.data, info)
    assert opened == KEY
    other = hpke.PrivateKey("x25519", bytes([5]) * 32)
    with pytest.raises(DecryptError):
        encryption.unwrap(other.kem, other.public, other.dh, wrap.data, info)


def test_polls_do_not_wrap_anew(world: World, fleet: Recipients) -> None:
    """The same order stays the same file; a wrap is no reason for a new version."""
    found = release(world, "1.0.0", 1)
    fleet.running("0.9.0", "dev-0001", abilities=ABLE)
    world.deploy(found)
    first = fleet.targets("dev-0001")
    assert fleet.targets("dev-0001") == first


@pytest.mark.parametrize(
    ("abilities", "kid", "why"),
    [
        (("delta/1",), True, "ability"),
        (("cobblestone-256",), True, "ability"),
        (ABLE, False, "key"),
        (ABLE, True, None),
    ],
)
def test_who_cannot_open_it_is_not_ordered_it(
    world: World,
    fleet: Recipients,
    abilities: tuple[str, ...],
    kid: bool,
    why: str | None,
) -> None:
    """Held and visible, with the reason; ordered as soon as the device can."""
    found = release(world, "1.0.0", 1)
    reported = fleet.keys["dev-0001"].recipient.kid if kid else "00" * 8
    fleet.running("0.9.0", "dev-0001", abilities=abilities, kid=reported)
    world.deploy(found)
    assert held(world) == why
    assert bool(fleet.targets("dev-0001")["targets"]) is (why is None)
    fleet.running("0.9.0", "dev-0001", abilities=ABLE)
    assert fleet.targets("dev-0001")["targets"]
    assert held(world) is None


def test_device_without_a_key(world: World) -> None:
    """Enrolled without a decryption key: held for that reason."""
    fleet = Fleet(world)
    found = release(world, "1.0.0", 1)
    fleet.running("0.9.0", "old", abilities=ABLE)
    world.deploy(found)
    assert held(world, "old") == "key"


def test_plain_name_of_a_sealed_container(world: World, fleet: Recipients) -> None:
    """``policy.forbidden`` for the device that is ordered it sealed, else not found."""
    found = release(world, "1.0.0", 1)
    fleet.running("0.9.0", "dev-0001", abilities=ABLE)
    world.deploy(found)
    fleet.poll("dev-0001")
    reader, digest = world.means.store.reader, full("1.0.0").sha256.hex()
    name = "rootfs-1.0.0.full"
    with pytest.raises(ForbiddenError):
        director.ordered_container(reader, "dev-0001", digest, name)
    with pytest.raises(NotFoundError):
        director.ordered_container(reader, "dev-0002", digest, name)
    director.ordered_container(reader, "dev-0001", digest, f"{name}.sealed")


# ── deltas ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("base", "new", "allowed", "sealed"),
    [
        (False, False, False, False),
        (False, False, True, False),
        (False, True, False, None),
        (True, True, False, None),
        (True, False, False, None),
        (True, False, True, None),  # the new image is public: it would tell the base
        (False, True, True, True),
        (True, True, True, True),
    ],
)
def test_never_a_plain_delta_from_a_sealed_base(
    base: bool, new: bool, allowed: bool, sealed: bool | None
) -> None:
    """Which pairs this server may make a delta of, and whether that is sealed."""
    found = rules.sealed_pair(base_sealed=base, new_sealed=new, allowed=allowed)
    assert found is sealed


def test_server_makes_sealed_deltas_if_it_may(world: World, fleet: Recipients) -> None:
    """Both content keys are opened for the task and shown by nothing."""
    release(world, "1.0.0", 1)
    fleet.running("1.0.0", "dev-0001", abilities=ABLE)
    release(world, "1.1.0", 2)
    (row,) = fleet.rows()
    means = world.means
    task = deltas.task_of(means.store.reader, means.payload, means.content, row)
    assert task.name.endswith(".delta.sealed")
    assert task.base.content_key == task.new.content_key == KEY
    assert KEY.hex() not in repr(task)
    assert repr(KEY) not in repr(task)
    fleet.claim()
    made = replace(full("delta", 10), name=task.name, base_length=9)
    made = replace(made, base_sha256=artifact("1.0.0").sha256)
    deltas.finish(means, OPERATOR, row.number, MAKER, made, 1)
    assert fleet.rows()[0].state == "ready"


def test_not_without_leave(world: World, fleet: Recipients) -> None:
    """``delta.sealed = false``: nothing is wanted, and a row from before is refused."""
    release(world, "1.0.0", 1)
    fleet.running("1.0.0", "dev-0001", abilities=ABLE)
    release(world, "1.1.0", 2)
    (row,) = fleet.rows()
    world.means = replace(world.means, payload=DELTAS)
    with pytest.raises(ConflictError):
        deltas.task_of(
            world.means.store.reader, world.means.payload, world.means.content, row
        )
    release(world, "1.2.0", 3)
    assert len(fleet.rows()) == 1


def desk_delta(new: str, base: str, plain: int = 700, *, sealed: bool) -> Container:
    """The facts of a delta as the desk makes it."""
    images = artifact(new).sha256.hex(), artifact(base).sha256.hex()
    return Container(
        name=rules.name(*images, sealed=sealed),
        length=encryption.sealed_length(plain) if sealed else plain,
        sha256=hashlib.sha256(f"{new} {base} {sealed}".encode()).digest(),
        head_length=32,
        head_sha256=bytes(32),
        base_length=9,
        base_sha256=artifact(base).sha256,
    )


def test_deltas_of_the_desk(world: World, fleet: Recipients) -> None:
    """What the desk made is offered like the server's own, and not made again."""
    release(world, "1.0.0", 1)
    fleet.running("1.0.0", "dev-0001", abilities=ABLE)
    delta = desk_delta("1.1.0", "1.0.0", sealed=True)
    stored(world, delta)
    found = release(world, "1.1.0", 2, deltas=(delta,))
    (row,) = fleet.rows()
    assert (row.state, row.origin, row.container) == ("ready", "desk", delta)
    world.deploy(found)
    (entry,) = fleet.targets("dev-0001")["targets"].values()
    payload = entry["custom"]["ecus"]["dev-0001-main"]["payload"]
    assert payload["delta"]["name"] == delta.name
    with pytest.raises(ConflictError):
        deltas.retry(world.means, OPERATOR, row.number)


def test_bad_deltas_of_the_desk(world: World) -> None:
    """Not a delta, another name, plain from a sealed base, not uploaded: refused."""
    release(world, "1.0.0", 1)
    path = listed(world, "1.1.0", 2, sealed=False)
    facts = Container("rootfs-1.1.0.full", 900, bytes(32), 32, bytes(32))
    stored(world, facts)
    good = desk_delta("1.1.0", "0.9.0", sealed=False)
    secret = desk_delta("1.1.0", "1.0.0", sealed=False)
    cases = [
        (replace(good, base_sha256=None), InvalidInputError),
        (replace(good, name="wrong.delta"), InvalidInputError),
        (replace(good, base_sha256=artifact("1.1.0").sha256), InvalidInputError),
        (secret, ForbiddenError),
    ]
    for delta, _ in cases:
        if not world.means.store.reader.releases.container(delta.name):
            stored(world, delta)
    for delta, error in cases:
        wanted = [NewArtifact(path, facts, (delta,))]
        with pytest.raises(error):
            releases.publish_release(world.means, OPERATOR, wanted)
    releases.publish_release(world.means, OPERATOR, [NewArtifact(path, facts, (good,))])
    (row,) = world.means.store.reader.deltas.all()
    assert row.state == "ready"


# ── nothing is written ───────────────────────────────────────────────────────────────
def test_content_keys_are_nowhere(
    world: World, fleet: Recipients, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Database, audit leaves, logs and answers hold no content key in any form."""
    caplog.set_level(logging.DEBUG)
    release(world, "1.0.0", 1)
    fleet.running("1.0.0", "dev-0001", abilities=ABLE)
    found = release(world, "1.1.0", 2)
    row = fleet.claim()
    means = world.means
    deltas.task_of(means.store.reader, means.payload, means.content, row)
    world.deploy(found)
    fleet.poll("dev-0001")
    token = accounts.rotate_token(means, OPERATOR).encode()
    app = guarded(OperatorFace(means, at_once, Config(), "1", {}))
    shown = [(b"authorization", b"Bearer " + token)]
    said = b"".join(
        ask(app, "GET", PREFIX + path, shown).body
        for path in ("/releases", "/deltas", "/deployments", "/audit", "/devices")
    )
    assert b"1.1.0" in said
    files = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert b"content_key" in files
    for form in (KEY, KEY.hex().encode(), base64.b64encode(KEY), repr(KEY).encode()):
        assert form not in files
        assert form not in said
        assert form not in caplog.text.encode()
