"""The real agent renews its certificate at the real server, in time and after its end."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from sealift.server.app import SystemClock
from tests.integration.server_process import RunningServer, made, sealift

AGENT = [sys.executable, "-I", "-m", "sealift.agent"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("renewal")


@pytest.fixture(scope="module")
def server(here: Path) -> Iterator[RunningServer]:
    running = made(here / "srv")
    settings = running.directory / "server.toml"
    settings.write_text(settings.read_text().replace("= 300", "= 1"))
    running.start()
    running.publish_roots()
    for repository in ("image", "director"):
        place = here / "desk" / "metadata" / repository
        place.mkdir(parents=True)
        (place / "1.root.json").write_bytes(running.vendor.root(repository))
    (here / "token").write_text(running.token + "\n")
    (here / "token").chmod(0o600)
    running.release("1.0.0", 1, here)
    yield running
    running.stop()


class Device:
    """A provisioned device, whose certificate was issued so many days ago."""

    def __init__(self, server: RunningServer, here: Path, name: str, age: int) -> None:
        self.server, self.name, self.home = server, name, here / name
        access = (
            *("--server", server.urls["operator"], "--ca", server.ca),
            *("--token-file", here / "token"),
        )
        done = sealift(
            *("device", "provision", name, "--hardware-id", "demo-board-r1"),
            *("--desk", here / "desk", "--out", self.home, *access),
        )
        assert done.returncode == 0, done.stderr
        self.config = self.home / "agent.toml"
        boot = self.home / "boot"
        boot.mkdir(mode=0o700, exist_ok=True)
        (boot / "running").write_text("slot=a\nboot_id=one\n")
        for slot in "ab":
            (self.home / f"slot-{slot}.img").write_bytes(bytes(1 << 16))
        self._age(age)

    def _age(self, days: int) -> None:
        """Its certificate is one of that day, on its disk and in the server's books."""
        key = load_pem_private_key((self.home / "device.key").read_bytes(), None)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, self.name)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        request = builder.sign(key, SHA256()).public_bytes(Encoding.PEM)  # type: ignore[arg-type]
        pem = self.server.reissue(self.name, request, days)
        (self.home / "device.pem").write_text(pem)

    @property
    def state(self) -> Path:
        return self.home / "state"

    def check(self) -> subprocess.CompletedProcess[str]:
        words = (*AGENT, "check", "--config", str(self.config))
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def certificate(self) -> x509.Certificate | None:
        """The renewed one, if there is one."""
        path = self.state / "tls.pem"
        if not path.exists():
            return None
        return x509.load_pem_x509_certificate(path.read_bytes())

    def events(self, kind: str) -> list[dict[str, object]]:
        with sqlite3.connect(self.server.directory / "sealift.db") as database:
            rows = database.execute(
                "SELECT body FROM audit_leaf WHERE kind = ? ORDER BY position", (kind,)
            ).fetchall()
        found = [json.loads(row[0]) for row in rows]
        return [leaf for leaf in found if leaf["refs"][0]["id"] == self.name]


def test_a_young_certificate_is_left_alone(server: RunningServer, here: Path) -> None:
    """40 of 90 days: nobody asks."""
    device = Device(server, here, "dev-young", 40)
    assert device.check().returncode == 0
    assert device.certificate() is None
    assert device.events("device.renewed") == []


def test_an_old_one_is_renewed_with_a_new_key(
    server: RunningServer, here: Path
) -> None:
    """80 of 90 days: another key, mode 0600, and the next check goes by it."""
    device = Device(server, here, "dev-old", 80)
    done = device.check()
    assert done.returncode == 0, done.stderr
    found = device.certificate()
    assert found is not None
    assert found.not_valid_after_utc > SystemClock().now() + timedelta(days=80)
    old = x509.load_pem_x509_certificate((device.home / "device.pem").read_bytes())
    assert found.public_key() != old.public_key()
    assert (device.state / "tls.pem").stat().st_mode & 0o777 == 0o600
    assert not (device.state / "tls-next.pem").exists()
    (event,) = device.events("device.renewed")
    # The old files are not needed any more, and a second check asks for nothing.
    for name in ("device.pem", "device.key"):
        (device.home / name).unlink()
    assert device.check().returncode == 0
    assert device.events("device.renewed") == [event]


def test_one_that_slept_for_a_year_comes_back_untouched(
    server: RunningServer, here: Path
) -> None:
    """The handshake refuses it; one check later it is in again."""
    device = Device(server, here, "dev-slept", 90 + 365)
    first = device.check()
    assert first.returncode != 0  # this check itself could not poll
    assert device.certificate() is not None, first.stderr
    assert device.check().returncode == 0
    (event,) = device.events("device.renewed")
    assert event["body"]["days_late"] in {364, 365}  # type: ignore[index]


def test_E03_a_revoked_one_stays_out(server: RunningServer, here: Path) -> None:
    """Asleep or not."""
    device = Device(server, here, "dev-revoked", 90 + 30)
    with server.operator() as operator:
        operator.revoke("dev-revoked", "stolen")
    done = device.check()
    assert done.returncode != 0
    assert "identity.revoked" in done.stderr
    assert device.certificate() is None
    assert not (device.state / "tls-next.pem").exists()


def test_a_cut_between_getting_and_using(server: RunningServer, here: Path) -> None:
    """What was got and not used is used next, without asking again."""
    device = Device(server, here, "dev-cut", 80)
    assert device.check().returncode == 0
    (device.state / "tls.pem").rename(device.state / "tls-next.pem")
    assert device.check().returncode == 0
    assert device.certificate() is not None
    assert len(device.events("device.renewed")) == 1


def test_a_next_one_that_is_damaged_is_thrown_away(
    server: RunningServer, here: Path
) -> None:
    """The present one stays in use; tomorrow another one is asked for."""
    device = Device(server, here, "dev-torn", 80)
    device.check()
    whole = (device.state / "tls.pem").read_bytes()
    (device.state / "tls.pem").unlink()
    (device.state / "tls-next.pem").write_bytes(whole[: len(whole) // 2])
    (device.state / "tls-next.pem").chmod(0o600)
    done = device.check()
    assert done.returncode == 0, done.stderr
    assert "key.unreadable" in done.stderr
    assert not (device.state / "tls-next.pem").exists()
    assert device.certificate() is None
    assert device.check().returncode == 0


def test_a_running_agent_goes_on_under_the_new_one(
    server: RunningServer, here: Path
) -> None:
    """The polling parent takes it up: revoking the old one does not stop it."""
    device = Device(server, here, "dev-runs", 80)
    log = here / "dev-runs.log"
    with log.open("wb") as out:
        agent = subprocess.Popen(
            [*AGENT, "run", "--config", str(device.config)], stderr=out
        )
    try:
        until = time.monotonic() + 60
        while "renewed" not in log.read_text():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        with sqlite3.connect(server.directory / "sealift.db") as database:
            database.execute(
                "UPDATE certificate SET revoked_at = '2026-01-01T00:00:00Z' "
                "WHERE device_id = 'dev-runs' AND rowid < "
                "(SELECT max(rowid) FROM certificate WHERE device_id = 'dev-runs')"
            )
        seen = log.read_text().count("info poll")
        while log.read_text().count("info poll") < seen + 3:
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        assert "identity.revoked" not in log.read_text()
    finally:
        agent.terminate()
        agent.wait(30)
