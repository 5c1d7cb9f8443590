"""A server's insides with a vendor and devices around them, all real, all in memory.

The vendor's keys are throw-away Ed25519 keys; clock and chance are set by the test.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from securesystemslib.signer import Signer
from tuf.api.metadata import Targets

from sealift.core.audit import Actor, ActorType
from sealift.core.types import Artifact, Container
from sealift.repo import image, online, roots
from sealift.repo.entries import Listed
from sealift.repo.repository import read, sign
from sealift.repo.signers import signer_for
from sealift.server.adapters import ca, content
from sealift.server.adapters.files import FileBlobs
from sealift.server.adapters.sqlite import SqliteStore
from sealift.server.ports import Means, PayloadPolicy, Release
from sealift.server.services import (
    deployments,
    identity,
    metadata,
    releases,
)

START = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
OPERATOR = Actor(ActorType.TOKEN, "operator")
HARDWARE = "demo-board-r1"


@dataclass
class SetClock:
    """A clock that only a test moves."""

    at: datetime = START

    def now(self) -> datetime:
        return self.at

    def forward(self, **span: float) -> None:
        self.at += timedelta(**span)


@dataclass
class Sequence:
    """Chance that repeats from run to run."""

    count: Iterable[int] = field(default_factory=itertools.count)

    def token_bytes(self, count: int) -> bytes:
        number = next(iter(self.count))
        return hashlib.shake_128(str(number).encode()).digest(count)


@dataclass
class Vendor:
    """Offline keys, three per role, two of which must sign."""

    online: online.OnlineSigners
    now: datetime = START
    signers: dict[str, list[Signer]] = field(default_factory=dict)
    targets: Targets | None = None

    def __post_init__(self) -> None:
        for role in ("image root", "image targets", "director root"):
            self.signers[role] = [
                signer_for(ed25519.Ed25519PrivateKey.generate(), f"{role} {n}")
                for n in range(3)
            ]

    def root(self, repository: str, version: int = 1, **change: Any) -> bytes:
        """A root of that repository, signed by two."""
        public = self.online.public()[repository]
        shape = {role: roots.RoleKeys((key,), 1) for role, key in public.items()}
        shape["root"] = self._offline(f"{repository} root")
        if repository == "image":
            shape["targets"] = self._offline("image targets")
        authored = roots.author(
            change.get("roles", shape),
            version=version,
            now=change.get("now", self.now),
            lifetime=change.get("lifetime", timedelta(days=365)),
        )
        return sign(authored, change.get("by", self.signers[f"{repository} root"][:2]))

    def listing(self, *added: Listed, remove: Iterable[str] = ()) -> bytes:
        """The next Image Targets, signed by two."""
        self.targets = image.propose_targets(
            self.targets, add=added, remove=remove, now=self.now
        )
        raw = sign(self.targets, self.signers["image targets"][:2])
        self.targets = read(raw, Targets).signed
        return raw

    def _offline(self, role: str) -> roots.RoleKeys:
        keys = tuple(signer.public_key for signer in self.signers[role])
        return roots.RoleKeys(keys, 2)


@dataclass
class TestDevice:
    """A device's keys and what it is called."""

    __test__ = False

    id: str
    ecus: Mapping[str, str]
    tls_key: Any = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    report_key: Any = field(default_factory=ed25519.Ed25519PrivateKey.generate)

    @property
    def csr(self) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.id)])
        request = x509.CertificateSigningRequestBuilder().subject_name(name)
        signed = request.sign(self.tls_key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    @property
    def public(self) -> dict[str, Any]:
        raw = self.report_key.public_key().public_bytes_raw()
        return {
            "keytype": "ed25519",
            "scheme": "ed25519",
            "keyval": {"public": raw.hex()},
        }

    def wish(self) -> identity.NewDevice:
        ecus = tuple(identity.NewEcu(e, h) for e, h in self.ecus.items())
        return identity.NewDevice(self.id, self.csr, self.public, ecus)


def artifact(version: str, counter: int = 1, hardware: str = HARDWARE) -> Artifact:
    """An image of the demo board as the vendor would list it."""
    content = f"image {version}".encode()
    return Artifact(
        name=f"demo-board/rootfs-{version}.img",
        length=len(content),
        sha256=hashlib.sha256(content).digest(),
        sha512=None,
        segment_size=1 << 20,
        segment_root=hashlib.sha256(b"\0" + hashlib.sha256(content).digest()).digest(),
        hardware_ids=(hardware,),
        release_counter=counter,
        version=version,
    )


def container(version: str) -> tuple[Container, bytes]:
    """A container for that image: its facts and its bytes."""
    body = f"container {version} ".encode() * 100
    head = body[:32]
    facts = Container(
        name=f"rootfs-{version}.full",
        length=len(body),
        sha256=hashlib.sha256(body).digest(),
        head_length=len(head),
        head_sha256=hashlib.sha256(head).digest(),
    )
    return facts, body


@dataclass
class World:
    """Everything a use case needs, and what it left behind."""

    means: Means
    vendor: Vendor
    clock: SetClock

    def publish_roots(self) -> None:
        for repository in ("image", "director"):
            metadata.publish_root(
                self.means, OPERATOR, repository, self.vendor.root(repository)
            )

    def release(self, version: str, sequence: int, counter: int = 1) -> Release:
        """A published release of the demo board, with its container's facts."""
        wanted = artifact(version, counter)
        facts, _ = container(version)
        raw = self.vendor.listing(Listed(wanted, sequence))
        metadata.publish_targets(self.means, OPERATOR, raw)
        releases.add_container(
            self.means, OPERATOR, facts.name, facts.length, facts.sha256.hex()
        )
        return releases.publish_release(
            self.means, OPERATOR, [releases.NewArtifact(wanted.name, facts)]
        )

    def device(
        self, name: str = "dev-0001", hardware: str = HARDWARE, **more: Any
    ) -> TestDevice:
        """An enrolled device with one component; ``more`` of what it is enrolled with."""
        made = TestDevice(name, {f"{name}-main": hardware})
        identity.enrol(self.means, OPERATOR, replace(made.wish(), **more))
        return made

    def deploy(self, release: Release, *devices: str) -> str:
        """A deployment to those devices, or to all; its id."""
        names = list(devices) or None
        wanted = deployments.NewDeployment(release.id, names)
        view = deployments.create(self.means, OPERATOR, wanted)
        return view.deployment.id

    def leaves(self) -> list[str]:
        """The kinds of all events so far."""
        return [leaf.kind for leaf in self.means.store.reader.audit.page(0, 1000)]


PLAIN = PayloadPolicy()


def make_world(directory: Path, payload: PayloadPolicy = PLAIN) -> World:
    """A server without a published root; state on disk below ``directory``."""
    directory.mkdir(exist_ok=True)
    (directory / "keys").mkdir()
    (directory / "blobs").mkdir()
    online.make(directory / "keys")
    signers = online.load(directory / "keys")
    key = ca.new_key()
    clock = SetClock()
    means = Means(
        store=SqliteStore(directory / "sealift.db"),
        blobs=FileBlobs(directory / "blobs"),
        authority=ca.DeviceAuthority(ca.make_authority("test", key, START), key),
        clock=clock,
        chance=Sequence(),
        director=signers.director,
        image=signers.image,
        content=content.ContentKeyFile(content.make_pem(Sequence().token_bytes)),
        payload=payload,
    )
    return World(means, Vendor(signers), clock)
