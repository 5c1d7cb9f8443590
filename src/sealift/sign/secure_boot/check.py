"""``secure-boot check``: what a file is, who signed it, and what is inside.

Words about a signature come in two kinds. ``signed_by`` is what a tool verified with a
certificate it was given; ``signature`` is what the file says of itself, which anybody
can write.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sealift.core.bootable import FACTS as WORDS
from sealift.core.bootable import command_lines
from sealift.core.errors import (
    BootError,
    FormatError,
    InvalidConfigError,
    InvalidInputError,
    RefusedError,
    SealiftError,
)
from sealift.core.fdt import Fdt, boot_arguments, read_fit
from sealift.core.pe import MACHINES, Section, read_pe
from sealift.core.types import BootKind
from sealift.repo.files import digest_of, read_bounded, translated
from sealift.sign.secure_boot import image as images
from sealift.sign.secure_boot import mcu
from sealift.sign.secure_boot.fit_signature import require_signed
from sealift.sign.secure_boot.keys import fingerprint, read_certificate, rsa_key
from sealift.sign.secure_boot.tools import reader
from sealift.sign.secure_boot.verity import read_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from cryptography import x509

    from sealift.sign.secure_boot.tools import Tools

    Report = Callable[[str, int, int], None]

__all__ = ["look"]

_TEXT_MAX: Final = 4096
_PIECE: Final = 1 << 20
_SUBJECT: Final = re.compile(r"^ - subject: (.*)$", re.MULTILINE)


def look(
    path: Path,
    tools: Tools,
    certificate: Path | None = None,
    progress: Report = lambda *_: None,
) -> dict[str, Any]:
    """What a file is, as JSON values; ``certificate`` is whose signature is expected.

    Raises:
        InvalidInputError: it is nothing of what a boot chain is made of. RefusedError:
        it contradicts itself, or is not signed by ``certificate``. InvalidConfigError,
        MissingToolError: it cannot be read, or a tool is missing.
    """
    try:
        with path.open("rb") as stream:
            length = os.fstat(stream.fileno()).st_size
            head = reader(stream)(0, 64)
            found: dict[str, Any] = {"file": str(path), "length": length}
            found |= _told(path, stream, head, length, tools, certificate, progress)
    except FormatError as error:
        raise RefusedError(f"{path}: {error.message}", hint=error.hint) from error
    except OSError as error:
        raise translated(path, error, "read") from error
    if certificate is not None and "signed_by" not in found:
        raise RefusedError(
            f"{path}, a {found['kind']}, has no signature that {certificate} could be "
            f"asked about"
        )
    return found


def _told(
    path: Path,
    stream: BinaryIO,
    head: bytes,
    length: int,
    tools: Tools,
    certificate: Path | None,
    progress: Report,
) -> dict[str, Any]:
    if path.with_name(path.name + images.FACTS).exists():
        return _image(path, stream, progress)
    if head[:2] == b"MZ":
        return _pe(path, stream, length, tools, certificate)
    if head[:4] == b"\xd0\x0d\xfe\xed":
        return _tree(path, stream, length, tools, certificate)
    if int.from_bytes(head[:4], "little") == mcu.MAGIC:
        return _mcu(path, tools, certificate)
    if head.startswith(b"-----BEGIN CERTIFICATE"):
        return _certificate(read_certificate(path))
    if b"PRIVATE KEY" in head:
        raise InvalidInputError(
            f"{path} is a private key", hint="look at its certificate, NAME.crt"
        )
    try:
        return {"kind": "root with hash tree", **read_root(path, progress).to_json()}
    except InvalidConfigError as error:
        raise InvalidInputError(
            f"{path} is nothing a boot chain is made of",
            hint="a UKI or other PE file, a FIT image or device tree, an image for "
            "MCUboot, a root with a hash tree, a slot image, a certificate",
        ) from error


def _image(path: Path, stream: BinaryIO, progress: Report) -> dict[str, Any]:
    facts = images.read_facts(path.with_name(path.name + images.FACTS))
    images.check(path, facts, progress)
    return {
        "kind": "slot image",
        "sha256": digest_of(path).hex(),
        "boot": facts.to_json(),
        "boot_file_signed": images.boot_file_is_signed(facts, reader(stream)),
    }


# ── PE ───────────────────────────────────────────────────────────────────────────────
def _pe(
    path: Path, stream: BinaryIO, length: int, tools: Tools, certificate: Path | None
) -> dict[str, Any]:
    read = reader(stream)
    found = read_pe(read, length)
    digest = found.digest(read)
    own = [digest in read(*where) for where in found.signatures]
    told: dict[str, Any] = {
        "kind": "UKI" if found.section(".linux") else "PE file",
        "machine": MACHINES.get(found.machine, f"{found.machine:#06x}"),
        "sha256": digest_of(path).hex(),
        "signed_sum": digest.hex(),
        "sections": {
            one.name: {"length": one.length, "sha256": _sum(read, one)}
            for one in found.sections
        },
    }
    for name in (".cmdline", ".osrel", ".uname", ".sbat"):
        raw = found.content(read, name, _TEXT_MAX)
        if raw is not None:
            told[name[1:]] = raw.rstrip(b"\0").decode("utf-8", "replace")
    if found.section(".linux") and found.section(".cmdline"):
        told["root"] = _root_words(told["cmdline"])
    told["signature"] = None
    if found.signatures:
        if not all(own):
            raise RefusedError(f"{path}: its signature is that of another file")
        said = tools.run("sbverify", "--list", path)
        told["signature"] = _SUBJECT.findall(said)
    if certificate is not None:
        try:
            tools.run("sbverify", "--cert", certificate, path)
        except InvalidConfigError as error:
            raise RefusedError(f"{path} is not signed by {certificate}") from error
        told["signed_by"] = _certificate(read_certificate(certificate))
    return told


def _sum(read: Callable[[int, int], bytes], section: Section) -> str:
    digest = hashlib.sha256()
    end = section.offset + section.length
    for at in range(section.offset, end, _PIECE):
        digest.update(read(at, min(_PIECE, end - at)))
    return digest.hexdigest()


def _root_words(line: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in line.split())
    return {name: value for name, equals, value in pairs if equals and name in WORDS}


# ── device trees ─────────────────────────────────────────────────────────────────────
def _tree(
    path: Path, stream: BinaryIO, length: int, tools: Tools, certificate: Path | None
) -> dict[str, Any]:
    read = reader(stream)
    tree = Fdt(read, length)
    try:
        fit = read_fit(read, length)
    except FormatError:
        return {
            "kind": "device tree",
            "sha256": digest_of(path).hex(),
            "bootargs": boot_arguments(tree),
            "keys": _keys_in(path, tools),
        }
    try:
        lines: list[str] | str = list(command_lines(BootKind.FIT, read, length))
    except BootError as error:
        lines = f"none to rely on: {error.message}"
    told: dict[str, Any] = {
        "kind": "FIT image",
        "sha256": digest_of(path).hex(),
        "default": fit.default,
        "images": {
            one.name: {
                "type": one.kind,
                "compression": one.compression,
                "length": one.data.length,
                "hashes": sorted(one.hashes.values()),
            }
            for one in fit.images.values()
        },
        "configurations": {
            one.name: {
                "uses": {kind: list(names) for kind, names in one.uses.items()},
                "signature": [
                    {
                        "key": signature.key,
                        "algorithm": signature.algorithm,
                        "covers": list(signature.images),
                        "signed": signature.signed,
                    }
                    for signature in one.signatures
                ],
            }
            for one in fit.configurations.values()
        },
        "command_lines": lines,
    }
    if certificate is not None:
        try:
            require_signed(read, length, rsa_key(certificate))
        except RefusedError as error:
            raise RefusedError(
                f"{path} is not signed by {certificate}: {error.message}"
            ) from error
        told["signed_by"] = _certificate(read_certificate(certificate))
    return told


def _keys_in(path: Path, tools: Tools) -> dict[str, str | None]:
    """Keys a control tree believes, and what each is required for."""
    try:
        names = tools.run("fdtget", "-l", path, "/signature").split()
    except InvalidConfigError:
        return {}
    keys: dict[str, str | None] = {}
    for name in names:
        try:
            keys[name] = tools.run("fdtget", path, f"/signature/{name}", "required")
            keys[name] = str(keys[name]).strip()
        except InvalidConfigError:
            keys[name] = None
    return keys


# ── the rest ─────────────────────────────────────────────────────────────────────────
def _mcu(path: Path, tools: Tools, public: Path | None) -> dict[str, Any]:
    found = mcu.read_image(read_bounded(path, mcu.IMAGE_MAX))
    told = {
        "kind": "MCUboot image",
        "sha256": digest_of(path).hex(),
        **found.to_json(),
    }
    if public is not None:
        try:
            tools.run("imgtool", "verify", "--key", public, path)
        except SealiftError as error:
            raise RefusedError(f"{path} is not signed by {public}") from error
        told["signed_by"] = str(public)
    return told


def _certificate(found: x509.Certificate) -> dict[str, Any]:
    return {
        "kind": "certificate",
        "subject": found.subject.rfc4514_string(),
        "sha256": fingerprint(found),
        "not_after": found.not_valid_after_utc.isoformat(),
    }
