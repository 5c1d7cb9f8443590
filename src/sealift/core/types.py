"""Values both ends share: what a release holds and what a device is ordered to run.

Frozen dataclasses without behaviour beyond their JSON form. How metadata is parsed is
in ``metadata``, how it is believed in ``trust`` and ``uptane``.
"""

from __future__ import annotations

from binascii import b2a_base64
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sealift.core.errors import MalformedError
from sealift.core.fields import base64, count, digest, member, text, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

SEGMENT_SIZE = 1 << 20
"""Bytes of one payload segment as writers make it (payload format, section 3)."""


NAME_LIMIT = 1024
"""Characters of the longest name; metadata admits none longer."""

HARDWARE_IDS_LIMIT = 256

VERITY_BLOCK = 4096
"""Bytes of a block of data, and of the hash tree, of a root that is verified."""

SEAL_ALGORITHM = "cobblestone-256"
"""C2SP chunked encryption with AES-256-GCM; another one would be another name."""

WRAP_MAX = 2048
"""Bytes of the longest wrap; X-Wing needs 1168."""


class Slot(StrEnum):
    """One of the two places a component can live."""

    A = "a"
    B = "b"

    @property
    def other(self) -> Slot:
        """The slot that is not this one."""
        return Slot.B if self is Slot.A else Slot.A


class BootKind(StrEnum):
    """What a loader starts, and how it is told to believe it."""

    UKI = "uki"
    """A unified kernel image: a signed PE file on an EFI system partition."""
    FIT = "fit"
    """A flattened image tree with a signed configuration, for U-Boot."""


@dataclass(frozen=True, slots=True)
class Bootable:
    """How an image boots verified: the file a loader starts, the root that file admits.

    The image is data of ``data_blocks`` blocks (``VERITY_BLOCK``), behind it the
    dm-verity superblock and hash tree over them, and at ``offset`` the boot file of
    ``length`` bytes, whose signed command line carries ``root_hash``, ``salt`` and the
    number of blocks.
    """

    kind: BootKind
    offset: int
    length: int
    sha256: bytes
    root_hash: bytes
    salt: bytes
    data_blocks: int

    def check_within(self, length: int) -> None:
        """Refuse facts that no image of ``length`` bytes can have.

        Raises:
            MalformedError: the boot file reaches into the data or out of the image.
        """
        if self.offset < (self.data_blocks + 1) * VERITY_BLOCK:
            raise MalformedError("the boot file begins before the hash tree does")
        if self.offset + self.length > length:
            raise MalformedError("the boot file ends behind the image")

    def to_json(self) -> dict[str, object]:
        """The facts as JSON values, digests in lower-case hex."""
        return {
            "v": 1,
            "kind": self.kind.value,
            "offset": self.offset,
            "length": self.length,
            "sha256": self.sha256.hex(),
            "root_hash": self.root_hash.hex(),
            "salt": self.salt.hex(),
            "data_blocks": self.data_blocks,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Bootable:
        """Read what :meth:`to_json` wrote; whether the bytes agree says nobody yet.

        Raises:
            FormatError: a member is missing, of a wrong type or out of range, or names
                a version or kind there is not.
        """
        count(found, "v", 1, 1)
        kind = text(found, "kind", 16)
        if kind not in set(BootKind):
            raise MalformedError("a boot file of a kind unknown here")
        return cls(
            kind=BootKind(kind),
            offset=count(found, "offset", 1),
            length=count(found, "length", 1),
            sha256=digest(found, "sha256", 32),
            root_hash=digest(found, "root_hash", 32),
            salt=digest(found, "salt", 32),
            data_blocks=count(found, "data_blocks", 1),
        )


@dataclass(frozen=True, slots=True)
class Artifact:
    """One image as the vendor's offline keys describe it (Image Targets entry).

    ``name`` is the TUF target path. ``length`` and ``sha256`` are those of the plain
    image, never of the container it travels in. ``segment_root`` is the RFC 9162 tree
    hash over the SHA-256 digests of its segments, ``segment_size`` bytes each.
    ``release_counter`` never goes down on a device once a release with it is confirmed.
    ``bootable`` is how it boots verified; ``None``: the vendor says nothing of that.
    """

    name: str
    length: int
    sha256: bytes
    sha512: bytes | None
    segment_size: int
    segment_root: bytes
    hardware_ids: tuple[str, ...]
    release_counter: int
    version: str
    bootable: Bootable | None = None

    def to_json(self) -> dict[str, object]:
        """The artifact as JSON values, digests in lower-case hex."""
        found: dict[str, object] = {
            "name": self.name,
            "length": self.length,
            "sha256": self.sha256.hex(),
            "sha512": self.sha512.hex() if self.sha512 is not None else None,
            "segment_size": self.segment_size,
            "segment_root": self.segment_root.hex(),
            "hardware_ids": list(self.hardware_ids),
            "release_counter": self.release_counter,
            "version": self.version,
        }
        if self.bootable is not None:
            found["boot"] = self.bootable.to_json()
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Artifact:
        """Read what :meth:`to_json` wrote.

        Raises:
            FormatError: a member is missing, of a wrong type or out of range.
        """
        bootable = None
        if found.get("boot") is not None:
            bootable = Bootable.from_json(member(found, "boot"))
        return cls(
            name=text(found, "name", NAME_LIMIT),
            length=count(found, "length"),
            sha256=digest(found, "sha256", 32),
            sha512=(
                None if found.get("sha512") is None else digest(found, "sha512", 64)
            ),
            segment_size=count(found, "segment_size"),
            segment_root=digest(found, "segment_root", 32),
            hardware_ids=texts(found, "hardware_ids", HARDWARE_IDS_LIMIT, NAME_LIMIT),
            release_counter=count(found, "release_counter"),
            version=text(found, "version", NAME_LIMIT),
            bootable=bootable,
        )


@dataclass(frozen=True, slots=True)
class Container:
    """A payload file that can become an artifact: where it lies and how it is bounded.

    Facts from Director metadata (online keys), so a hostile server may choose them;
    they bound the transfer and never vouch for the result. ``base_sha256`` is ``None``
    for a full container, else the digest of the image a delta starts from.
    """

    name: str
    length: int
    sha256: bytes
    head_length: int
    head_sha256: bytes
    base_length: int = 0
    base_sha256: bytes | None = None

    def to_json(self) -> dict[str, object]:
        """The container as JSON values; the base only for a delta."""
        found: dict[str, object] = {
            "name": self.name,
            "length": self.length,
            "sha256": self.sha256.hex(),
            "head_length": self.head_length,
            "head_sha256": self.head_sha256.hex(),
        }
        if self.base_sha256 is not None:
            found["base_length"] = self.base_length
            found["base_sha256"] = self.base_sha256.hex()
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Container:
        """Read what :meth:`to_json` wrote.

        Raises:
            FormatError: a member is missing, of a wrong type or out of range.
        """
        delta = "base_sha256" in found
        return cls(
            name=text(found, "name", NAME_LIMIT),
            length=count(found, "length"),
            sha256=digest(found, "sha256", 32),
            head_length=count(found, "head_length"),
            head_sha256=digest(found, "head_sha256", 32),
            base_length=count(found, "base_length") if delta else 0,
            base_sha256=digest(found, "base_sha256", 32) if delta else None,
        )


class PatchKind(StrEnum):
    """What a microcontroller's own loader can apply; see ``core.mcu``."""

    SEQUENTIAL = "detools-sequential-heatshrink"
    """Decoded while it comes, from one slot into the other."""
    IN_PLACE = "detools-in-place-heatshrink"
    """Decoded over the old image, which is gone afterwards: one slot is enough."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A ready patch for the last link to a microcontroller, and what decoding it takes.

    Facts from Director metadata (online keys): they bound what a gateway sends on and
    never vouch for the result. ``window`` and ``lookahead`` are heatshrink's, in bits.
    The last three are bytes and 0 unless the patch works in place: the flash it may
    use, the unit that is erased, and how far the old image is moved up first.
    """

    kind: PatchKind
    name: str
    length: int
    sha256: bytes
    base_length: int
    base_sha256: bytes
    window: int
    lookahead: int
    memory_size: int = 0
    segment_size: int = 0
    shift_size: int = 0

    def to_json(self) -> dict[str, object]:
        """The patch as JSON values; the sizes of the flash only if it is in place."""
        found: dict[str, object] = {
            "kind": self.kind.value,
            "name": self.name,
            "length": self.length,
            "sha256": self.sha256.hex(),
            "base_length": self.base_length,
            "base_sha256": self.base_sha256.hex(),
            "window": self.window,
            "lookahead": self.lookahead,
        }
        if self.kind is PatchKind.IN_PLACE:
            found["memory_size"] = self.memory_size
            found["segment_size"] = self.segment_size
            found["shift_size"] = self.shift_size
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Patch:
        """Read what :meth:`to_json` wrote; whether it makes sense says ``core.mcu``.

        Raises:
            FormatError: a member is missing, of a wrong type or out of range.
        """
        kind = text(found, "kind", 64)
        if kind not in set(PatchKind):
            raise MalformedError("a patch of a kind unknown here")
        in_place = kind == PatchKind.IN_PLACE
        return cls(
            kind=PatchKind(kind),
            name=text(found, "name", NAME_LIMIT),
            length=count(found, "length"),
            sha256=digest(found, "sha256", 32),
            base_length=count(found, "base_length"),
            base_sha256=digest(found, "base_sha256", 32),
            window=count(found, "window"),
            lookahead=count(found, "lookahead"),
            memory_size=count(found, "memory_size") if in_place else 0,
            segment_size=count(found, "segment_size") if in_place else 0,
            shift_size=count(found, "shift_size") if in_place else 0,
        )


@dataclass(frozen=True, slots=True)
class Wrap:
    """A content key only one device can open (HPKE, RFC 9180, base mode).

    ``kid`` names the recipient's key: the first 16 hex digits of SHA-256 over the KEM
    id (two bytes, big-endian) and the public key. ``data`` is ``enc ‖ ciphertext``.
    """

    kem: str
    kid: str
    data: bytes

    def to_json(self) -> dict[str, object]:
        """The wrap as JSON values."""
        data = b2a_base64(self.data, newline=False).decode("ascii")
        return {"v": 1, "kem": self.kem, "kid": self.kid, "data": data}

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Wrap:
        """Read what :meth:`to_json` wrote.

        Raises:
            FormatError: a member is missing, of a wrong type or out of range.
        """
        count(found, "v", 1, 1)
        return cls(
            kem=text(found, "kem", 32),
            kid=digest(found, "kid", 8).hex(),
            data=base64(found, "data", WRAP_MAX),
        )


@dataclass(frozen=True, slots=True)
class Seal:
    """How the containers of an order are encrypted, and the key of this device to them.

    One content key opens the full container and every delta to the same image. The
    length and digest of a sealed :class:`Container` are those of the ciphertext, the
    facts of its head those of the plaintext.
    """

    wrap: Wrap

    def to_json(self) -> dict[str, object]:
        """The seal as JSON values."""
        return {"v": 1, "alg": SEAL_ALGORITHM, "wrap": self.wrap.to_json()}

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Seal:
        """Read what :meth:`to_json` wrote.

        Raises:
            FormatError: a member is missing, of a wrong type or out of range, or names
                a version or algorithm there is not.
        """
        count(found, "v", 1, 1)
        if text(found, "alg", 32) != SEAL_ALGORITHM:
            raise MalformedError(
                "the payload is sealed by an algorithm unknown here",
                hint="update the agent first, or publish the image unsealed",
            )
        return cls(Wrap.from_json(member(found, "wrap")))


@dataclass(frozen=True, slots=True)
class Instruction:
    """One authorised install: the durable record everything after it leans on.

    Made only by ``core.uptane`` from verified metadata of both repositories.
    ``targets_sha256`` is the digest of the Director Targets file that ordered it and
    ``director_version`` its version. ``bytes_max`` caps the body bytes of the transfer.
    ``deployment`` is the server's own label, carried back in the report, never trusted.
    """

    ecu_id: str
    hardware_id: str
    artifact: Artifact
    full: Container
    delta: Container | None
    bytes_max: int | None
    director_version: int
    targets_sha256: bytes
    deployment: str | None = None
    sealed: Seal | None = None
    patch: Patch | None = None

    def to_json(self) -> dict[str, object]:
        """The instruction as JSON values, for the journal."""
        found: dict[str, object] = {
            "ecu_id": self.ecu_id,
            "hardware_id": self.hardware_id,
            "artifact": self.artifact.to_json(),
            "full": self.full.to_json(),
            "delta": self.delta.to_json() if self.delta is not None else None,
            "bytes_max": self.bytes_max,
            "director_version": self.director_version,
            "targets_sha256": self.targets_sha256.hex(),
            "deployment": self.deployment,
        }
        if self.sealed is not None:
            found["sealed"] = self.sealed.to_json()
        if self.patch is not None:
            found["mcu"] = self.patch.to_json()
        return found

    @classmethod
    def from_json(cls, found: Mapping[str, object]) -> Instruction:
        """Read what :meth:`to_json` wrote.

        Raises:
            FormatError: a member is missing, of a wrong type or out of range.
        """
        delta, limit, label, sealed, patch = (
            found.get(name)
            for name in ("delta", "bytes_max", "deployment", "sealed", "mcu")
        )
        return cls(
            ecu_id=text(found, "ecu_id", NAME_LIMIT),
            hardware_id=text(found, "hardware_id", NAME_LIMIT),
            artifact=Artifact.from_json(member(found, "artifact")),
            full=Container.from_json(member(found, "full")),
            delta=None
            if delta is None
            else Container.from_json(member(found, "delta")),
            bytes_max=None if limit is None else count(found, "bytes_max"),
            director_version=count(found, "director_version"),
            targets_sha256=digest(found, "targets_sha256", 32),
            deployment=None if label is None else text(found, "deployment", NAME_LIMIT),
            sealed=None if sealed is None else Seal.from_json(member(found, "sealed")),
            patch=None if patch is None else Patch.from_json(member(found, "mcu")),
        )
