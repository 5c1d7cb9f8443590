"""``secure-boot fit``: what U-Boot starts, signed, and the key it must believe.

The source of the image is written here: a kernel, a device tree whose
``/chosen/bootargs`` is the command line, a RAM disk, and one configuration whose
signature covers all three (device-D25). What an image of several configurations could
mix, one configuration cannot (C-11).

U-Boot believes the keys in its own device tree, the control tree, that are marked as
required for configurations. :func:`make` plants the key there when it gets the tree.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sealift.core.bootable import command_lines
from sealift.core.errors import InvalidConfigError, RefusedError, SealiftError
from sealift.core.fdt import read_fit
from sealift.core.types import BootKind
from sealift.repo.files import digest_of, translated
from sealift.sign.secure_boot.fit_signature import require_signed
from sealift.sign.secure_boot.keys import Lent, SigningKey, lend, rsa_key
from sealift.sign.secure_boot.tools import draft_of, reader

if TYPE_CHECKING:
    from sealift.sign.secure_boot.tools import Tools

    Secrets = Callable[[str], str]

__all__ = ["CONFIGURATION", "Fit", "Made", "make", "read_key"]

CONFIGURATION: Final = "conf"
ALGORITHM: Final = "sha256,rsa2048"
_MADE_AT: Final = "0"


@dataclass(frozen=True, slots=True)
class Fit:
    """What goes into a FIT image. ``load`` is where the kernel runs, in memory.

    ``architecture`` is a word of U-Boot's: ``arm64``, ``arm``, ``riscv``.
    """

    kernel: Path
    tree: Path
    ramdisk: Path
    command_line: str
    load: int
    architecture: str = "arm64"
    description: str = "sealift"


@dataclass(frozen=True, slots=True)
class Made:
    """A signed FIT image, and the control tree with the key if one was given."""

    path: Path
    length: int
    sha256: bytes
    control: Path | None = None
    control_sha256: bytes | None = None

    def to_json(self) -> dict[str, object]:
        """The facts as JSON values."""
        return {
            "file": str(self.path),
            "length": self.length,
            "sha256": self.sha256.hex(),
            "control": None if self.control is None else str(self.control),
            "control_sha256": self.control_sha256 and self.control_sha256.hex(),
        }


def make(
    parts: Fit,
    out: Path,
    key: SigningKey,
    tools: Tools,
    *,
    name: str,
    control: tuple[Path, Path] | None = None,
    secrets: Secrets | None = None,
) -> Made:
    """Assemble and sign a FIT image; with ``control``, plant the key in a copy.

    ``name`` is what U-Boot calls the key; ``control`` is its tree without and with it.
    The same input with the same key is the same file: RSA signatures of this kind have
    no chance in them, and the time in the file is ``SOURCE_DATE_EPOCH`` or 1970.

    Raises:
        MissingToolError, InvalidConfigError, SpaceError: a tool is missing or failed, a
        file cannot be read or written. KeyFileError: the key cannot be used.
        RefusedError: what came out is not signed, or not what went in.
    """
    _check_words(parts, name)
    with draft_of(out) as scratch:
        made = scratch / "out"
        planted = scratch / "control.dtb"
        if control is not None:
            _copy(control[0], planted)
        with lend(key, tools, secrets) as lent:
            keys, engine = _keys(scratch, key, lent, name)
            _assemble(parts, scratch, name, tools)
            tools.run(
                "mkimage",
                *("-f", scratch / "source.its"),
                *engine,
                *("-k", keys),
                # Only what is marked as required has to be there.
                *(("-K", planted, "-r") if control else ()),
                made,
                more={"SOURCE_DATE_EPOCH": _epoch(), **lent.environment},
                descriptors=lent.descriptors,
            )
        _verify(made, parts, key, name, tools)
        if control is not None:
            _verify_control(planted, name, tools)
            with draft_of(control[1]) as beside:
                _copy(planted, beside / "out")
        return Made(
            out,
            made.stat().st_size,
            digest_of(made),
            control and control[1],
            digest_of(control[1]) if control else None,
        )


def read_key(control: Path, name: str, tools: Tools) -> str:
    """What a control tree requires the key ``name`` for: ``conf``, else an error.

    Raises:
        InvalidConfigError: the key is not there, or is not required.
    """
    node = f"/signature/key-{name}"
    return tools.run("fdtget", control, node, "required").strip()


def _check_words(parts: Fit, name: str) -> None:
    texts = (parts.command_line, parts.architecture, parts.description, name)
    for text in texts:
        if not text.isascii() or not text.isprintable() or '"' in text or "\\" in text:
            raise InvalidConfigError(f"{text[:64]!r} cannot stand in a FIT source")
    if not name.replace("-", "").isalnum():
        raise InvalidConfigError(f"{name!r} cannot name a key in a device tree")


def _assemble(parts: Fit, scratch: Path, name: str, tools: Tools) -> None:
    """The files of the image in one directory, and its source beside them."""
    for file, source in (
        ("kernel", parts.kernel),
        ("fdt", parts.tree),
        ("ramdisk", parts.ramdisk),
    ):
        _copy(source, scratch / file)
    tools.run(
        "fdtput",
        *("-p",),  # /chosen may not be there yet
        *("-t", "s"),  # one text, spaces and all
        *(scratch / "fdt", "/chosen", "bootargs", parts.command_line),
    )
    text = _SOURCE.format(
        description=parts.description,
        directory=scratch,
        architecture=parts.architecture,
        load=f"{parts.load:#x}",
        configuration=CONFIGURATION,
        algorithm=ALGORITHM,
        key=name,
    )
    (scratch / "source.its").write_text(text, "ascii")


_SOURCE: Final = """/dts-v1/;
/ {{
    description = "{description}";
    #address-cells = <1>;
    images {{
        kernel {{
            description = "kernel";
            data = /incbin/("{directory}/kernel");
            type = "kernel";
            arch = "{architecture}";
            os = "linux";
            compression = "none";
            load = <{load}>;
            entry = <{load}>;
            hash-1 {{ algo = "sha256"; }};
        }};
        fdt {{
            description = "device tree";
            data = /incbin/("{directory}/fdt");
            type = "flat_dt";
            arch = "{architecture}";
            compression = "none";
            hash-1 {{ algo = "sha256"; }};
        }};
        ramdisk {{
            description = "initial RAM disk";
            data = /incbin/("{directory}/ramdisk");
            type = "ramdisk";
            arch = "{architecture}";
            os = "linux";
            compression = "none";
            hash-1 {{ algo = "sha256"; }};
        }};
    }};
    configurations {{
        default = "{configuration}";
        {configuration} {{
            kernel = "kernel";
            fdt = "fdt";
            ramdisk = "ramdisk";
            signature {{
                algo = "{algorithm}";
                key-name-hint = "{key}";
                sign-images = "kernel", "fdt", "ramdisk";
            }};
        }};
    }};
}};
"""


def _keys(
    scratch: Path, key: SigningKey, lent: Lent, name: str
) -> tuple[str | Path, tuple[str, ...]]:
    """Where ``mkimage`` looks for the key, and the engine it asks.

    Its own option for a key's file (``-G``) is not heard when configurations are
    signed (2023.01), so the file of memory gets the name it expects.
    """
    if lent.engine:
        if lent.label is None:
            raise InvalidConfigError(
                "mkimage finds a key on a token by its label only",
                hint="pkcs11:token=T;object=LABEL?module-path=/path/to/module.so",
            )
        address = lent.address.removeprefix("pkcs11:")
        return address, ("-N", lent.engine)
    directory = scratch / "keys"
    directory.mkdir()
    (directory / f"{name}.key").symlink_to(lent.address)
    shutil.copyfile(key.certificate, directory / f"{name}.crt")
    return directory, ()


def _epoch() -> str:
    found = os.environ.get("SOURCE_DATE_EPOCH", _MADE_AT)
    return found if found.isdecimal() else _MADE_AT


# ── checking ─────────────────────────────────────────────────────────────────────────
def _verify(made: Path, parts: Fit, key: SigningKey, name: str, tools: Tools) -> None:
    """Signed by that key, as U-Boot looks at it, and with what went in.

    ``mkimage`` ends well when it could not sign, so nothing is believed of it.

    Raises:
        RefusedError: they do not.
    """
    try:
        with made.open("rb") as stream:
            read, length = reader(stream), made.stat().st_size
            lines = command_lines(BootKind.FIT, read, length)
            fit = read_fit(read, length)
            require_signed(read, length, rsa_key(key.certificate))
    except SealiftError as error:
        raise RefusedError(
            f"mkimage made no signed image: {error.message}",
            hint="does the certificate belong to the key?",
        ) from error
    signatures = fit.configurations[CONFIGURATION].signatures
    said = tools.run("dumpimage", "-l", made)
    unsigned = [line for line in said.splitlines() if "Sign value:" in line]
    if (
        lines != (parts.command_line,)
        or [(one.key, one.algorithm) for one in signatures] != [(name, ALGORITHM)]
        or len(unsigned) != 1
        or "unavailable" in unsigned[0]
    ):
        raise RefusedError("mkimage made another image than it was asked for")


def _verify_control(planted: Path, name: str, tools: Tools) -> None:
    try:
        required = read_key(planted, name, tools)
    except InvalidConfigError as error:
        raise RefusedError(f"mkimage did not plant the key {name}") from error
    if required != "conf":
        raise RefusedError(f"the control tree requires {name} for {required}")


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise translated(source, error, "read") from error
