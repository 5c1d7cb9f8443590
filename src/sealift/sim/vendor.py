"""A vendor in memory: two repositories, a release line, and keys that can be stolen.

Everything honest is authored by ``sealift.repo``, as the desk and the server do it;
suppliers, which the publisher does not offer yet, are written here with the same
signers. Keys come from a seed, so a run can be repeated to the last byte. Nothing is
kept secret: an attacker takes what he needs out of ``keys`` and signs with ``forge``.

``served`` is all a device can fetch, as paths below the base address; whatever a device
was ever served is in ``said``, every image in ``contents``, which is how a simulation
tells the honest from the forged.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    MetaFile,
    Snapshot,
    Targets,
    Timestamp,
)

from sealift.core.metadata import encoded
from sealift.core.packer import Packed, pack_full
from sealift.core.types import Artifact, Bootable, Container
from sealift.repo import director, image, roots
from sealift.repo.director import DirectorSigners, Issued, Order
from sealift.repo.entries import Listed, Sealing
from sealift.repo.image import ImageSigners
from sealift.repo.repository import (
    SPEC_VERSION,
    DictStore,
    newest,
    read,
    sign,
    span,
    utc_text,
)
from sealift.repo.roots import RoleKeys
from sealift.repo.signers import signer_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from securesystemslib.signer import Key, Signer

    from sealift.core.hpke import Recipient

__all__ = [
    "HARDWARE",
    "PRODUCT",
    "Keys",
    "Release",
    "Shape",
    "Supplier",
    "Vendor",
    "make_release",
    "served_at",
]

PRODUCT = "sim-board"
HARDWARE = "sim-board-r1"
SEGMENT_BYTES = 1 << 16
PEOPLE = 3
THRESHOLD = 2
OFFLINE = (("image", "root"), ("image", "targets"), ("director", "root"))
ONLINE = (
    ("image", "snapshot"),
    ("image", "timestamp"),
    ("director", "targets"),
    ("director", "snapshot"),
    ("director", "timestamp"),
)


# ── keys ─────────────────────────────────────────────────────────────────────────────
class Keys:
    """Signers by name, each made from the seed when it is first asked for."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._signers: dict[str, Signer] = {}

    def __getitem__(self, name: str) -> Signer:
        """The signer of that name; names ending in ``+pq`` are ML-DSA-65."""
        if name not in self._signers:
            secret = hashlib.sha256(f"{self._seed}/{name}".encode()).digest()
            made: mldsa.MLDSA65PrivateKey | Ed25519PrivateKey
            if name.endswith("+pq"):
                made = mldsa.MLDSA65PrivateKey.from_seed_bytes(secret)
            else:
                made = Ed25519PrivateKey.from_private_bytes(secret)
            self._signers[name] = signer_for(made, name)
        return self._signers[name]

    def public(self, name: str) -> Key:
        """The public half."""
        return self[name].public_key

    def all(self, names: Iterable[str]) -> list[Signer]:
        """Several signers."""
        return [self[name] for name in names]


@dataclass(frozen=True, slots=True)
class Supplier:
    """A delegated role of the Image repository with one key of its own."""

    name: str
    patterns: tuple[str, ...]
    hardware_ids: tuple[str, ...] | None = None
    terminating: bool = False


# ── releases ─────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Release:
    """One artifact, its bytes, and the container they travel in.

    With ``content_key`` the container is a sealed file (``sim.shipping``).
    """

    artifact: Artifact
    container: Container
    content: bytes
    packed: bytes
    content_key: bytes | None = None

    @property
    def path(self) -> str:
        """Where the container is served."""
        return served_at(self.container)

    def order(
        self,
        ecu_id: str,
        hardware_id: str = HARDWARE,
        *,
        recipient: Recipient | None = None,
    ) -> Order:
        """The Director's wish that an ECU runs it; sealed, for the ``recipient``."""
        sealing = None
        if self.content_key is not None and recipient is not None:
            key = self.content_key
            draw = hashlib.shake_256(b"ephemeral" + key + recipient.public).digest
            sealing = Sealing(recipient, lambda: key, draw)
        return Order(
            ecu_id, hardware_id, self.artifact, self.container, sealing=sealing
        )


def served_at(container: Container) -> str:
    """Where a container is served, below the base address."""
    return f"director/targets/{container.sha256.hex()}.{container.name}"


def make_release(
    version: str,
    counter: int,
    *,
    name: str | None = None,
    hardware_ids: Sequence[str] = (HARDWARE,),
    content: bytes | None = None,
    bootable: Bootable | None = None,
) -> Release:
    """A release of a few segments: one stored, one all zero, one short and packed."""
    if content is None:
        content = _content(f"{PRODUCT} {version} {counter}")
    packed, container = _packed(content)
    artifact = packed.artifact(
        name or f"{PRODUCT}/main-{version}.img",
        hardware_ids=tuple(hardware_ids),
        release_counter=counter,
        version=version,
        bootable=bootable,
    )
    name = f"{PRODUCT}-main-{version}.full"
    return Release(artifact, packed.container(name), content, container)


@lru_cache(maxsize=64)
def _packed(content: bytes) -> tuple[Packed, bytes]:
    """The container of an image; most scenes of a run have the same releases."""
    out = io.BytesIO()
    packed = pack_full(
        lambda offset, length: content[offset : offset + length],
        len(content),
        spool=io.BytesIO(),
        out=out,
        segment_size=SEGMENT_BYTES,
        preset=0,
    )
    return packed, out.getvalue()


def _content(text: str) -> bytes:
    dense = hashlib.shake_256(text.encode()).digest(SEGMENT_BYTES)
    return dense + bytes(SEGMENT_BYTES) + (text.encode() * 2000)[: SEGMENT_BYTES // 2]


# ── the vendor ───────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Shape:
    """What kind of vendor it is."""

    hybrid: bool = False
    """Offline roles have an ML-DSA-65 key beside each ed25519 key."""
    suppliers: tuple[Supplier, ...] = ()
    seed: str = "vendor"
    sealed: bool = False
    """Releases travel encrypted."""


@dataclass
class Vendor:
    """Both repositories of one vendor. ``now`` is its clock, which it may believe."""

    now: Callable[[], datetime]
    shape: Shape = field(default_factory=Shape)

    def __post_init__(self) -> None:
        self.keys = Keys(self.shape.seed)
        self.stores = {"director": DictStore(), "image": DictStore()}
        self.issued: dict[str, Issued] = {}
        self.orders: dict[str, tuple[Order, ...]] = {}
        self.containers: dict[str, bytes] = {}
        self.said: set[bytes] = set()
        self.contents: set[bytes] = set()
        self.signing = {
            (repository, role): self.key_names(repository, role)
            for repository, role in (*OFFLINE, *ONLINE)
        }
        self._supplier_keys = {
            s.name: f"supplier-{s.name}" for s in self.shape.suppliers
        }
        self.supplied: dict[str, dict[str, Listed]] = {
            supplier.name: {} for supplier in self.shape.suppliers
        }
        for repository in self.stores:
            self._write_root(repository, self.root(repository))
        self._sequence = 0
        self.publish_targets([])

    # ── who signs what ───────────────────────────────────────────────────────────────
    def key_names(self, repository: str, role: str, generation: int = 1) -> list[str]:
        """What the keys of a role are called; ``generation`` counts rotations."""
        mark = "" if generation == 1 else f"-g{generation}"
        if (repository, role) in ONLINE:
            return [f"{repository}-{role}{mark}"]
        people = [f"{repository}-{role}-{n}{mark}" for n in range(1, PEOPLE + 1)]
        return people + [f"{name}+pq" for name in people if self.shape.hybrid]

    def signers(self, repository: str, role: str) -> list[Signer]:
        """As many signers of a role as its threshold asks for."""
        names = self.signing[repository, role]
        if (repository, role) in ONLINE:
            return self.keys.all(names)
        classical = [name for name in names if not name.endswith("+pq")][:THRESHOLD]
        partners = [f"{name}+pq" for name in classical if self.shape.hybrid]
        return self.keys.all(classical + partners)

    def rule(self, repository: str, role: str) -> RoleKeys:
        """The keys and the threshold Root shall name for a role."""
        keys = tuple(map(self.keys.public, self.signing[repository, role]))
        if (repository, role) in ONLINE:
            return RoleKeys(keys, 1)
        if self.shape.hybrid:
            return RoleKeys.hybrid(keys, THRESHOLD)
        return RoleKeys(keys, THRESHOLD)

    def supplier_key(self, supplier: str) -> str:
        """The name of a supplier's key."""
        return self._supplier_keys[supplier]

    def replace_supplier_key(self, supplier: str) -> None:
        """Delegate to another key of the supplier from now on."""
        self._supplier_keys[supplier] += "-new"
        self.publish_targets([])

    # ── Roots ────────────────────────────────────────────────────────────────────────
    def root(
        self,
        repository: str,
        version: int = 1,
        *,
        lifetime: timedelta = roots.LIFETIME,
        **rules: RoleKeys,
    ) -> bytes:
        """A Root with the present keys, and ``rules`` in place of some of them."""
        named = {role: self.rule(repository, role) for role in roots.ROLES}
        made = roots.author(
            {**named, **rules}, version=version, now=self.now(), lifetime=lifetime
        )
        return sign(made, self.signers(repository, "root"))

    def rotate(
        self, repository: str, *replaced: str, lifetime: timedelta = roots.LIFETIME
    ) -> bytes:
        """Root N+1 with new keys for the named roles, signed by old and new; served."""
        version = newest(self.stores[repository], "root") + 1
        old = self.signers(repository, "root")
        for role in replaced:
            names = self.key_names(repository, role, generation=version)
            self.signing[repository, role] = names
        named = {role: self.rule(repository, role) for role in roots.ROLES}
        made = roots.author(named, version=version, now=self.now(), lifetime=lifetime)
        new = [s for s in self.signers(repository, "root") if s not in old]
        raw = sign(made, [*old, *new])
        self._write_root(repository, raw)
        self.refresh(anew=True)
        return raw

    def _write_root(self, repository: str, raw: bytes) -> None:
        roots.publish_root(self.stores[repository], raw)
        self.said.add(raw)

    # ── releases and orders ──────────────────────────────────────────────────────────
    def release(self, made: Release, supplier: str | None = None) -> Release:
        """List a release in the Image repository, by the vendor or a supplier."""
        self._sequence += 1
        sealed = made.content_key is not None
        listed = Listed(made.artifact, self._sequence, sealed=sealed)
        self.containers[made.path] = made.packed
        self.contents.add(made.content)
        if supplier is None:
            self.publish_targets([listed])
        else:
            self.supplied[supplier][made.artifact.name] = listed
            self.publish_targets([])
        return made

    def order(self, device_id: str, *orders: Order) -> Issued:
        """Order a device to run these, and nothing else."""
        self.orders[device_id] = orders
        return self._issue(device_id)

    def refresh(self, *, anew: bool = False) -> None:
        """Sign online roles again where they grow old; all of them if ``anew``."""
        self._publish_online(anew=anew)
        for device_id in self.issued:
            if anew:
                made = self.issued[device_id]
                past = made.timestamp_renew_at - timedelta(days=400)
                self.issued[device_id] = replace(made, content_renew_at=past)
            self._issue(device_id)

    def _issue(self, device_id: str) -> Issued:
        made = director.issue(
            device_id,
            self.orders.get(device_id, ()),
            self.issued.get(device_id),
            signers=DirectorSigners(
                *(
                    self.signers("director", role)[0]
                    for role in ("targets", "snapshot", "timestamp")
                )
            ),
            now=self.now(),
        )
        self.issued[device_id] = made
        self.said |= {made.targets, made.snapshot, made.timestamp}
        return made

    # ── the Image repository ─────────────────────────────────────────────────────────
    def publish_targets(
        self, add: Iterable[Listed], *, lifetime: timedelta = timedelta(days=180)
    ) -> None:
        """The next Image Targets, with releases added, signed by enough people."""
        store = self.stores["image"]
        version = newest(store, "targets")
        raw = store.read(f"{version}.targets.json") if version else None
        known = read(raw, Targets).signed if raw else None
        made = image.propose_targets(known, add=add, now=self.now(), lifetime=lifetime)
        signers = self.signers("image", "targets")
        if not self.shape.suppliers:
            image.publish(
                store,
                sign(made, signers),
                signers=self._image_signers(),
                now=self.now(),
            )
            self.said |= set(store.files.values())
            return
        made.delegations = self._delegations()
        store.write(f"{made.version}.targets.json", sign(made, signers))
        for supplier in self.shape.suppliers:
            self._write_supplier(supplier)
        self._publish_online(anew=True)

    def _publish_online(self, *, anew: bool) -> None:
        store = self.stores["image"]
        if not self.shape.suppliers and not anew:
            image.refresh(store, signers=self._image_signers(), now=self.now())
        else:
            self._sign_image_online()
        self.said |= set(store.files.values())

    def _image_signers(self) -> ImageSigners:
        return ImageSigners(
            self.signers("image", "snapshot")[0], self.signers("image", "timestamp")[0]
        )

    def _sign_image_online(self) -> None:
        """Snapshot over every Targets file there is, and Timestamp over it."""
        store = self.stores["image"]
        meta = {}
        for role in ["targets", *(supplier.name for supplier in self.shape.suppliers)]:
            version = newest(store, encoded(role))
            raw = store.files[f"{version}.{encoded(role)}.json"]
            meta[f"{role}.json"] = MetaFile.from_data(version, raw, ["sha256"])
        version = newest(store, "snapshot") + 1
        start, end = span(self.now(), timedelta(days=7))
        fields = {"issued": utc_text(start)}
        snapshot = sign(
            Snapshot(version, SPEC_VERSION, end, meta, fields),
            self.signers("image", "snapshot"),
        )
        store.write(f"{version}.snapshot.json", snapshot)
        known = store.read("timestamp.json")
        before = read(known, Timestamp).signed.version if known else 0
        _, end = span(self.now(), timedelta(days=1))
        parent = MetaFile.from_data(version, snapshot, ["sha256"])
        made = Timestamp(before + 1, SPEC_VERSION, end, parent, fields)
        signers = self.signers("image", "timestamp")
        store.write("timestamp.json", sign(made, signers))

    def _delegations(self) -> Delegations:
        suppliers = self.shape.suppliers
        named = [self.keys.public(self.supplier_key(s.name)) for s in suppliers]
        keys = {key.keyid: key for key in named}
        roles = {s.name: self._delegated(s) for s in suppliers}
        return Delegations(keys, roles)

    def _delegated(self, supplier: Supplier) -> DelegatedRole:
        fields = {}
        if supplier.hardware_ids is not None:
            fields["hardware_ids"] = list(supplier.hardware_ids)
        return DelegatedRole(
            supplier.name,
            [self.keys.public(self.supplier_key(supplier.name)).keyid],
            1,
            supplier.terminating,
            list(supplier.patterns),
            unrecognized_fields=fields,
        )

    def _write_supplier(self, supplier: Supplier) -> None:
        store, role = self.stores["image"], encoded(supplier.name)
        made = image.propose_targets(
            None, add=self.supplied[supplier.name].values(), now=self.now()
        )
        made.version = newest(store, role) + 1
        raw = sign(made, [self.keys[self.supplier_key(supplier.name)]])
        store.write(f"{made.version}.{role}.json", raw)

    # ── what is served ───────────────────────────────────────────────────────────────
    def served(self, device_id: str) -> Mapping[str, bytes]:
        """Everything a device may fetch, by path below the base address."""
        found = dict(self.containers)
        for repository, store in self.stores.items():
            for name, raw in store.files.items():
                found[f"{repository}/metadata/{name}"] = raw
        for name, raw in self.repository("director", device_id).items():
            found[f"director/metadata/{name}"] = raw
        return found

    def repository(self, name: str, device_id: str) -> dict[str, bytes]:
        """The metadata of one repository as a device sees it, by file name."""
        found = dict(self.stores[name].files)
        made = self.issued.get(device_id)
        if name == "director" and made is not None:
            found["timestamp.json"] = made.timestamp
            found[f"{made.versions.snapshot}.snapshot.json"] = made.snapshot
            found[f"{made.versions.targets}.targets.json"] = made.targets
        return found
