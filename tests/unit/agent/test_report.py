"""What a device says of itself: complete, signed, chained, verified by the server's code."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from sealift.agent.keyfile import FileKey
from sealift.agent.machine import Attempt, Idle, Rebooting, State
from sealift.agent.outbox import Outbox
from sealift.agent.report import ABILITIES, Ended, News, Reporter, Self
from sealift.agent.storage import Store
from sealift.agent.trust import Standing
from sealift.core.errors import RollbackError
from sealift.core.keys import PublicKey
from sealift.core.manifest import Inventory, Unit, verify_manifest
from sealift.core.reports import Manifest, Result
from sealift.core.types import Artifact, Container, Instruction, Slot
from tests.unit.agent.posix_disk import PosixDisk

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
EARLIER = datetime(2026, 5, 31, tzinfo=UTC)
STANDING = Standing(
    now=NOW,
    time_source="metadata",
    metadata_time=EARLIER,
    versions={"director": {"root": 1, "targets": 7}, "image": {"root": 2}},
)
IMAGE = Artifact(
    name="board/main-1.img",
    length=10,
    sha256=bytes(32),
    sha512=None,
    segment_size=1 << 20,
    segment_root=bytes(32),
    hardware_ids=("hw-1",),
    release_counter=3,
    version="1.0.0",
)
FULL = Container("main-1.full", 20, bytes(32), 10, bytes(32))
ORDER = Instruction(
    ecu_id="ecu-1",
    hardware_id="hw-1",
    artifact=IMAGE,
    full=FULL,
    delta=None,
    bytes_max=None,
    director_version=7,
    targets_sha256=bytes(32),
    deployment="dep-1",
)
RESULT = Result(
    attempt="a1",
    verdict="succeeded",
    stage="confirming",
    sha256=IMAGE.sha256,
    director_version=7,
    from_version=None,
    to_version="1.0.0",
    deployment="dep-1",
)


class Device:
    """A reporter over a store, and the inventory's view of it."""

    def __init__(self, directory: Path) -> None:
        path = directory / "report.pem"
        made = ed25519.Ed25519PrivateKey.generate()
        path.write_bytes(
            made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        path.chmod(0o600)
        key = FileKey(str(path))
        self.store = Store(7, PosixDisk())
        self.outbox = Outbox(self.store)
        who = Self("dev-1", {"ecu-1": "hw-1"}, "classic", "agent 1")
        chance = iter(range(1, 100))
        self.kid: str | None = None
        self.reporter = Reporter(
            who,
            key,
            self.outbox,
            lambda count: bytes([next(chance)] * count),
            lambda: self.kid,
        )
        public = PublicKey.from_json(dict(key.public()))
        self.inventory = Inventory("dev-1", "ecu-1", {"ecu-1": Unit("hw-1", public)})

    def raw(self, counter: int) -> bytes:
        found = self.store.read(f"report.{counter:016x}")
        assert found is not None
        return found

    def say(self, state: State, news: News) -> Manifest:
        counter = self.outbox.link().counter
        self.reporter.produce({"ecu-1": state}, STANDING, news)
        return verify_manifest(self.raw(counter), self.inventory)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    tmp_path.chmod(0o700)
    return Device(tmp_path)


def test_m1_to_m5_report_verifies_and_says_what_runs(device: Device) -> None:
    """The server's own check accepts it, and finds what is installed and known."""
    found = device.say(Idle(installed=IMAGE), News())
    (report,) = found.reports
    assert report.installed is not None
    assert (report.installed.version, report.installed.release_counter) == ("1.0.0", 3)
    assert (report.attack, report.pending, report.results) == (None, None, ())
    assert report.time == EARLIER, "the vouched time, not the clock"
    assert (found.now, found.time_source) == (NOW, "metadata")
    assert found.versions == STANDING.versions


def test_m6_counter_nonce_and_chain(device: Device) -> None:
    """Counters rise by one, nonces differ, each report names the one before."""
    first, second = device.say(Idle(), News()), device.say(Idle(), News())
    assert (first.counter, second.counter) == (1, 2)
    assert first.nonce != second.nonce
    assert first.previous is None
    assert second.previous == hashlib.sha256(device.raw(1)).hexdigest()


def test_c7_report_says_what_the_agent_can_open_and_with_which_key(
    device: Device,
) -> None:
    """What the server offers depends on it; the key is the one there is now."""
    found = device.say(Idle(), News())
    assert (found.abilities, found.kid) == (ABILITIES, None)
    assert {"delta/1", "cobblestone-256", "x25519"} <= set(ABILITIES)
    device.kid = "ab" * 8
    assert device.say(Idle(), News()).kid == "ab" * 8


def test_m5_refused_cycle_carries_the_attack(device: Device) -> None:
    """A failed check is reported with its code; its text is data."""
    found = device.say(Idle(), News(error=RollbackError("version\n1 < 2")))
    assert found.reports[0].attack == "metadata.rollback"
    assert found.reports[0].detail == "version 1 < 2"


def test_m11_pending_install_is_told(device: Device) -> None:
    """What is ordered and how far it is stands in the report until it is over."""
    attempt = Attempt("a1", ORDER, Slot.B, Slot.A, None)
    found = device.say(Rebooting(attempt, "boot"), News())
    pending = found.reports[0].pending
    assert pending is not None
    assert (pending.stage, pending.deployment) == ("rebooting", "dep-1")
    assert found.reports[0].installed is None


def test_m11_result_replaces_the_pending_install(device: Device) -> None:
    """The end of an attempt is told with what runs now."""
    attempt = Attempt("a1", ORDER, Slot.B, Slot.A, None)
    ended = Ended("ecu-1", RESULT, IMAGE)
    found = device.say(Rebooting(attempt, "boot"), News(ended=ended))
    (report,) = found.reports
    assert report.pending is None
    assert report.results == (RESULT,)
    assert report.installed is not None


def test_result_of_another_component_is_not_ours(device: Device) -> None:
    """An attempt is told by the component that made it."""
    found = device.say(Idle(), News(ended=Ended("ecu-2", RESULT, IMAGE)))
    assert found.reports[0].results == ()
