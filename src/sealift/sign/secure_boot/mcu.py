"""``secure-boot mcu``: an image MCUboot starts, signed.

Magic, header, the program, protected records, records: ``imgtool`` writes it and reads
it back with the public half, without which it would accept any signer (device-D33). The
image's digest is recomputed here, from the bytes.

A key on a token signs what ``imgtool`` would have signed, and ``imgtool`` puts that
signature in.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
)

from sealift.core.errors import (
    MalformedError,
    RefusedError,
)
from sealift.repo import signers
from sealift.repo.files import digest_of, make_directory, read_bounded, write_atomic
from sealift.sign.secure_boot.keys import in_memory, load_private, refuse_role_key
from sealift.sign.secure_boot.tools import draft_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from sealift.sign.desk import Desk
    from sealift.sign.secure_boot.keys import Secrets
    from sealift.sign.secure_boot.tools import Tools

__all__ = ["MAGIC", "Mcu", "McuImage", "make", "make_key", "read_image"]

MAGIC: Final = 0x96F3B83D
IMAGE_MAX: Final = 1 << 26
"""Bytes of the largest image; the flash of microcontrollers is far smaller."""
_HEADER: Final = struct.Struct("<IIHHIIBBHII")
_RECORDS: Final = struct.Struct("<HH")
_PLAIN, _PROTECTED = 0x6907, 0x6908
_SHA256, _KEY_HASH, _COUNTER = 0x10, 0x01, 0x50


@dataclass(frozen=True, slots=True)
class Mcu:
    """What goes into an image for MCUboot; sizes in bytes.

    ``version`` is ``MAJOR.MINOR.PATCH+BUILD``; ``counter`` never goes down on a device
    whose loader counts.
    """

    program: Path
    version: str
    counter: int
    slot_size: int
    header_size: int = 0x200
    align: int = 8


@dataclass(frozen=True, slots=True)
class McuImage:
    """An image as its own bytes say: version, digest record, who signed, counter."""

    version: str
    length: int
    digest: bytes
    """SHA-256 over header, program and protected records: what SMP calls ``hash``."""
    key_hash: bytes | None
    counter: int | None

    def to_json(self) -> dict[str, object]:
        """The facts as JSON values."""
        return {
            "version": self.version,
            "length": self.length,
            "image_hash": self.digest.hex(),
            "key_hash": self.key_hash and self.key_hash.hex(),
            "security_counter": self.counter,
        }


@dataclass(frozen=True, slots=True)
class Made:
    """A signed image; ``sha256`` is of the file, what SMP calls ``sha``."""

    path: Path
    sha256: bytes
    image: McuImage

    def to_json(self) -> dict[str, object]:
        """The facts as JSON values."""
        return {
            "file": str(self.path),
            "sha256": self.sha256.hex(),
            **self.image.to_json(),
        }


def make_key(path: Path) -> str:
    """A new ECDSA P-256 key in a file, mode 0600, its public half beside it (``.pub``);
    what MCUboot's key record will say.

    Raises:
        InvalidConfigError, SpaceError: it exists, or cannot be written.
    """
    make_directory(path.parent)
    private = ec.generate_private_key(ec.SECP256R1())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomic(path, pem, mode=0o600, replace=False)
    public = _public_pem(private.public_key())
    write_atomic(path.with_suffix(".pub"), public, mode=0o644, replace=False)
    return sha256(_spki(path.with_suffix(".pub"))).hexdigest()


def make(
    parts: Mcu,
    out: Path,
    key: str,
    tools: Tools,
    *,
    desk: Desk | None = None,
    secrets: Secrets | None = None,
) -> Made:
    """Sign an image; ``key`` is a PEM file or ``pkcs11:…``.

    Raises:
        MissingToolError, InvalidConfigError, SpaceError: a tool is missing or failed, a
        file cannot be read or written. KeyFileError: the key cannot be used.
        RefusedError: it is a key of a role (B-03), or the image does not verify.
    """
    with draft_of(out) as scratch:
        made, public = scratch / "out", scratch / "public.pem"
        if key.startswith("pkcs11:"):
            _by_token(parts, made, public, key, tools, desk, secrets)
        else:
            _by_file(parts, made, public, Path(key), tools, desk, secrets)
        # Without a key any signer would do.
        tools.run("imgtool", "verify", "--key", public, made)
        image = read_image(read_bounded(made, IMAGE_MAX))
        if image.key_hash != sha256(_spki(public)).digest():
            raise RefusedError("imgtool names another key than it was given")
        return Made(out, digest_of(made), image)


def _by_file(
    parts: Mcu,
    made: Path,
    public: Path,
    path: Path,
    tools: Tools,
    desk: Desk | None,
    secrets: Secrets | None,
) -> None:
    private = load_private(path, secrets)
    kinds = (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)
    if not isinstance(private, kinds):
        raise RefusedError(f"{path} is of a kind MCUboot does not take")
    refuse_role_key(private.public_key(), desk)
    public.write_bytes(_public_pem(private.public_key()))
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with in_memory("key", pem) as descriptor:
        tools.run(
            *("imgtool", "sign"),
            *("--key", f"/proc/self/fd/{descriptor}"),
            *_layout(parts),
            *(parts.program, made),
            descriptors=(descriptor,),
        )


def _by_token(
    parts: Mcu,
    made: Path,
    public: Path,
    key: str,
    tools: Tools,
    desk: Desk | None,
    secrets: Secrets | None,
) -> None:
    signer = signers.load_signer(key, secrets)
    pem = str(signer.public_key.keyval["public"]).encode()
    refuse_role_key(load_pem_public_key(pem), desk)
    public.write_bytes(pem)
    vector, signature = public.with_name("vector"), public.with_name("signature")
    tools.run(
        *("imgtool", "sign"),
        *("--vector-to-sign", "payload"),  # write what is signed, and stop
        *_layout(parts),
        *(parts.program, vector),
    )
    signed = signer.sign(read_bounded(vector, IMAGE_MAX))
    signature.write_bytes(base64.b64encode(bytes.fromhex(signed.signature)))
    tools.run(
        *("imgtool", "sign"),
        *("--fix-sig", signature),
        *("--fix-sig-pubkey", public),
        *_layout(parts),
        *(parts.program, made),
    )


def _layout(parts: Mcu) -> list[str]:
    return [
        *("--version", parts.version),
        *("--security-counter", str(parts.counter)),  # the loader's own floor
        *("--align", str(parts.align)),  # what the flash writes at a time
        *("--header-size", hex(parts.header_size)),
        "--pad-header",  # the program was not linked behind a header
        *("--slot-size", hex(parts.slot_size)),  # refused if it does not fit
        # Neither --pad nor --confirm: a trailer would mark it as good (factory only).
    ]


def _public_pem(public: PublicKeyTypes) -> bytes:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _spki(path: Path) -> bytes:
    """The bytes MCUboot hashes of a public key."""
    public = load_pem_public_key(path.read_bytes())
    if isinstance(public, rsa.RSAPublicKey):
        return public.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# ── reading ──────────────────────────────────────────────────────────────────────────
def read_image(raw: bytes) -> McuImage:
    """What an image's own bytes say; its digest record is recomputed.

    Raises:
        MalformedError: not an image for MCUboot, or its digest is another.
    """
    if len(raw) < _HEADER.size or int.from_bytes(raw[:4], "little") != MAGIC:
        raise MalformedError("not an image for MCUboot")
    found = _HEADER.unpack_from(raw)
    header, protected, size = found[2], found[3], found[4]
    end = header + size + protected
    records: dict[int, bytes] = {}
    if protected:
        records |= _records(raw, header + size, _PROTECTED)
    records |= _records(raw, end, _PLAIN)
    digest = records.get(_SHA256, b"")
    if sha256(raw[:end]).digest() != digest:
        raise MalformedError("the image's digest record is not of its bytes")
    counter = records.get(_COUNTER)
    return McuImage(
        version=f"{found[6]}.{found[7]}.{found[8]}+{found[9]}",
        length=len(raw),
        digest=digest,
        key_hash=records.get(_KEY_HASH),
        counter=None if counter is None else int.from_bytes(counter, "little"),
    )


def _records(raw: bytes, at: int, magic: int) -> list[tuple[int, bytes]]:
    if len(raw) < at + _RECORDS.size:
        raise MalformedError("the image ends before its records")
    kind, length = _RECORDS.unpack_from(raw, at)
    end = at + length
    if kind != magic or end > len(raw):
        raise MalformedError("the image has no records where they belong")
    found: list[tuple[int, bytes]] = []
    at += _RECORDS.size
    while at < end:
        if end - at < _RECORDS.size:
            raise MalformedError("a record that is cut off")
        kind, length = _RECORDS.unpack_from(raw, at)
        at += _RECORDS.size
        if length > end - at:
            raise MalformedError("a record that is cut off")
        found.append((kind, raw[at : at + length]))
        at += length
    return found
