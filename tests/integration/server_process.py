"""A real server in a process of its own, a vendor and devices that talk to it by TLS."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.client import HTTPResponse, HTTPSConnection
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from sealift.client.api import Operator, Profile, Publication, connect
from sealift.core.types import Container
from sealift.repo import online
from sealift.repo.entries import Listed
from sealift.server.adapters import ca
from sealift.server.adapters.sqlite import SqliteStore
from sealift.server.app import SystemClock
from sealift.server.ports import Certificate
from tests.unit.server.world import TestDevice, Vendor, artifact, container

PROGRAM = [
    sys.executable,
    "-c",
    "from sealift.cli.main import main; raise SystemExit(main())",
]


def sealift(
    *arguments: str | Path, before: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end, ``before`` being what runs the program."""
    command = [*before, *PROGRAM, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False
    )


@dataclass
class RunningServer:
    """One server directory, and the process that serves it, if any."""

    directory: Path
    token: str
    vendor: Vendor
    process: subprocess.Popen[str] | None = None
    urls: Mapping[str, str] = field(default_factory=dict)

    @property
    def ca(self) -> Path:
        return self.directory / "public" / "tls-ca.pem"

    def start(self) -> None:
        """Start, and wait until both listeners are up."""
        self.process = subprocess.Popen(
            [
                *PROGRAM,
                *("server", "run", str(self.directory), "--json"),
                *("--device-listen", "127.0.0.1:0", "--operator-listen", "127.0.0.1:0"),
                *("--enrol-listen", "127.0.0.1:0"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        text = ""
        while "}" not in text:
            line = self.process.stdout.readline()
            assert line, self.stop(signal.SIGKILL)
            text += line
        self.urls = json.loads(text)

    def stop(self, how: int = signal.SIGTERM) -> tuple[int, str]:
        """Stop; the exit status, and what was said on standard error."""
        assert self.process is not None
        self.process.send_signal(how)
        _, said = self.process.communicate(timeout=30)
        status, self.process = self.process.returncode, None
        return status, said

    def port(self, listener: str) -> int:
        return int(self.urls[listener].rpartition(":")[2])

    @contextlib.contextmanager
    def operator(self) -> Iterator[Operator]:
        profile = Profile(self.urls["operator"], self.ca, self.token)
        with connect(profile) as session:
            yield Operator(replace(session, pause=lambda _: None))

    def publish_roots(self) -> None:
        with self.operator() as operator:
            for repository in ("image", "director"):
                operator.publish_root(repository, self.vendor.root(repository))

    def release(self, version: str, sequence: int, directory: Path) -> Container:
        """Publish a release of the demo board; its container."""
        facts, body = container(version)
        path = directory / facts.name
        path.write_bytes(body)
        wanted = artifact(version)
        with self.operator() as operator:
            operator.upload_container(facts, path)
            operator.publish_targets(self.vendor.listing(Listed(wanted, sequence)))
            operator.publish_release({wanted.name: Publication(facts)})
        return facts

    def reissue(self, name: str, csr: bytes, days: int) -> str:
        """A certificate this server's authority gave so many days ago, in its books."""
        authority = ca.DeviceAuthority(
            ca.read_certificate((self.directory / "public/device-ca.pem").read_bytes()),
            ca.read_key((self.directory / "keys/device-ca.pem").read_bytes()),
        )
        then = SystemClock().now() - timedelta(days=days)
        issued = authority.issue(name, csr, then)
        store = SqliteStore(self.directory / "sealift.db")
        with store.begin() as session:
            session.devices.save_certificate(
                Certificate(
                    issued.sha256,
                    name,
                    issued.serial,
                    issued.not_before,
                    issued.not_after,
                    None,
                    issued.pem,
                    issued.key_sha256,
                )
            )
        store.close()
        return issued.pem

    def device(self, directory: Path, name: str) -> Caller:
        """Enrol a device; the way it talks to us."""
        device = TestDevice(name, {f"{name}-main": "demo-board-r1"})
        with self.operator() as operator:
            enrolled = operator.enrol(
                name,
                csr=device.csr.decode(),
                report_key=device.public,
                ecus=device.ecus,
            )
        key = directory / f"{name}.key"
        key.write_bytes(
            device.tls_key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        certificate = directory / f"{name}.pem"
        certificate.write_text(enrolled["certificate"])
        return Caller(self, device, certificate, key)


@dataclass
class Caller:
    """A device's side of the wire."""

    server: RunningServer
    device: TestDevice
    certificate: Path | None
    key: Path | None

    def context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.server.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def connection(self, context: ssl.SSLContext | None = None) -> HTTPSConnection:
        return HTTPSConnection(
            "localhost",
            self.server.port("device"),
            context=context or self.context(),
            timeout=20,
        )

    def ask(
        self,
        path: str,
        method: str = "GET",
        body: bytes | None = None,
        connection: HTTPSConnection | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[HTTPResponse, bytes]:
        """One request; the answer and its body."""
        used = connection or self.connection()
        used.request(method, path, body=body, headers=dict(headers or {}))
        answer = used.getresponse()
        found = answer.read()
        if connection is None:
            used.close()
        return answer, found


def code_of(body: bytes) -> str:
    """The code of a problem document."""
    found = json.loads(body)["code"]
    assert isinstance(found, str)
    return found


def made(directory: Path) -> RunningServer:
    """A fresh server directory, made by the command."""
    done = sealift("server", "init", directory, "--json")
    assert done.returncode == 0, done.stderr
    token = json.loads(done.stdout)["operator_token"]
    return RunningServer(
        directory,
        token,
        Vendor(online.load(directory / "keys"), now=SystemClock().now()),
    )


def wait_for(path: Path, seconds: float = 20) -> None:
    """Until a file is there."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.01)


def without_roots_power() -> list[str]:
    """What runs a program so that modes of files hold for root as well."""
    if os.geteuid() != 0:
        return []
    drop = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}"]
