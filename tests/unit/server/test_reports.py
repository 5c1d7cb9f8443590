"""Signed reports: who may say what, how often, and what comes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from sealift.core.audit import Actor, ActorType
from sealift.core.errors import (
    ReportInvalidError,
    ReportReplayError,
    RequestError,
    TooLargeError,
)
from sealift.core.manifest import sign_manifest, sign_report
from sealift.core.reports import EcuReport, Installed, Manifest, Pending, Result
from sealift.core.types import Artifact
from sealift.server.services import deployments, director, reports
from sealift.server.services.reports import REFUSED_PER_DAY
from tests.unit.server.world import START, TestDevice, World, artifact


@dataclass
class Voice:
    """The reporting half of a device: its key, counter and chain."""

    device: TestDevice
    counter: int = 0
    previous: str | None = None
    runs: Artifact | None = None
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def actor(self) -> Actor:
        return Actor(ActorType.DEVICE, self.device.id)

    def public(self) -> Mapping[str, object]:
        return self.device.public

    def sign(self, data: bytes) -> bytes:
        found = self.device.report_key.sign(data)
        assert isinstance(found, bytes)
        return found

    def report(self, **changes: Any) -> bytes:
        """The next report; ``changes`` to manifest members or ``ecu`` ones."""
        self.counter += 1
        nonce = self.counter.to_bytes(16, "big")
        ecu = changes.pop("ecu", {})
        blocks, values = {}, []
        for ecu_id, hardware_id in self.device.ecus.items():
            value = EcuReport(
                ecu_id=ecu_id,
                hardware_id=hardware_id,
                installed=None if self.runs is None else installed(self.runs),
                time=START,
                counter=self.counter,
                nonce=nonce,
            )
            value = replace(value, **ecu)
            values.append(value)
            blocks[ecu_id] = sign_report(value, self)
        manifest = Manifest(
            device_id=self.device.id,
            primary=next(iter(self.device.ecus)),
            counter=self.counter,
            nonce=nonce,
            previous=self.previous,
            gap=False,
            now=START,
            time_source="clock",
            versions={"director": {"root": 1, "timestamp": 1}},
            crypto="classic",
            key_store="file",
            agent="test",
            reports=tuple(values),
        )
        raw = sign_manifest(replace(manifest, **changes), blocks, self)
        self.previous = hashlib.sha256(raw).hexdigest()
        return raw


def installed(image: Artifact) -> Installed:
    return Installed(
        image.name, image.length, image.sha256, image.version, image.release_counter
    )


def send(world: World, voice: Voice, raw: bytes) -> None:
    reports.receive(world.means, voice.actor, voice.device.id, raw)


def refused(world: World, voice: Voice, raw: bytes) -> RequestError:
    with pytest.raises(RequestError) as found:
        send(world, voice, raw)
    return found.value


def device_row(world: World, device_id: str = "dev-0001") -> Any:
    return world.means.store.reader.devices.find(device_id)


def ecu_row(world: World, device_id: str = "dev-0001") -> Any:
    return world.means.store.reader.devices.ecus(device_id)[0]


def state(world: World, deployment_id: str) -> tuple[str, str | None]:
    view = deployments.show_deployment(world.means.store.reader, deployment_id)
    (found,) = view.installations
    return found.state, found.code


@pytest.fixture
def voice(world: World) -> Voice:
    return Voice(world.device())


def test_report_fills_the_inventory(world: World, voice: Voice) -> None:
    """What the device says it runs, when, and by which clock, is shown."""
    voice.runs = artifact("0.9.0", counter=2)
    send(world, voice, voice.report(time_source="build"))
    found = ecu_row(world)
    assert found.installed_version == "0.9.0"
    assert found.release_counter == 2
    assert device_row(world).time_source == "build"
    assert device_row(world).counter == 1
    assert world.leaves()[-1] == "manifest.accepted"


def ordered(world: World, voice: Voice) -> str:
    """A deployment that the device has fetched."""
    found = world.deploy(world.release("1.0.0", 1), voice.device.id)
    director.issue_for(world.means, voice.actor, voice.device.id)
    return found


def test_success_is_a_report_of_the_new_image(world: World, voice: Voice) -> None:
    """The installation ends, the deployment is complete, nothing is ordered any more."""
    found = ordered(world, voice)
    voice.runs = artifact("1.0.0")
    send(world, voice, voice.report())
    assert state(world, found) == ("succeeded", None)
    reader = world.means.store.reader
    assert deployments.show_deployment(reader, found).deployment.state == "completed"
    record = director.issue_for(world.means, voice.actor, voice.device.id)
    assert json.loads(record.targets)["signed"]["targets"] == {}
    assert world.leaves()[-2] == "installation.state"


def result(verdict: str, code: str | None, **changes: Any) -> Result:
    base = Result(
        attempt="1",
        verdict=verdict,
        stage="trial",
        sha256=artifact("1.0.0").sha256,
        director_version=2,
        from_version="0.9.0",
        to_version="1.0.0",
        code=code,
    )
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("sentence", "results", "expected"),
    [
        ("failed", [result("failed", "device.space")], ("failed", "device.space")),
        (
            "rolled back",
            [result("rolled_back", "device.boot")],
            ("rolled_back", "device.boot"),
        ),
        (
            "a lie: succeeded, runs the old one",
            [result("succeeded", None)],
            ("offered", None),
        ),
        (
            "of another image",
            [result("failed", "x", sha256=b"z" * 32)],
            ("offered", None),
        ),
        (
            "of another deployment",
            [result("failed", "x", deployment="d-0")],
            ("offered", None),
        ),
    ],
)
def test_results(
    world: World,
    voice: Voice,
    sentence: str,
    results: list[Result],
    expected: tuple[str, str | None],
) -> None:
    """A result ends the installation it is about, with its code, and no other."""
    found = ordered(world, voice)
    voice.runs = artifact("0.9.0")
    send(world, voice, voice.report(ecu={"results": tuple(results)}))
    assert state(world, found) == expected, sentence


def test_pending_shows_how_far_it_is(world: World, voice: Voice) -> None:
    """A pending order moves the installation forward; unknown stages do not."""
    found = ordered(world, voice)
    digest = artifact("1.0.0").sha256
    for stage, expected in [
        ("staging", "downloading"),
        ("nonsense", "downloading"),
        ("rebooting", "rebooting"),
        ("staging", "rebooting"),
    ]:
        pending = Pending(digest, 2, stage)
        send(world, voice, voice.report(ecu={"pending": pending}))
        assert state(world, found)[0] == expected


# ── what is refused ──────────────────────────────────────────────────────────────────
def test_E09_replay(world: World, voice: Voice) -> None:
    """The same report again, or an older one: 409, nothing changes."""
    first, second = voice.report(), voice.report()
    send(world, voice, first)
    send(world, voice, second)
    before = (device_row(world), world.leaves())
    for raw in (second, first):
        assert isinstance(refused(world, voice, raw), ReportReplayError)
    assert (device_row(world), world.leaves()) == before


def test_E09_report_of_another_device(world: World, voice: Voice) -> None:
    """Another device's report under our certificate is refused and kept."""
    other = Voice(world.device("dev-0002"))
    raw = other.report()
    send(world, other, raw)
    assert isinstance(refused(world, voice, raw), ReportInvalidError)
    kept = world.means.store.reader.manifests.of(voice.device.id)
    assert [m.verdict for m in kept] == ["report.invalid"]
    assert kept[0].body == raw


def broken(world: World, voice: Voice) -> dict[str, bytes]:
    stranger = Voice(
        replace(voice.device, report_key=ed25519.Ed25519PrivateKey.generate())
    )
    good = json.loads(voice.report())
    voice.counter -= 1
    voice.previous = None
    ecu_id = next(iter(voice.device.ecus))
    missing = json.loads(json.dumps(good))
    missing["payload"]["reports"] = {}
    unknown = json.loads(json.dumps(good))
    unknown["payload"]["reports"]["other"] = good["payload"]["reports"][ecu_id]
    return {
        "signed by another key": stranger.report(),
        "not JSON": b"\xff\x00",
        "empty": b"",
        "a component is missing": json.dumps(missing).encode(),
        "a component is unknown": json.dumps(unknown).encode(),
        "from the future": voice.report(ecu={"time": START + timedelta(hours=25)}),
        "of another hardware": voice.report(ecu={"hardware_id": "other"}),
        "a zero counter": json.dumps(
            good | {"payload": good["payload"] | {"counter": 0}}
        ).encode(),
    }


def test_E10_forged_reports_change_nothing(world: World, voice: Voice) -> None:
    """Each is 422, kept as evidence with one event, and the inventory stays."""
    before = (device_row(world), ecu_row(world))
    rows = broken(world, voice)
    for sentence, raw in rows.items():
        assert isinstance(refused(world, voice, raw), ReportInvalidError), sentence
    assert (device_row(world), ecu_row(world)) == before
    kept = world.means.store.reader.manifests.of(voice.device.id)
    assert len(kept) == len(rows)
    assert world.leaves().count("manifest.refused") == len(rows)


def test_E10_time_running_back(world: World, voice: Voice) -> None:
    """M10: the vouched time never runs back, unless a newer root shows why."""
    send(world, voice, voice.report(ecu={"time": START + timedelta(hours=1)}))
    kept = (voice.counter, voice.previous)
    assert isinstance(refused(world, voice, voice.report()), ReportInvalidError)
    voice.counter, voice.previous = kept
    versions = {"director": {"root": 2, "timestamp": 1}}
    send(world, voice, voice.report(versions=versions))


def test_E12_too_large(world: World, voice: Voice) -> None:
    """More than a manifest may have is refused; little of it is kept."""
    raw = b"[" + b" " * (1 << 20)
    assert isinstance(refused(world, voice, raw), TooLargeError)
    (kept,) = world.means.store.reader.manifests.of(voice.device.id)
    assert len(kept.body) == 64 * 1024
    assert kept.sha256 == hashlib.sha256(raw).hexdigest()


def test_evidence_is_bounded(world: World, voice: Voice) -> None:
    """A device cannot fill the disk with refused reports; a day later it may again."""
    for number in range(REFUSED_PER_DAY + 5):
        refused(world, voice, b"x%d" % number)
    assert world.leaves().count("manifest.refused") == REFUSED_PER_DAY
    world.clock.forward(hours=25)
    refused(world, voice, b"tomorrow")
    assert world.leaves().count("manifest.refused") == REFUSED_PER_DAY + 1


def test_E01_clone_is_quarantined(world: World, voice: Voice) -> None:
    """M8: two holders of one key. The second to speak ends the orders of both."""
    ordered(world, voice)
    send(world, voice, voice.report())
    clone = replace(voice)
    send(world, voice, voice.report())
    clone.runs = artifact("0.8.0")
    assert isinstance(refused(world, clone, clone.report()), ReportReplayError)
    assert device_row(world).state == "quarantined"
    assert world.leaves()[-1] == "device.quarantined"
    record = director.issue_for(world.means, voice.actor, voice.device.id)
    assert json.loads(record.targets)["signed"]["targets"] == {}
    send(world, voice, voice.report())  # still heard


def test_hole_in_the_history(world: World, voice: Voice) -> None:
    """A report that continues one we never saw is refused, unless it says so."""
    send(world, voice, voice.report())
    voice.report()
    third = voice.report()
    assert isinstance(refused(world, voice, third), ReportInvalidError)
    fourth = voice.report(gap=True)
    send(world, voice, fourth)


def test_D11_versions_follow_the_device(world: World, voice: Voice) -> None:
    """After a restored database the Director goes above what the device trusts."""
    director.issue_for(world.means, voice.actor, voice.device.id)
    versions = {"director": {"root": 1, "timestamp": 70, "snapshot": 60, "targets": 50}}
    send(world, voice, voice.report(versions=versions))
    record = director.issue_for(world.means, voice.actor, voice.device.id)
    assert record.versions == (51, 61, 71)


def test_E11_lie_about_versions_is_capped(world: World, voice: Voice) -> None:
    """A device that claims an absurd version moves its own by 2^20 and no further."""
    versions = {"director": {"timestamp": 2**53 - 1, "snapshot": 1, "targets": 1}}
    send(world, voice, voice.report(versions=versions))
    record = director.issue_for(world.means, voice.actor, voice.device.id)
    assert record.versions[2] == 2**20 + 1
