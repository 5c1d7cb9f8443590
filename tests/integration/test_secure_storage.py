"""A device with a TPM, as a real process: keys, sealed state, counter; then no state.

The TPM is swtpm, the tools are Debian's, the agent is the real one on the reference
board. Whoever can write the data partition puts an old state back, forges one, takes
all of it away.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sealift.agent.storage.codec import sealed as written
from sealift.core.hpke import Recipient
from sealift.core.keys import PublicKey
from sealift.core.manifest import Inventory, Unit, verify_manifest
from sealift.core.reports import Manifest
from sealift.sim.shipping import sealed
from sealift.sim.vendor import HARDWARE, make_release
from tests.bench.tpm import Swtpm, swtpm
from tests.integration.agent_world import AGENT, DEVICE, ECU, Device, World, world

IDLE = "state=idle"
PLACES = {
    "report-key": "tpm:0x81010001",
    "decryption-key": "tpm:0x81010002",
    "store-key": "tpm:0x81010003?pcr=7",
    "counter": "tpm:0x1500016",
}


@dataclass(frozen=True)
class Secured:
    """A device whose keys are in a TPM, its world, and what it told of its keys."""

    world: World
    tpm: Swtpm
    facts: dict[str, Any]

    @property
    def device(self) -> Device:
        return self.world.device

    @property
    def recipient(self) -> Recipient:
        return Recipient.from_json(self.facts["decryption_key"])

    def reported(self) -> Manifest:
        """The last report, verified by the key the TPM has told."""
        public = PublicKey.from_json(self.facts["report_key"])
        inventory = Inventory(DEVICE, ECU, {ECU: Unit(HARDWARE, public)})
        return verify_manifest(self.world.server.raw_reports[-1], inventory)

    def install(self, version: str, counter: int, *, secret: bool = False) -> None:
        """Order it, power on, wait until it runs, power off."""
        made = make_release(version, counter)
        made = sealed(made) if secret else made
        self.world.vendor.release(made)
        self.world.vendor.order(DEVICE, made.order(ECU, recipient=self.recipient))
        before = self.device.confirmed
        log = self.device.directory / "log"
        told = self.device.log.count(IDLE) if log.exists() else 0
        self.device.start()
        self.device.wait(IDLE, told + 1)
        self.device.close()
        assert self.device.confirmed is before.other
        assert self.device.slot(before.other).startswith(made.content)


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    with swtpm() as tpm, world(tmp_path) as found:
        device = found.device
        options = [word for name, at in PLACES.items() for word in (f"--{name}", at)]
        way = ("--tpm-tool", str(tpm.command), "--tcti", tpm.tcti)
        facts = keys_made(*options, *way)
        text = device.config.read_text()
        for old, new in (
            ('"keys/report.pem"', f'"{PLACES["report-key"]}"'),
            ('"keys/decrypt.pem"', f'"{PLACES["decryption-key"]}"'),
            ("[state]\n", f'{tpm.settings}[state]\nkey = "{PLACES["store-key"]}"\n'),
            ("[[health]]", f'counter = "{PLACES["counter"]}"\n[[health]]'),
        ):
            assert old in text
            text = text.replace(old, new)
        device.config.write_text(text)
        yield Secured(found, tpm, facts)


def keys_made(*options: str) -> dict[str, Any]:
    words = [*AGENT, "keys", "make", *options, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    again = subprocess.run(words, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def checked(device: Device) -> tuple[int, str | None]:
    """One check in the foreground: its status, and the code it ended with."""
    done = device.run("check", "--json")
    assert "Traceback" not in done.stderr
    error = json.loads(done.stdout)["error"]
    return done.returncode, error and error["code"]


def test_the_manual_names_the_keys_that_are_made_here() -> None:
    """What a reader would type is what these tests run."""
    manual = Path(__file__).parents[2].joinpath("docs/agent.md").read_text()
    words = " ".join(f"--{n} {at.partition('?')[0]}" for n, at in PLACES.items())
    assert f"sealift-agent keys make {words} --json > keys.json" in manual


def test_a_device_that_lives_on_its_tpm(secured: Secured) -> None:
    """Reports signed by it, a sealed image opened by it, a state sealed with its key."""
    device = secured.device
    found = device.json("config-check")
    assert found["key_store"] == "tpm"
    assert found["report_key_id"] == secured.facts["report_key_id"]
    assert found["decryption_key_id"] == secured.facts["kid"]

    secured.install("1.0", 3, secret=True)
    last = secured.reported()
    assert (last.key_store, last.kid) == ("tpm", secured.facts["kid"])
    told = device.json("status")
    assert told["key_store"] == "tpm"
    assert told["remarks"] == []
    assert told["components"][0]["release_floor"] == 3
    assert int.from_bytes(secured.tpm.run("nvread", "-s", "8", "0x1500016")) == (
        int.from_bytes(secured.tpm.run("nvread", "-s", "8", "0x1500017")) + 3
    )
    heads = {path.read_bytes().split(b" ")[0] for path in device.state.iterdir()}
    assert heads == {b"sealift2", b"sealift-record"}
    assert not secured.tpm.objects()


def test_old_forged_and_lost_state(secured: Secured, tmp_path: Path) -> None:
    """Old: refused (D-15). Forged: refused. Gone: floor and identity are still there."""
    device, reports = secured.device, secured.world.server.raw_reports
    secured.install("1.0", 3)
    old = tmp_path / "old"
    shutil.copytree(device.state, old)
    secured.install("1.1", 4)

    # put back
    last = tmp_path / "last"
    device.state.rename(last)
    shutil.copytree(old, device.state)
    said = len(reports)
    assert checked(device) == (5, "device.state")
    assert len(reports) == said
    (remark,) = device.json("status")["remarks"]
    assert "of an earlier day" in remark

    # stripped of its tags: as a device without a key would have written it
    shutil.rmtree(device.state)
    shutil.copytree(last, device.state)
    index = device.state / "index"
    index.write_bytes(written("index", index.read_bytes().partition(b"\n")[2]))
    done = device.run("check")
    assert done.returncode == 5
    assert "made without the key" in done.stderr
    assert "docs/agent.md" in done.stderr

    # the data partition was wiped
    shutil.rmtree(device.state)
    found = device.json("status")
    assert found["components"][0]["release_floor"] == 4
    assert found["components"][0]["installed"] is None
    secured.world.publish("0.9", 3)
    status, code = checked(device)
    assert (status, code) == (3, "metadata.counter")
    (told,) = secured.reported().reports
    assert (told.installed, told.attack) == (None, "metadata.counter")
    assert device.json("status")["components"][0]["release_floor"] == 4

    secured.install("1.2", 5)
    assert device.json("status")["components"][0]["release_floor"] == 5


def test_another_secure_boot_policy(secured: Secured) -> None:
    """PCR 4, 9 and 11 change with each update: nothing. PCR 7: said, and a way back."""
    device = secured.device
    secured.install("1.0", 3)
    for pcr in (4, 9, 11):
        secured.tpm.extend(pcr)
    assert checked(device) == (0, None)

    secured.tpm.extend(7)
    done = device.run("check")
    assert done.returncode == 8
    assert "PCR 7 is not as it was" in done.stderr
    told = device.json("status")
    assert any("PCR 7" in remark for remark in told["remarks"])
    assert told["components"][0]["running"] == "b"

    manual = Path(__file__).parents[2].joinpath("docs/agent.md").read_text()
    assert "`tpm2 evictcontrol -C o -c 0x81010003`, remove the state dir" in manual
    assert "`sealift-agent keys make --store-key 'tpm:0x81010003?pcr=7'`" in manual
    secured.tpm.run("evictcontrol", "-C", "o", "-c", "0x81010003")
    shutil.rmtree(device.state)
    way = ("--tpm-tool", str(secured.tpm.command), "--tcti", secured.tpm.tcti)
    keys_made("--store-key", PLACES["store-key"], *way)
    secured.install("1.1", 4)


def test_the_daemon_without_its_store_key(secured: Secured) -> None:
    """It ends with the reason and is started again; nothing is done without the key."""
    device = secured.device
    secured.tpm.run("evictcontrol", "-C", "o", "-c", "0x81010003")
    done = device.run("run")
    assert done.returncode == 5
    assert "cannot be had" in done.stderr
    assert "no store key at 0x81010003" in done.stderr + done.stdout
