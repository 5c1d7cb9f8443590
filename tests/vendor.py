"""A vendor for tests: keys in memory, both Roots, artifacts. Real parts, small."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import Signer
from tuf.api.metadata import Root

from sealift.core.types import Artifact, Container
from sealift.repo import keyfile
from sealift.repo.director import DirectorSigners
from sealift.repo.entries import Listed, Order
from sealift.repo.image import ImageSigners, propose_targets
from sealift.repo.online import ONLINE_ROLES, OnlineKeys
from sealift.repo.repository import DictStore, sign
from sealift.repo.roots import RoleKeys, author, publish_root
from sealift.repo.signers import signer_for

NOW = datetime(2030, 6, 1, 12, 0, 0, tzinfo=UTC)


def signer(label: str, *, demo: bool = False) -> Signer:
    """An ed25519 signer made from its label, and named after it."""
    seed = sha256(label.encode()).digest()
    private = Ed25519PrivateKey.from_private_bytes(seed)
    return signer_for(private, label, demo=demo)


def other_signer(algorithm: str, name: str) -> Signer:
    """A fresh signer of another algorithm."""
    return signer_for(keyfile.generate(algorithm), name)


def people(repository: str, role: str, count: int = 3) -> list[Signer]:
    """The signers of one offline role."""
    return [signer(f"{repository}-{role}-{i}") for i in range(1, count + 1)]


def rule(signers: list[Signer], threshold: int) -> RoleKeys:
    """A role over these signers."""
    return RoleKeys(tuple(one.public_key for one in signers), threshold)


def online(repository: str, role: str) -> Signer:
    """The online signer of a role."""
    return signer(f"{repository}-{role}-online")


def online_keys() -> OnlineKeys:
    """The public keys of a server."""
    return {
        repository: {
            role: online(repository, role).public_key  # type: ignore[misc]
            for role in roles
        }
        for repository, roles in ONLINE_ROLES.items()
    }


def image_roles(**changes: RoleKeys) -> dict[str, RoleKeys]:
    """The roles of a usual Image Root."""
    roles = {
        "root": rule(people("image", "root"), 2),
        "targets": rule(people("image", "targets"), 2),
        "snapshot": rule([online("image", "snapshot")], 1),
        "timestamp": rule([online("image", "timestamp")], 1),
    }
    return {**roles, **changes}


def image_root(**options: Any) -> Root:
    """A usual Image Root, unsigned; ``roles`` as :func:`image_roles` makes them."""
    roles = options.pop("roles", None) or image_roles()
    return author(roles, **{"now": NOW, **options})


def director_root() -> Root:
    """A usual Director Root, unsigned."""
    roles = {
        role: rule([online("director", role)], 1)
        for role in ("targets", "snapshot", "timestamp")
    }
    roles["root"] = rule(people("director", "root"), 2)
    return author(roles, now=NOW)


def director_signers() -> DirectorSigners:
    """The online signers of the Director."""
    return DirectorSigners(
        *(online("director", role) for role in ("targets", "snapshot", "timestamp"))
    )


def image_signers() -> ImageSigners:
    """The online signers of the Image repository."""
    return ImageSigners(online("image", "snapshot"), online("image", "timestamp"))


def artifact(version: str = "1.0.0", counter: int = 1, **changes: Any) -> Artifact:
    """An artifact of product ``board``, component ``rootfs``."""
    content = sha256(f"{version} {counter}".encode()).digest()
    facts: dict[str, Any] = {
        "name": f"board/rootfs-{version}.img",
        "length": 3 << 20,
        "sha256": content,
        "sha512": None,
        "segment_size": 1 << 20,
        "segment_root": sha256(content).digest(),
        "hardware_ids": ("board-r1",),
        "release_counter": counter,
        "version": version,
    }
    return Artifact(**{**facts, **changes})


def container(version: str = "1.0.0") -> Container:
    """A full container for :func:`artifact`."""
    digest = sha256(f"container {version}".encode()).digest()
    return Container(f"rootfs-{version}.full", 900_000, digest, 300, digest)


def order(ecu_id: str = "dev-1-main", version: str = "1.0.0", **changes: Any) -> Order:
    """An order of that artifact for one ECU."""
    facts = {
        "ecu_id": ecu_id,
        "hardware_id": "board-r1",
        "artifact": artifact(version),
        "full": container(version),
    }
    return Order(**{**facts, **changes})


@dataclass
class Vendor:
    """An Image repository with its first Root published, and its offline signers."""

    store: DictStore = field(default_factory=DictStore)

    def __post_init__(self) -> None:
        self.root = image_root()
        publish_root(self.store, sign(self.root, people("image", "root")))

    def targets(self, *add: Listed, current: Any = None, **options: Any) -> bytes:
        """The next Targets, signed by two people."""
        proposed = propose_targets(current, add=add, **{"now": NOW, **options})
        return sign(proposed, people("image", "targets")[:2])
