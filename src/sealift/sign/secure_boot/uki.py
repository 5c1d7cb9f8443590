"""``secure-boot uki`` and ``loader``: what UEFI firmware starts, signed.

A unified kernel image is a stub of systemd with a kernel, an initial RAM disk and a
command line as sections of one PE file, so that one signature covers all three. Where
the sections go in memory is computed from the stub; the kernel is last, for it is
unpacked behind its end (device-D13).

The unsigned file is reproducible, a signature has the time it was made at (device-D14):
both digests are given.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sealift.core.errors import FormatError, InvalidConfigError, RefusedError
from sealift.core.pe import Pe, read_pe
from sealift.repo.files import digest_of, read_bounded, translated
from sealift.sign.secure_boot.keys import SigningKey, lend
from sealift.sign.secure_boot.tools import draft_of, reader

if TYPE_CHECKING:
    from sealift.sign.secure_boot.tools import Tools

    Secrets = Callable[[str], str]

__all__ = [
    "LOADER",
    "STUB",
    "Signed",
    "Uki",
    "is_signed",
    "make",
    "os_release",
    "sign",
]

STUB: Final = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")
LOADER: Final = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
"""Where Debian's systemd-boot-efi has them."""
FILE_MAX: Final = 1 << 30
"""Bytes of the largest boot file: no EFI partition holds more of them."""

_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class Uki:
    """What goes into a unified kernel image. ``uname`` is the kernel's release."""

    kernel: Path
    initrd: Path
    command_line: str
    os_release: str
    uname: str = ""
    stub: Path = STUB


@dataclass(frozen=True, slots=True)
class Signed:
    """A file that was signed, and what it was before: both SHA-256."""

    path: Path
    length: int
    sha256: bytes
    unsigned_sha256: bytes

    def to_json(self) -> dict[str, object]:
        """The facts as JSON values."""
        return {
            "file": str(self.path),
            "length": self.length,
            "sha256": self.sha256.hex(),
            "unsigned_sha256": self.unsigned_sha256.hex(),
        }


def os_release(product: str, version: str) -> str:
    """The ``.osrel`` section: systemd-boot sorts by version, and shows the name."""
    for text in (product, version):
        if not text or not text.isascii() or not text.isprintable() or '"' in text:
            raise InvalidConfigError(
                f"{text[:64]!r} cannot stand in an os-release file"
            )
    return (
        f'ID="{product}"\nIMAGE_ID="{product}"\nIMAGE_VERSION="{version}"\n'
        f'VERSION_ID="{version}"\nPRETTY_NAME="{product} {version}"\n'
    )


# ── making ───────────────────────────────────────────────────────────────────────────
def make(
    parts: Uki,
    out: Path,
    key: SigningKey | None,
    tools: Tools,
    secrets: Secrets | None = None,
) -> Signed:
    """Assemble, sign and check a unified kernel image; without a key it stays unsigned.

    Raises:
        MissingToolError, InvalidConfigError, SpaceError: a tool is missing or failed, a
        file cannot be read or written. KeyFileError: the key cannot be used.
        RefusedError: what came out is not what went in, or does not verify.
    """
    with draft_of(out) as scratch:
        unsigned = scratch / "unsigned"
        _assemble(parts, unsigned, scratch, tools)
        return _signed(unsigned, out, scratch, key, tools, secrets)


def sign(
    source: Path,
    out: Path,
    key: SigningKey,
    tools: Tools,
    secrets: Secrets | None = None,
) -> Signed:
    """Sign any PE file: a boot loader, for example.

    Raises:
        As :func:`make`; RefusedError also if it is signed already.
    """
    source = tools.file(source)
    with draft_of(out) as scratch:
        if look(source).signatures:
            raise RefusedError(
                f"{source} is signed already",
                hint="take the unsigned file: two signatures say who signed first",
            )
        return _signed(source, out, scratch, key, tools, secrets)


def look(path: Path) -> Pe:
    """The headers of a PE file.

    Raises:
        InvalidConfigError: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as stream:
            length = stream.seek(0, 2)
            return read_pe(reader(stream), length)
    except FormatError as error:
        raise InvalidConfigError(f"{path} is no PE file: {error.message}") from error
    except OSError as error:
        raise translated(path, error, "read") from error


def is_signed(path: Path) -> bool:
    """Whether a signature of this very file is in it; whose, ``sbverify`` tells.

    Raises:
        InvalidConfigError: it cannot be read, or is no PE file.
    """
    found = look(path)
    with path.open("rb") as stream:
        read = reader(stream)
        digest = found.digest(read)
        return any(digest in read(at, size) for at, size in found.signatures)


def _assemble(parts: Uki, out: Path, scratch: Path, tools: Tools) -> None:
    """The stub with its sections, in the order and at the places they need."""
    stub = tools.file(parts.stub)
    texts = {
        ".osrel": parts.os_release.encode(),
        ".cmdline": parts.command_line.encode() + b"\0",  # the stub reads up to it
        ".uname": parts.uname.encode(),
    }
    sections: dict[str, Path] = {}
    for name, content in texts.items():
        if content:
            sections[name] = scratch / name
            sections[name].write_bytes(content)
    sections |= {".initrd": parts.initrd, ".linux": parts.kernel}  # .linux stays last
    arguments: list[str | Path] = []
    address = _end_of(look(stub))
    for name, content_path in sections.items():
        arguments += [
            *("--add-section", f"{name}={content_path}"),
            *("--change-section-vma", f"{name}={address:#x}"),
        ]
        address = _aligned(address + _size(content_path))
    # The stub's own time in the header, not that of now (device-D14).
    tools.run("objcopy", "--preserve-dates", *arguments, stub, out)
    _compare(out, sections)


def _end_of(stub: Pe) -> int:
    """The first free page behind a stub, where its last section ends in memory."""
    ends = [section.address + section.size for section in stub.sections]
    return _aligned(stub.image_base + max(ends))


def _compare(made: Path, sections: dict[str, Path]) -> None:
    """Each section is, byte for byte, what went in; read back by our own reader.

    Raises:
        RefusedError: it is not.
    """
    found = look(made)
    with made.open("rb") as stream:
        read = reader(stream)
        for name, path in sections.items():
            if found.content(read, name, FILE_MAX) != read_bounded(path, FILE_MAX):
                raise RefusedError(f"objcopy wrote another {name} than it was given")


def _signed(
    source: Path,
    out: Path,
    scratch: Path,
    key: SigningKey | None,
    tools: Tools,
    secrets: Secrets | None,
) -> Signed:
    made = scratch / "out"
    if key is None:
        shutil.copyfile(source, made)
    else:
        with lend(key, tools, secrets) as lent:
            engine = ("--engine", lent.engine) if lent.engine else ()
            tools.run(
                "sbsign",
                *engine,
                *("--key", lent.address),
                *("--cert", key.certificate),  # firmware compares it with its db
                *("--output", made),
                source,
                more=lent.environment,
                descriptors=lent.descriptors,
            )
        _verify(made, key, tools)
    return Signed(out, _size(made), digest_of(made), digest_of(source))


def _verify(made: Path, key: SigningKey, tools: Tools) -> None:
    """``sbverify``, and our own sum over what a signature covers.

    Raises:
        RefusedError: the signature is not of this file.
    """
    wrong = f"the signature does not verify with {key.certificate}"
    try:
        said = tools.run("sbverify", "--cert", key.certificate, made)
    except InvalidConfigError as error:
        raise RefusedError(
            wrong, hint="does the certificate belong to the key?"
        ) from error
    if "Signature verification OK" not in said or not is_signed(made):
        raise RefusedError(wrong)


# ── small things ─────────────────────────────────────────────────────────────────────
def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise translated(path, error, "read") from error


def _aligned(length: int) -> int:
    return -(-length // _PAGE) * _PAGE
