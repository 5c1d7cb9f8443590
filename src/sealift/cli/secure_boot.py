"""``sealift release secure-boot``: what a device's own boot chain has to believe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealift.cli import output
from sealift.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.sign.desk import Desk
    from sealift.sign.secure_boot.keys import SigningKey

app = output.group(
    "Make what a board boots verified: root, boot file, keys, and the image of both."
)

Out = Annotated[Path, typer.Option(help="Where the result goes.")]
Key = Annotated[
    str,
    typer.Option(metavar="KEY", help="NAME.key, or pkcs11:token=T;object=LABEL?…"),
]
Certificate = Annotated[
    Path | None,
    typer.Option(metavar="NAME.crt", help="Its certificate. [default: beside the key]"),
]
OwnDesk = Annotated[
    Path | None,
    typer.Option("--desk", help="Refuse a key that a role of this desk has, too."),
]
RootFile = Annotated[
    Path, typer.Option(metavar="ROOT", help="What `verity` made: the root it boots.")
]
CommandLine = Annotated[
    str, typer.Option(help="The rest of the kernel's command line.")
]


# ── keys ─────────────────────────────────────────────────────────────────────────────
@app.command()
def keys(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME…", help="[default: PK KEK db]"),
    ] = None,
    mcu: Annotated[
        bool, typer.Option("--mcu", help="Make ECDSA P-256 keys for MCUboot instead.")
    ] = False,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Make keys for a boot chain: RSA-2048, NAME.key and NAME.crt, not encrypted.

    They sign boot files and nothing else; keys of the desk's roles are refused here.
    Keep PK and KEK apart from db: they change which keys a board believes.

    Example: sealift release secure-boot keys boot-keys PK KEK db fit
    """
    from sealift.sign.secure_boot import keys as making
    from sealift.sign.secure_boot import mcu as microcontrollers

    wanted = names or ["PK", "KEK", "db"]
    made: dict[str, Any] = {}
    if mcu and not dry_run:
        for name in wanted:
            made[name] = microcontrollers.make_key(directory / f"{name}.key")
    elif not mcu:
        made = making.make(directory, wanted, output.now(), dry_run=dry_run)
    found = {"directory": str(directory), "written": not dry_run, "keys": made}
    output.show(
        found,
        as_json=as_json,
        text=lambda: output.facts(
            {"written": not dry_run, **{f"{n}.key": p for n, p in made.items()}}
        ),
    )


# ── root ─────────────────────────────────────────────────────────────────────────────
@app.command()
def verity(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="A read-only file system.")
    ],
    out: Out,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the release; the salt is made of it."),
    ] = None,
    salt: Annotated[
        str | None, typer.Option(metavar="HEX", help="Or the salt itself, 32 bytes.")
    ] = None,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Put the dm-verity hash tree behind a root file system; give the root hash.

    The same image and name give the same bytes. Squashfs and erofs are read-only by
    themselves; ext4 must have been made so that nothing writes to it.

    Example: sealift release secure-boot verity root.squashfs --name demo-1.2.0
    --out root.verity
    """
    from sealift.sign.secure_boot import verity as making
    from sealift.sign.secure_boot.tools import Tools

    if (name is None) == (salt is None):
        raise InvalidConfigError("either --name or --salt says how it is salted")
    try:
        grains = making.salt_of(name) if name is not None else bytes.fromhex(salt or "")
    except ValueError as error:
        raise InvalidConfigError("--salt is not hexadecimal") from error
    with output.progress(as_json=as_json) as report:
        if dry_run:
            root = making.rehearse(image, grains, report)
        else:
            root = making.append(image, out, grains, Tools(), report)
    _show({"file": str(out), "written": not dry_run, **root.to_json()}, as_json=as_json)


# ── boot files ───────────────────────────────────────────────────────────────────────
@app.command()
def uki(
    kernel: Annotated[Path, typer.Option(help="The kernel, an EFI executable.")],
    initrd: Annotated[Path, typer.Option(help="Its initial RAM disk.")],
    root: RootFile,
    product: Annotated[str, typer.Option(help="What the boot loader shows.")],
    version: Annotated[str, typer.Option(help="What it sorts by: the newest first.")],
    key: Key,
    out: Out,
    command_line: CommandLine = "",
    uname: Annotated[str, typer.Option(help="The kernel's release, `uname -r`.")] = "",
    stub: Annotated[
        Path | None, typer.Option(help="[default: that of systemd-boot-efi]")
    ] = None,
    certificate: Certificate = None,
    desk: OwnDesk = None,
    passphrase_file: output.PassphraseFile = None,
    as_json: output.Json = False,
) -> None:
    """Make and sign a unified kernel image that boots one root and no other.

    Root hash, salt and size go into the signed command line. Programs: objcopy, sbsign
    and sbverify (Debian: binutils sbsigntool systemd-boot-efi).

    Example: sealift release secure-boot uki --kernel vmlinuz --initrd initrd.img
    --root root.verity --command-line "quiet panic=3" --product demo --version 1.2.0
    --key boot-keys/db.key --out demo.efi
    """
    from sealift.sign.secure_boot import uki as making
    from sealift.sign.secure_boot.tools import Tools

    line = _command_line(command_line, root, as_json=as_json)
    parts = making.Uki(
        kernel,
        initrd,
        line,
        making.os_release(product, version),
        uname,
        stub or making.STUB,
    )
    pair = _key(key, certificate, desk)
    made = making.make(parts, out, pair, Tools(), _secrets(passphrase_file))
    _show({**made.to_json(), "command_line": line}, as_json=as_json)


@app.command()
def loader(
    key: Key,
    out: Out,
    source: Annotated[
        Path | None,
        typer.Argument(metavar="FILE.efi", help="[default: systemd-boot of Debian]"),
    ] = None,
    certificate: Certificate = None,
    desk: OwnDesk = None,
    passphrase_file: output.PassphraseFile = None,
    as_json: output.Json = False,
) -> None:
    """Sign a boot loader, or any EFI program; it goes to EFI/BOOT/BOOTX64.EFI.

    Example: sealift release secure-boot loader --key boot-keys/db.key --out BOOTX64.EFI
    """
    from sealift.sign.secure_boot import uki as making
    from sealift.sign.secure_boot.tools import Tools

    pair = _key(key, certificate, desk)
    made = making.sign(
        source or making.LOADER, out, pair, Tools(), _secrets(passphrase_file)
    )
    _show(made.to_json(), as_json=as_json)


@app.command()
def fit(
    kernel: Annotated[Path, typer.Option(help="The kernel, uncompressed.")],
    ramdisk: Annotated[Path, typer.Option(help="Its initial RAM disk.")],
    device_tree: Annotated[Path, typer.Option(help="The board's device tree, .dtb.")],
    root: RootFile,
    load: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where the kernel runs: 0x40400000.")
    ],
    key: Key,
    out: Out,
    command_line: CommandLine = "",
    architecture: Annotated[str, typer.Option(help="In U-Boot's words.")] = "arm64",
    name: Annotated[
        str, typer.Option(help="What U-Boot's control tree calls the key.")
    ] = "fit",
    control: Annotated[
        Path | None,
        typer.Option(metavar="IN.dtb", help="U-Boot's own device tree, to plant in."),
    ] = None,
    control_out: Annotated[
        Path | None,
        typer.Option(metavar="OUT.dtb", help="Where it goes with the key in it."),
    ] = None,
    certificate: Certificate = None,
    desk: OwnDesk = None,
    passphrase_file: output.PassphraseFile = None,
    as_json: output.Json = False,
) -> None:
    """Make and sign a FIT image that boots one root and no other.

    The command line goes into /chosen/bootargs of its device tree; one configuration
    signs kernel, tree and RAM disk. Programs: mkimage, dumpimage, fdtput, fdtget
    (Debian: u-boot-tools device-tree-compiler).

    Example: sealift release secure-boot fit --kernel Image --ramdisk initrd.img
    --device-tree board.dtb --root root.verity --load 0x40400000
    --key boot-keys/fit.key --out demo.itb --control u-boot.dtb
    --control-out control.dtb
    """
    from sealift.sign.secure_boot import fit as making
    from sealift.sign.secure_boot.tools import Tools

    if (control is None) != (control_out is None):
        raise InvalidConfigError("--control and --control-out belong together")
    line = _command_line(command_line, root, as_json=as_json)
    parts = making.Fit(
        kernel, device_tree, ramdisk, line, _number(load, "--load"), architecture
    )
    made = making.make(
        parts,
        out,
        _key(key, certificate, desk),
        Tools(),
        name=name,
        control=(control, control_out) if control and control_out else None,
        secrets=_secrets(passphrase_file),
    )
    _show({**made.to_json(), "command_line": line}, as_json=as_json)


@app.command()
def mcu(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM")],
    version: Annotated[str, typer.Option(help="MAJOR.MINOR.PATCH+BUILD.")],
    counter: Annotated[int, typer.Option(min=0, help="Security counter.")],
    slot_size: Annotated[str, typer.Option(metavar="BYTES", help="0x20000.")],
    key: Annotated[
        str, typer.Option(metavar="KEY", help="NAME.key, or pkcs11:… (P-256).")
    ],
    out: Out,
    header_size: Annotated[str, typer.Option(metavar="BYTES")] = "0x200",
    align: Annotated[int, typer.Option(help="What the flash writes at a time.")] = 8,
    desk: OwnDesk = None,
    passphrase_file: output.PassphraseFile = None,
    as_json: output.Json = False,
) -> None:
    """Sign an image for MCUboot. Program: imgtool (pip: sealift[secureboot]).

    Example: sealift release secure-boot mcu app.bin --version 2.0.0+7 --counter 5
    --slot-size 0x20000 --key boot-keys/mcu.key --out app.signed.bin
    """
    from sealift.sign.secure_boot import mcu as making
    from sealift.sign.secure_boot.tools import Tools

    parts = making.Mcu(
        program,
        version,
        counter,
        _number(slot_size, "--slot-size"),
        _number(header_size, "--header-size"),
        align,
    )
    made = making.make(
        parts,
        out,
        key,
        Tools(),
        desk=_desk(desk, key),
        secrets=_secrets(passphrase_file),
    )
    _show(made.to_json(), as_json=as_json)


@app.command()
def enrol(
    keys: Annotated[
        Path, typer.Option(help="Directory with PK.crt, KEK.crt and db.crt.")
    ],
    store: Annotated[
        Path | None, typer.Option(help="Write a variable store for this file.")
    ] = None,
    auth: Annotated[
        Path | None,
        typer.Option(help="Write .auth files for a board in Setup Mode here."),
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="Empty store. [default: that of ovmf]")
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Write the keys firmware is to believe: a variable store, .auth files, or both.

    No Microsoft certificate is put in. Firmware then runs no option ROM signed with
    one: network, storage or graphics cards may be missing before the system starts.
    Program: virt-fw-vars (pip: sealift[secureboot]; Debian: ovmf for the empty store).

    Example: sealift release secure-boot enrol --keys boot-keys --store vars.fd
    """
    from sealift.sign.secure_boot import enrol as making
    from sealift.sign.secure_boot.tools import Tools

    if store is None and auth is None:
        raise InvalidConfigError("--store or --auth says what to write")
    made = making.enrol(
        {name: keys / f"{name}.crt" for name in ("PK", "KEK", "db")},
        Tools(),
        store=store,
        auth=auth,
        template=template or making.TEMPLATE,
    )

    def text() -> None:
        output.facts({**{p: d.hex() for p, d in made.files.items()}})
        output.warn(making.WARNING)

    output.show(made.to_json(), as_json=as_json, text=text)


# ── the image ────────────────────────────────────────────────────────────────────────
@app.command()
def image(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="What `verity` made.")],
    boot: Annotated[
        Path, typer.Argument(metavar="BOOT", help="What `uki` or `fit` made for it.")
    ],
    out: Out,
    offset: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES",
            help="Where a loader looks for the boot file; 4096 divides it.",
        ),
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Join root and boot file to the image of a slot, and write its facts beside it.

    Everything is checked from the bytes: the root hash is recomputed, and the boot
    file's command line names it. The facts, OUT.boot.json, are for `release pack`.

    Example: sealift release secure-boot image root.verity demo.efi --out demo.img
    """
    from sealift.sign.secure_boot import image as making

    place = None if offset is None else _number(offset, "--offset")
    with output.progress(as_json=as_json) as report:
        facts = making.join(root, boot, out, offset=place, progress=report)
    _show(
        {"file": str(out), "facts": f"{out}{making.FACTS}", **facts.to_json()},
        as_json=as_json,
    )
    output.note(f"next: sealift release pack {out} --bootable {out}{making.FACTS} …")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE")],
    certificate: Annotated[
        Path | None,
        typer.Option(metavar="NAME.crt", help="Refuse it if this did not sign it."),
    ] = None,
    as_json: output.Json = False,
) -> None:
    """Say what a file of a boot chain is, who signed it, and what is inside.

    UKIs and other EFI programs, FIT images, device trees with keys, images for MCUboot,
    roots with a hash tree, slot images with their facts, certificates.

    Example: sealift release secure-boot check demo.efi --certificate boot-keys/db.crt
    """
    from sealift.sign.secure_boot import check as looking
    from sealift.sign.secure_boot.tools import Tools

    with output.progress(as_json=as_json) as report:
        found = looking.look(file, Tools(), certificate, report)
    _show(found, as_json=as_json)


# ── shared ───────────────────────────────────────────────────────────────────────────
def _show(found: dict[str, Any], *, as_json: bool) -> None:
    output.show(found, as_json=as_json, text=lambda: output.facts(dict(_flat(found))))


def _flat(found: dict[str, Any], before: str = "") -> list[tuple[str, object]]:
    """Nested facts with one name each, as people read them line by line."""
    lines: list[tuple[str, object]] = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += _flat(value, f"{before}{name} ")
        elif isinstance(value, list):
            lines.append((before + name, "; ".join(map(str, value)) or None))
        else:
            lines.append((before + name, value))
    return lines


def _command_line(rest: str, root: Path, *, as_json: bool) -> str:
    """The command line with the words that name the root, recomputed from its bytes."""
    from sealift.sign.secure_boot.verity import read_root

    with output.progress(as_json=as_json) as report:
        found = read_root(root, report)
    return " ".join([*rest.split(), *found.words])


def _key(private: str, certificate: Path | None, desk: Path | None) -> SigningKey:
    from sealift.sign.secure_boot import keys as own

    if certificate is None and private.startswith("pkcs11:"):
        raise InvalidConfigError("a key on a token needs --certificate")
    beside = certificate or Path(private).with_suffix(".crt")
    public = own.read_certificate(beside).public_key()
    own.refuse_role_key(public, _desk(desk, private))
    return own.SigningKey(private, beside)


def _desk(path: Path | None, key: str) -> Desk | None:
    """The desk that was named, or the one the key lies in."""
    from sealift.sign.desk import Desk
    from sealift.sign.travel import desk_of

    found = path or desk_of([key])
    return None if found is None else Desk.open(found)


def _secrets(passphrase_file: Path | None) -> Callable[[str], str]:
    return lambda what: output.read_secret(what, passphrase_file)


def _number(text: str, name: str) -> int:
    try:
        return int(text, 0)
    except ValueError as error:
        raise InvalidConfigError(f"{name} {text[:64]!r} is no number") from error
