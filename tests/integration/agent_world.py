"""A device with the real agent on it, beside a server that can be told what to do.

The device is a directory as it is provisioned, its board is the reference board, its
agent a real process. The server speaks real TLS with client certificates and serves
what ``sealift.sim.vendor`` signed; its faults are fields.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import ipaddress
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from sealift.agent.boot.file import Store, open_store
from sealift.agent.clock import SystemClock
from sealift.core.hpke import X25519, PrivateKey, new_private
from sealift.core.types import Slot
from sealift.sim.vendor import HARDWARE, Release, Vendor, make_release

DEVICE = "dev-0001"
ECU = "dev-0001-main"
SLOT_BYTES = 1 << 20
AGENT = [sys.executable, "-I", "-m", "sealift.agent"]


# ── certificates ─────────────────────────────────────────────────────────────────────
def private(path: Path, data: bytes) -> Path:
    """A file for its owner only."""
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path


def _key_pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Authority:
    """A throw-away CA for both sides."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self.pem = self._sign(self._name, self._key, ca=True)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """Certificate and key in PEM, good for loopback."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._sign(subject, key, ca=False), _key_pem(key)

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool
    ) -> bytes:
        now = SystemClock().now()
        here = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=90))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.SubjectAlternativeName(here), critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


# ── the server ───────────────────────────────────────────────────────────────────────
@dataclass
class DeviceServer:
    """mTLS on loopback. ``files`` gives what is served; the rest are faults."""

    files: Callable[[], Mapping[str, bytes]]
    authority: Authority
    directory: Path
    asked: list[str] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    raw_reports: list[bytes] = field(default_factory=list)
    down: bool = False
    report_status: int = 200
    report_code: str = ""
    pace: float = 0.0
    """Seconds between two pieces of 16 KiB of a container."""
    poll_seconds: int = 1

    def __post_init__(self) -> None:
        certificate, key = self.authority.issue("localhost")
        chain = private(self.directory / "server.pem", certificate + key)
        ca = private(self.directory / "ca.pem", self.authority.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_REQUIRED
        self._server = _Tls(("127.0.0.1", 0), context, self)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Tls(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], context: ssl.SSLContext, told: DeviceServer
    ) -> None:
        super().__init__(address, _Handler)
        self.context = context
        self.told = told

    def finish_request(self, request: Any, client_address: Any) -> None:
        try:
            request.settimeout(30)
            request = self.context.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Tls

    def do_GET(self) -> None:
        told, path = self.server.told, self.path.lstrip("/")
        told.asked.append(path)
        body = None if told.down else told.files().get(path)
        if told.down:
            self._answer(503, b"", {"Retry-After": "1"})
        elif body is None:
            self._answer(404, b"")
        else:
            self._give(path, body)

    def _give(self, path: str, body: bytes) -> None:
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        facts = {
            "ETag": tag,
            "Sealift-Poll-Seconds": str(self.server.told.poll_seconds),
        }
        if self.headers.get("If-None-Match") == tag:
            self._answer(304, b"", facts)
        elif found := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
            start, last = int(found[1]), min(int(found[2]), len(body) - 1)
            facts["Content-Range"] = f"bytes {start}-{last}/{len(body)}"
            self._answer(206, body[start : last + 1], facts)
        else:
            self._answer(200, body, facts)

    def do_POST(self) -> None:
        told = self.server.told
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if told.down:
            self._answer(503, b"")
            return
        if told.report_status != 200:
            problem = {"code": told.report_code, "title": "refused"}
            self._answer(told.report_status, json.dumps(problem).encode())
            return
        told.raw_reports.append(body)
        told.reports.append(json.loads(body))
        self._answer(200, b'{"poll_seconds": %d}' % told.poll_seconds)

    def _answer(self, status: int, body: bytes, facts: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in facts.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for at in range(0, len(body), 16384):
            if status == 206 and self.server.told.pace:
                time.sleep(self.server.told.pace)
            self.wfile.write(body[at : at + 16384])

    def log_message(self, *args: Any) -> None:
        pass


# ── the device ───────────────────────────────────────────────────────────────────────
class Device:
    """A provisioned directory and the programs that run on it."""

    def __init__(
        self, directory: Path, vendor: Vendor, server: DeviceServer, **more: str
    ) -> None:
        self.directory = directory
        self.config = directory / "agent.toml"
        self.state = directory / "state"
        self.boot = directory / "boot"
        self._processes: list[subprocess.Popen[str]] = []
        for name in ("", "keys", "anchors", "boot"):
            (directory / name).mkdir(mode=0o700, exist_ok=True)
        self._keys(server)
        for name in ("image", "director"):
            root = vendor.repository(name, DEVICE)["1.root.json"]
            private(directory / f"anchors/{name}.root.json", root)
        for slot in "ab":
            private(directory / f"slot-{slot}.img", b"")
            os.truncate(directory / f"slot-{slot}.img", SLOT_BYTES)
        open_store(str(self.boot)).write(Store())
        self.configure(server.url, **more)

    def _keys(self, server: DeviceServer) -> None:
        certificate, key = server.authority.issue(DEVICE)
        private(self.directory / "ca.pem", server.authority.pem)
        private(self.directory / "device.pem", certificate)
        private(self.directory / "keys/tls.pem", key)
        report = _key_pem(ed25519.Ed25519PrivateKey.generate())
        private(self.directory / "keys/report.pem", report)
        self.decryption_key = PrivateKey(X25519, new_private(X25519, os.urandom))
        private(self.directory / "keys/decrypt.pem", self.decryption_key.pem())

    def configure(self, url: str, **more: str) -> None:
        """Write agent.toml; ``more`` replaces settings by name."""
        health = (
            f"s=$(sed -n s/slot=//p {self.boot}/running); "
            f"! grep -q UNHEALTHY {self.directory}/slot-$s.img"
        )
        settings = {
            "poll_seconds": "1",
            "restart": '"exit"',
            "trial_seconds": "20",
            "command": json.dumps(["/bin/sh", "-c", health]),
            "runtime": '"runtime.json"',
            "factory": '""',
            **more,
        }
        text = f"""
[device]
id = "{DEVICE}"
report_key = "keys/report.pem"
decryption_key = "keys/decrypt.pem"
[server]
url = "{url}"
ca = "ca.pem"
certificate = "device.pem"
key = "keys/tls.pem"
poll_seconds = {settings["poll_seconds"]}
[trust]
image_root = "anchors/image.root.json"
director_root = "anchors/director.root.json"
[state]
directory = "state"
runtime = {settings["runtime"]}
[boot]
store = "boot"
restart = {settings["restart"]}
[[component]]
ecu_id = "{ECU}"
hardware_id = "{HARDWARE}"
slots = {{ a = "slot-a.img", b = "slot-b.img" }}
factory = {settings["factory"]}
trial_seconds = {settings["trial_seconds"]}
[[health]]
name = "marker"
command = {settings["command"]}
deadline = 10
"""
        private(self.config, text.encode())

    # ── running ──────────────────────────────────────────────────────────────────
    def run(
        self, *command: str, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """One command of the agent, to its end."""
        return subprocess.run(
            [*AGENT, *command, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def json(self, *command: str) -> Any:
        """What a command prints with ``--json``."""
        return json.loads(self.run(*command, "--json").stdout)

    def start(self, program: Sequence[str] | None = None) -> subprocess.Popen[str]:
        """The reference board with ``sealift-agent run`` on it."""
        agent = [*(program or AGENT), "run", "--config", str(self.config)]
        board = [sys.executable, "-m", "sealift.sim.board", "--dir", str(self.boot)]
        return self.popen([*board, "--watchdog", "30", "--revive", "--", *agent])

    def popen(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """A program that is stopped with the test; its words go to a log."""
        with (self.directory / "log").open("a") as log:
            process = subprocess.Popen(command, stderr=log, text=True)
        self._processes.append(process)
        return process

    @property
    def log(self) -> str:
        """What board and agent said so far."""
        return (self.directory / "log").read_text()

    def wait(self, what: str, times: int = 1, seconds: float = 40) -> None:
        """Until the log holds ``what`` so many times."""
        wait_for(lambda: self.log.count(what) >= times, f"{what}\n{self.log}", seconds)

    def agents(self) -> list[int]:
        """Process ids of the agent and its children, parents first."""
        return sorted(
            int(process.name)
            for process in Path("/proc").iterdir()
            if process.name.isdigit() and self._is_agent(process)
        )

    def _is_agent(self, process: Path) -> bool:
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return (
            b"sealift.agent" in words
            and b"sealift.sim.board" not in words
            and (str(self.config).encode() in words)
        )

    def close(self) -> None:
        """Stop whatever was started here, and nothing else."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
            process.wait()
        for pid in self.agents():  # of a board that was killed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # ── what is there ────────────────────────────────────────────────────────────
    @property
    def confirmed(self) -> Slot:
        """The slot the loader would start when nothing is on trial."""
        return open_store(str(self.boot)).read().default

    def slot(self, slot: Slot) -> bytes:
        """The bytes of a slot."""
        return (self.directory / f"slot-{slot}.img").read_bytes()


@dataclass
class World:
    """One vendor, one server, one device."""

    vendor: Vendor
    server: DeviceServer
    device: Device

    def publish(
        self, version: str, counter: int, content: bytes | None = None
    ) -> Release:
        """Release and order an image; healthy unless its bytes say UNHEALTHY."""
        release = make_release(version, counter, content=content)
        self.vendor.release(release)
        self.vendor.order(DEVICE, release.order(ECU))
        return release


@contextlib.contextmanager
def world(directory: Path, **settings: str) -> Iterator[World]:
    """A provisioned device that is ordered nothing yet."""
    vendor = Vendor(lambda: SystemClock().now().replace(microsecond=0))
    vendor.order(DEVICE)
    place = directory / "server"
    place.mkdir(mode=0o700)
    server = DeviceServer(lambda: vendor.served(DEVICE), Authority(), place)
    device = Device(directory / "device", vendor, server, **settings)
    try:
        yield World(vendor, server, device)
    finally:
        device.close()
        server.close()


def wait_for(
    condition: Callable[[], bool], what: str | Callable[[], str], seconds: float = 40
) -> None:
    """Until it holds; a failing test says what it waited for."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(what if isinstance(what, str) else what())
        time.sleep(0.05)
