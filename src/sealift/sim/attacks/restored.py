"""Row D-15: a device whose state is that of an earlier day, as its server sees it.

With a hardware counter the device sees it first, and says nothing under old counters.
The server's side is the real one: enrolment, inventory and reports over SQLite.
"""

from __future__ import annotations

import secrets
import shutil
from functools import partial
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from sealift.agent.keyfile import FileKey
from sealift.core.audit import Actor, ActorType
from sealift.repo import online
from sealift.server.adapters import ca, content
from sealift.server.adapters.files import FileBlobs
from sealift.server.adapters.sqlite import SqliteStore
from sealift.server.ports import Means
from sealift.server.services import identity, reports
from sealift.sim.attacks.world import (
    DEVICE,
    INSTALLED,
    Ground,
    Observed,
    Scene,
    refusal,
)
from sealift.sim.flash import Door, FlashCounter
from sealift.sim.vendor import HARDWARE

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.sim.world import SimClock

ACTOR = Actor(ActorType.DEVICE, DEVICE)
TAKEN = "accepted"


def attack_d_15(ground: Ground) -> Observed:
    """Last month's state directory is put back: its counters tell on it."""
    return ground.observed(ground.play(_by_the_device), ground.play(_restored))


def _by_the_device(scene: Scene) -> str:
    """The floor in its files is below the counter: refused before a word is said.

    Also one of the day it left the factory, with the floors gone; the way back is to
    have no state at all, and then the counter is the floor.
    """
    device = scene.device
    counter = device.counter = FlashCounter(Door())
    device.seal_state()
    server = Server(scene, of_now=True)
    state, kept = device.path("state"), device.path("kept")
    scene.catch_up()
    shutil.copytree(state, kept)
    scene.catch_up()
    floor = counter.value()
    shutil.rmtree(state)
    kept.rename(state)
    outcomes, honest = set(), set(server.hear())
    outcomes.add(device.cycle().outcome)
    for number in (0, 1):
        device.path(f"state/floors.{number}").unlink(missing_ok=True)
    outcomes.add(device.cycle().outcome)
    if honest != {TAKEN} or server.hear() or device.waiting():
        scene.faults.append("something was reported under old counters")
    shutil.rmtree(state)
    if device.floor() != floor:
        scene.faults.append("the floor was lost with the state")
    scene.require(scene.attempt(), INSTALLED)
    if set(server.hear()) != {TAKEN} or server.state != "active":
        scene.faults.append("a device whose state was wiped is taken for a clone")
    return " and ".join(sorted(outcomes))


def _restored(scene: Scene) -> str:
    server = Server(scene)
    state = scene.device.path("state")
    kept = state.with_name("kept")
    shutil.copytree(state, kept)
    scene.catch_up()
    scene.catch_up()
    if set(server.hear()) != {TAKEN}:
        scene.faults.append("an honest report was refused")
    shutil.rmtree(state)
    kept.rename(state)
    scene.require(scene.attempt(), INSTALLED)
    answers = server.hear()
    if server.state == "quarantined" and "report.replay" in answers:
        return "clone alarm"
    return f"{server.state} after {answers}"


class Server:
    """What a server knows of the device of a scene, told by the device itself."""

    def __init__(self, scene: Scene, *, of_now: bool = False) -> None:
        self._scene = scene
        self._heard = len(self._bodies()) if of_now else 0
        self._means = _means(scene.directory / "server", scene.clock)
        device = scene.device
        wish = identity.NewDevice(
            DEVICE,
            _request(),
            FileKey(str(device.path("report.pem"))).public(),
            (identity.NewEcu(device.ecu_id, HARDWARE),),
        )
        identity.enrol(self._means, ACTOR, wish)

    def hear(self) -> list[str]:
        """Take every report that came since the last time; what was answered."""
        bodies = self._bodies()
        fresh, self._heard = bodies[self._heard :], len(bodies)
        return [refusal(partial(self._receive, body)) for body in fresh]

    def _bodies(self) -> list[bytes]:
        requests = self._scene.seats[DEVICE].wire.requests
        return [it.body for it in requests if it.path == "director/manifest"]

    def _receive(self, body: bytes) -> None:
        reports.receive(self._means, ACTOR, DEVICE, body)

    @property
    def state(self) -> str:
        """What the server thinks of the identity."""
        found = self._means.store.reader.devices.find(DEVICE)
        return found.state if found else "unknown"


def _means(directory: Path, clock: SimClock) -> Means:
    for name in ("keys", "blobs"):
        (directory / name).mkdir(parents=True)
    online.make(directory / "keys")
    signers = online.load(directory / "keys")
    key = ca.new_key()
    return Means(
        store=SqliteStore(directory / "sealift.db"),
        blobs=FileBlobs(directory / "blobs"),
        authority=ca.DeviceAuthority(ca.make_authority("d-15", key, clock.now()), key),
        clock=clock,
        chance=secrets,
        director=signers.director,
        image=signers.image,
        content=content.ContentKeyFile(content.make_pem(secrets.token_bytes)),
    )


def _request() -> bytes:
    """A certificate request of the device."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DEVICE)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    return request.sign(ca.new_key(), SHA256()).public_bytes(Encoding.PEM)
