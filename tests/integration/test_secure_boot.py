"""The boot chain at the desk, with the tools it drives and those that check them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from sealift.core import verity as core_verity
from sealift.core.bootable import check, command_lines
from sealift.core.errors import (
    BootError,
    InvalidConfigError,
    InvalidInputError,
    KeyUnreadableError,
    MalformedError,
    MissingToolError,
    PassphraseError,
    RefusedError,
)
from sealift.core.pe import read_pe
from sealift.core.types import BootKind
from sealift.sign.secure_boot import check as looking
from sealift.sign.secure_boot import enrol, fit, image, keys, mcu, uki, verity
from sealift.sign.secure_boot.keys import SigningKey
from sealift.sign.secure_boot.tools import PACKAGES, Tools
from tests.bench import toolbox
from tests.bench.token import PIN, Tokens, tokens
from tests.integration.secure_boot_bench import (
    LOAD,
    LOADER,
    STORE,
    Bench,
    prepared,
)
from tests.vendor import NOW

BLOCK = core_verity.BLOCK


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return prepared(tmp_path_factory.mktemp("secure-boot"))


# ── verity ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("salt", [b"", bytes(range(32))], ids=["no-salt", "salt"])
@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 16383, 16384, 16385])
def test_D16_the_tree_of_veritysetup(
    blocks: int, salt: bytes, bench: Bench, tmp_path: Path
) -> None:
    """Byte for byte, with the superblock and without."""
    data = random.Random(blocks).randbytes(blocks * BLOCK)
    (tmp_path / "data").write_bytes(data)
    tree = bytearray(core_verity.tree_blocks(blocks) * BLOCK)

    def write(offset: int, block: bytes) -> None:
        tree[offset : offset + BLOCK] = block

    root = core_verity.build(
        lambda offset, length: data[offset : offset + length], blocks, salt, write
    )
    uuid = bytes(range(16))
    superblock = core_verity.Superblock(blocks, salt, uuid).encode()
    for name, flags, expected in (
        ("with", [f"--uuid={_text(uuid)}"], superblock + bytes(tree)),
        ("without", ["--no-superblock"], bytes(tree)),
    ):
        hashes = tmp_path / name
        hashes.touch()
        said = bench.tool(
            "veritysetup", "format", tmp_path / "data", hashes,
            f"--salt={salt.hex() or '-'}", *flags,
        )  # fmt: skip
        assert f"Root hash:      \t{root.hex()}" in said
        assert hashes.read_bytes() == expected


def _text(uuid: bytes) -> str:
    digits = uuid.hex()
    parts = digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]
    return "-".join(parts)


def test_a_root_is_padded_and_verified(bench: Bench) -> None:
    """Behind the data come superblock and tree; veritysetup agrees, so do we."""
    root, made = bench.root, bench.home / "root.verity"
    assert root.data_blocks == 171
    assert made.stat().st_size == (171 + 1 + 3) * BLOCK
    assert made.read_bytes().startswith((bench.home / "root").read_bytes())
    assert verity.read_root(made) == root
    assert verity.rehearse(bench.home / "root", root.salt) == root
    where = f"--hash-offset={171 * BLOCK}"
    bench.tool("veritysetup", "verify", where, made, made, root.root_hash.hex())
    with pytest.raises(InvalidConfigError, match="veritysetup ended with status"):
        bench.tool("veritysetup", "verify", where, made, made, "00" * 32)


def test_a_superblock_inside_the_data_is_passed_over(
    bench: Bench, tmp_path: Path
) -> None:
    """The file system may hold an image with a tree of its own."""
    assert bench.root.data_blocks
    inner = (bench.home / "root.verity").read_bytes()
    odd = b"verity\0\0".ljust(BLOCK, b"x")
    (tmp_path / "data").write_bytes(odd + inner)
    made = verity.append(tmp_path / "data", tmp_path / "out", bytes(32), bench.tools)
    assert verity.read_root(tmp_path / "out") == made


def test_roots_that_are_none(bench: Bench, tmp_path: Path) -> None:
    """Empty, without a tree, a short salt: refused, and nothing is left behind."""
    empty = tmp_path / "empty"
    empty.touch()
    acts: tuple[Callable[[], object], ...] = (
        lambda: verity.append(empty, tmp_path / "out", bytes(32), bench.tools),
        lambda: verity.append(empty, tmp_path / "out", bytes(31), bench.tools),
        lambda: verity.append(tmp_path / "no", tmp_path / "out", bytes(32), Tools()),
        lambda: verity.rehearse(empty, bytes(32)),
        lambda: verity.rehearse(tmp_path / "no", bytes(32)),
        lambda: verity.read_root(bench.home / "kernel"),
        lambda: verity.read_root(tmp_path / "no"),
    )
    for act in acts:
        with pytest.raises(InvalidConfigError):
            act()
    assert list(tmp_path.iterdir()) == [empty]


# ── UKI ──────────────────────────────────────────────────────────────────────────────
def test_D13_a_signed_uki(bench: Bench) -> None:
    """The kernel last, every section on a page of its own, the command line closed."""
    made = bench.uki("a.efi", bench.key("db"))
    found = uki.look(made.path)
    names = [section.name for section in found.sections]
    assert names[-5:] == [".osrel", ".cmdline", ".uname", ".initrd", ".linux"]
    pages = [section.address for section in found.sections[-5:]]
    assert pages[:4] == [0x1A000, 0x1B000, 0x1C000, 0x1D000]
    assert max(section.address for section in found.sections) == pages[-1]
    raw = made.path.read_bytes()
    line = found.content(lambda at, size: raw[at : at + size], ".cmdline", 4096)
    assert line == bench.line.encode() + b"\0"
    said = bench.tool("sbverify", "--cert", bench.key("db").certificate, made.path)
    assert "Signature verification OK" in said
    assert uki.is_signed(made.path)


def test_D14_the_unsigned_file_is_reproducible(bench: Bench) -> None:
    """A signature has the time in it; so a UKI is named by both digests."""
    first = bench.uki("b1.efi", bench.key("db"))
    time.sleep(1.1)
    second = bench.uki("b2.efi", bench.key("db"))
    plain = bench.uki("b3.efi", None)
    assert first.unsigned_sha256 == second.unsigned_sha256 == plain.sha256
    assert first.sha256 != second.sha256
    assert not uki.is_signed(plain.path)


def test_a_foreign_key_is_told_apart(bench: Bench) -> None:
    """Another certificate, a changed byte, a file that is signed already."""
    made = bench.uki("c.efi", bench.key("db")).path
    foreign = bench.key("foreign").certificate
    with pytest.raises(RefusedError, match="is not signed by"):
        looking.look(made, bench.tools, foreign)
    raw = bytearray(made.read_bytes())
    raw[-200_000] ^= 1
    changed = made.with_name("changed.efi")
    changed.write_bytes(raw)
    assert not uki.is_signed(changed)
    with pytest.raises(RefusedError, match="that of another file"):
        looking.look(changed, bench.tools)
    with pytest.raises(RefusedError, match="signed already"):
        uki.sign(made, bench.home / "twice.efi", bench.key("db"), bench.tools)


def test_a_loader_is_signed(bench: Bench) -> None:
    """systemd-boot of Debian."""
    out = bench.home / "BOOTX64.EFI"
    made = uki.sign(toolbox.file(LOADER), out, bench.key("db"), bench.tools)
    told = looking.look(out, bench.tools, bench.key("db").certificate)
    assert told["kind"] == "PE file"
    assert told["signature"] == ["/CN=db"]
    assert told["signed_by"]["subject"] == "CN=db"
    assert told["sha256"] == made.sha256.hex()


def test_texts_that_cannot_stand_there() -> None:
    """A name with a quote or a line break would be another os-release file."""
    for text in ("", 'a"b', "a\nb", "\u00e9"):
        with pytest.raises(InvalidConfigError):
            uki.os_release("demo", text)


# ── FIT ──────────────────────────────────────────────────────────────────────────────
def test_a_signed_fit(bench: Bench) -> None:
    """Kernel, tree and RAM disk under one signature; the control tree requires it."""
    base, control = bench.home / "board.dtb", bench.home / "control.dtb"
    made = bench.fit("a.itb", bench.key("fit"), control=(base, control))
    raw = made.path.read_bytes()
    lines = command_lines(BootKind.FIT, lambda a, n: raw[a : a + n], len(raw))
    assert lines == (bench.line,)
    assert fit.read_key(control, "fit", bench.tools) == "conf"
    assert "sha256,rsa2048:fit" in bench.tool("dumpimage", "-l", made.path)
    told = looking.look(made.path, bench.tools, bench.key("fit").certificate)
    assert told["signed_by"]["subject"] == "CN=fit"
    assert told["command_lines"] == [bench.line]
    [signature] = told["configurations"]["conf"]["signature"]
    assert signature["covers"] == ["kernel", "fdt", "ramdisk"]
    assert looking.look(control, bench.tools)["keys"] == {"key-fit": "conf"}
    assert looking.look(base, bench.tools)["keys"] == {}


def test_a_fit_of_another_key_or_changed(bench: Bench, tmp_path: Path) -> None:
    """What mkimage signed, verified without it: any covered byte counts."""
    signed = bench.fit("b.itb", bench.key("fit")).path
    with pytest.raises(RefusedError, match="is not signed by"):
        looking.look(signed, bench.tools, bench.key("foreign").certificate)
    raw, own = signed.read_bytes(), bench.key("fit").certificate
    kernel = raw.index((bench.home / "kernel").read_bytes()[:64])
    for at, name in (
        (raw.index(b"initial RAM disk"), "a description"),
        (kernel + 1000, "the kernel"),
        (raw.index(bench.line.encode()), "the command line"),
        (raw.index(b"data\0"), "a name"),
    ):
        changed = bytearray(raw)
        changed[at] ^= 1
        (tmp_path / "changed.itb").write_bytes(changed)
        with pytest.raises(RefusedError):
            looking.look(tmp_path / "changed.itb", bench.tools, own)
        assert name


def test_a_25_what_a_fit_s_signature_does_not_cover(
    bench: Bench, tmp_path: Path
) -> None:
    """Its time and who signed may change: the line and the verdict stay."""
    signed = bench.fit("c.itb", bench.key("fit")).path
    other = tmp_path / "other.itb"
    shutil.copyfile(signed, other)
    node = "/configurations/conf/signature"
    bench.tool("fdtput", "-t", "s", other, node, "signer-name", "mkimagE")
    bench.tool("fdtput", "-t", "x", other, node, "timestamp", "1234")
    told = looking.look(other, bench.tools, bench.key("fit").certificate)
    assert told["sha256"] != looking.look(signed, bench.tools)["sha256"]
    assert told["command_lines"] == [bench.line]


def test_mkimage_that_does_not_sign_is_found_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with 0 when it has no key; what it made is looked at."""
    monkeypatch.setattr(fit, "_keys", lambda *_: (str(bench.home), ()))
    with pytest.raises(RefusedError, match="mkimage made no signed image"):
        bench.fit("unsigned.itb", bench.key("fit"))
    assert not (bench.home / "unsigned.itb").exists()


@pytest.mark.parametrize("bad", ['a"b', "a\\b", "a\nb"])
def test_words_that_would_end_the_source(bench: Bench, bad: str) -> None:
    """The source of the image is text; nothing that is given can break out of it."""
    with pytest.raises(InvalidConfigError, match="FIT source"):
        bench.fit("x.itb", bench.key("fit"), line=bad)
    with pytest.raises(InvalidConfigError):
        bench.fit("x.itb", bench.key("fit"), name="a b")


TWO = """/dts-v1/;
/ {{
    description = "two"; #address-cells = <1>;
    images {{
        kernel {{ data = /incbin/("{d}/kernel"); type = "kernel"; arch = "arm64";
            os = "linux"; compression = "none"; load = <0>; entry = <0>;
            hash-1 {{ algo = "sha256"; }}; }};
        ramdisk {{ data = /incbin/("{d}/initrd"); type = "ramdisk"; arch = "arm64";
            os = "linux"; compression = "none"; hash-1 {{ algo = "sha256"; }}; }};
        fdt-1 {{ data = /incbin/("{d}/one.dtb"); type = "flat_dt"; arch = "arm64";
            compression = "none"; hash-1 {{ algo = "sha256"; }}; }};
        fdt-2 {{ data = /incbin/("{d}/two.dtb"); type = "flat_dt"; arch = "arm64";
            compression = "none"; hash-1 {{ algo = "sha256"; }}; }};
    }};
    configurations {{
        default = "conf-1";
        conf-1 {{ kernel = "kernel"; fdt = "fdt-1"; ramdisk = "ramdisk";
            signature {{ algo = "sha256,rsa2048"; key-name-hint = "fit";
                sign-images = "kernel", "fdt", "ramdisk"; }}; }};
        conf-2 {{ kernel = "kernel"; fdt = "fdt-2"; ramdisk = "ramdisk";
            signature {{ algo = "sha256,rsa2048"; key-name-hint = "fit";
                sign-images = "kernel", "fdt", "ramdisk"; }}; }};
    }};
}};
"""


def test_D25_images_swapped_between_two_signed_configurations(
    bench: Bench, tmp_path: Path
) -> None:
    """Each configuration is signed, and the image of one cannot serve the other.

    Where one of them admits another root, the image as a whole is refused, whichever is
    the default; so are the node paths of a signature that is moved.
    """
    for name in ("kernel", "initrd"):
        shutil.copyfile(bench.home / name, tmp_path / name)
    other = bench.line.replace(bench.root.root_hash.hex(), "00" * 32)
    for name, line in (("one", bench.line), ("two", other)):
        shutil.copyfile(bench.home / "board.dtb", tmp_path / f"{name}.dtb")
        bench.tool(
            "fdtput", "-p", "-t", "s", tmp_path / f"{name}.dtb", "/chosen", "bootargs",
            line,
        )  # fmt: skip
    (tmp_path / "two.its").write_text(TWO.format(d=tmp_path))
    two = tmp_path / "two.itb"
    bench.tool("mkimage", "-f", tmp_path / "two.its", "-k", bench.home / "keys", two)
    bench.root  # noqa: B018  has the image made
    with pytest.raises(RefusedError, match="another roothash"):
        image.join(bench.home / "root.verity", two, tmp_path / "slot.img")
    assert not (tmp_path / "slot.img").exists()
    # One configuration names the device tree of the other: its signature does not.
    bench.tool("fdtput", "-t", "s", two, "/configurations/conf-2", "fdt", "fdt-1")
    raw = two.read_bytes()
    with pytest.raises(BootError, match="no signature covers all"):
        command_lines(BootKind.FIT, lambda at, size: raw[at : at + size], len(raw))


# ── keys ─────────────────────────────────────────────────────────────────────────────
def test_keys_are_made_once(bench: Bench, tmp_path: Path) -> None:
    """Private halves are closed to others; nothing is ever replaced."""
    prints = keys.make(tmp_path / "new", ["db"], NOW)
    assert (tmp_path / "new/db.key").stat().st_mode & 0o777 == 0o600
    assert looking.look(tmp_path / "new/db.crt", Tools())["sha256"] == prints["db"]
    with pytest.raises(InvalidConfigError, match="exists already"):
        keys.make(tmp_path / "new", ["PK", "db"], NOW)
    assert not (tmp_path / "new/PK.key").exists()
    with pytest.raises(RefusedError):
        keys.make(tmp_path / "new", ["../x"], NOW)
    with pytest.raises(InvalidInputError, match="is a private key"):
        looking.look(tmp_path / "new/db.key", Tools())


def test_a_key_and_its_certificate_belong_together(bench: Bench) -> None:
    """The certificate of another key, and a key that is not RSA, are refused."""
    place = bench.home / "keys"
    mixed = SigningKey(str(place / "db.key"), place / "fit.crt")
    with pytest.raises(RefusedError, match="is not the key of"):
        bench.uki("mixed.efi", mixed)
    with pytest.raises(InvalidConfigError, match="holds no certificate"):
        bench.uki("mixed.efi", SigningKey(str(place / "db.key"), place / "db.key"))


def test_a_key_with_a_passphrase_is_opened_in_memory(
    bench: Bench, tmp_path: Path
) -> None:
    """The tool gets the plain key as a file of its memory; the disk never has it."""
    locked = tmp_path / "db.key"
    private = keys.load_private(bench.home / "keys/db.key", None)
    locked.write_bytes(
        private.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    locked.chmod(0o600)
    key = SigningKey(str(locked), bench.home / "keys/db.crt")
    loader, out = toolbox.file(LOADER), tmp_path / "out.efi"
    uki.sign(loader, out, key, bench.tools, lambda _what: "secret")
    assert uki.is_signed(out)
    with pytest.raises(PassphraseError):
        uki.sign(loader, out, key, bench.tools, lambda _what: "wrong")
    with pytest.raises(PassphraseError):
        uki.sign(loader, out, key, bench.tools)


def test_a_missing_tool_names_its_package(bench: Bench) -> None:
    """Each program we start has one."""
    bare = Tools({"PATH": "/nowhere"})
    for name, package in PACKAGES.items():
        with pytest.raises(MissingToolError) as caught:
            bare.find(name)
        assert package in str(caught.value.hint)
    with pytest.raises(MissingToolError) as caught:
        bare.library("engines-3/none.so", "libengine-pkcs11-openssl")
    assert "libengine-pkcs11-openssl" in str(caught.value.hint)
    assert not bare.has("sbsign")
    missing = Path("/usr/lib/systemd/boot/efi/none.efi")
    with pytest.raises(MissingToolError) as caught:
        uki.sign(missing, bench.home / "x.efi", bench.key("db"), bench.tools)
    assert bench.tools.file(Path("/usr/share/none/x")) == Path("/usr/share/none/x")
    assert "systemd-boot-efi" in str(caught.value.hint)


def _pair(
    place: Path, private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
) -> SigningKey:
    """A key of any kind, with a certificate of its own."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "odd")])
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, NOW, NOW)
    certificate = builder.sign(private, hashes.SHA256())
    (place / "odd.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (place / "odd.key").touch(mode=0o600)
    (place / "odd.key").write_bytes(pem)
    return SigningKey(str(place / "odd.key"), place / "odd.crt")


def test_b_12_keys_firmware_does_not_take(bench: Bench, tmp_path: Path) -> None:
    """RSA with 1024 bits, and ECDSA: refused before a tool is asked."""
    made = (
        rsa.generate_private_key(65537, 1024),
        ec.generate_private_key(ec.SECP256R1()),
    )
    for private in made:
        with pytest.raises(RefusedError, match="not of an RSA key of 2048 bits"):
            bench.uki("odd.efi", _pair(tmp_path, private))
    assert not (bench.home / "odd.efi").exists()


def test_a_private_key_that_others_may_read(bench: Bench, tmp_path: Path) -> None:
    """Refused, as at the desk; so is what is no key."""
    key = tmp_path / "db.key"
    key.write_bytes((bench.home / "keys/db.key").read_bytes())
    key.chmod(0o644)
    pair = SigningKey(str(key), bench.key("db").certificate)
    with pytest.raises(KeyUnreadableError, match="others may open it"):
        bench.uki("open.efi", pair)
    key.chmod(0o600)
    key.write_bytes(b"no key")
    with pytest.raises(KeyUnreadableError, match="no private key"):
        bench.uki("open.efi", pair)


def test_what_cannot_be_read_is_said(bench: Bench, tmp_path: Path) -> None:
    """A missing part leaves nothing behind."""
    none = tmp_path / "none"
    parts = fit.Fit(none, bench.home / "board.dtb", none, bench.line, LOAD)
    acts: tuple[Callable[[], object], ...] = (
        lambda: fit.make(
            parts, tmp_path / "a", bench.key("fit"), bench.tools, name="fit"
        ),
        lambda: image.join(bench.home / "root.verity", none, tmp_path / "b"),
        lambda: image.join(none, none, tmp_path / "b"),
        lambda: uki.look(none),
        lambda: uki.look(bench.home / "kernel"),
        lambda: fit.read_key(bench.home / "board.dtb", "fit", bench.tools),
        lambda: uki.make(
            uki.Uki(none, none, bench.line, "x"), tmp_path / "c", None, bench.tools
        ),
    )
    assert bench.root.data_blocks
    for act in acts:
        with pytest.raises(InvalidConfigError):
            act()
    assert not list(tmp_path.iterdir())


# ── tokens ───────────────────────────────────────────────────────────────────────────
@pytest.fixture
def boot_tokens(tmp_path: Path) -> Iterator[Tokens]:
    with tokens(tmp_path / "p11") as found:
        for label, kind in (("db", "rsa:2048"), ("mcu", "EC:prime256v1")):
            subprocess.run(
                [
                    *(toolbox.program("pkcs11-tool"), "--module", str(found.module)),
                    *("--token-label", "device", "--login", "--pin", PIN),
                    *("--keypairgen", "--key-type", kind, "--label", label),
                    *("--id", "02" if label == "db" else "05"),
                ],
                env=found.environ,
                check=True,
                capture_output=True,
            )
        yield found


def test_keys_on_a_token(bench: Bench, boot_tokens: Tokens, tmp_path: Path) -> None:
    """By OpenSSL's engine for sbsign and mkimage; imgtool says what is to be signed."""
    tools = Tools({**bench.tools._environment, **boot_tokens.environ})
    certificate = _certificate(boot_tokens, tools, tmp_path)
    key = SigningKey(boot_tokens.address("db"), certificate)
    loader = toolbox.file(LOADER)
    uki.sign(loader, tmp_path / "loader.efi", key, tools)
    told = looking.look(tmp_path / "loader.efi", tools, certificate)
    assert told["signed_by"]["subject"] == "CN=token"
    parts = fit.Fit(
        bench.home / "kernel", bench.home / "board.dtb", bench.home / "initrd",
        bench.line, LOAD,
    )  # fmt: skip
    control = tmp_path / "control.dtb"
    fit.make(
        parts, tmp_path / "a.itb", key, tools, name="fit",
        control=(bench.home / "board.dtb", control),
    )  # fmt: skip
    assert fit.read_key(control, "fit", tools) == "conf"
    wrong = SigningKey(boot_tokens.address("db", pin="9999"), certificate)
    with pytest.raises(PassphraseError):
        uki.sign(loader, tmp_path / "no.efi", wrong, tools)
    by_id = key.private.replace("object=db", "id=%02")
    with pytest.raises(InvalidConfigError, match="by its label only"):
        fit.make(
            parts, tmp_path / "b.itb", SigningKey(by_id, certificate), tools, name="fit"
        )
    uki.sign(loader, tmp_path / "id.efi", SigningKey(by_id, certificate), tools)
    made = mcu.make(
        _program(tmp_path), tmp_path / "m", boot_tokens.address("mcu"), tools
    )
    assert made.image.counter == 5


def _certificate(found: Tokens, tools: Tools, place: Path) -> Path:
    """A certificate the token signs for itself; OpenSSL asks it through the engine."""
    settings = place / "openssl.cnf"
    engine = tools.library(*keys.ENGINE)
    settings.write_text(
        keys._SETTINGS.format(engine=engine, module=found.module, pin=PIN)
        + "[req]\ndistinguished_name = dn\n[dn]\n"
    )
    out = place / "token.crt"
    subprocess.run(
        [
            *("openssl", "req", "-new", "-x509", "-subj", "/CN=token", "-days", "30"),
            *("-engine", "pkcs11", "-keyform", "engine"),
            *("-key", "pkcs11:token=device;object=db;type=private", "-out", str(out)),
        ],
        env={**found.environ, "OPENSSL_CONF": str(settings)},
        check=True,
        capture_output=True,
    )
    return out


# ── microcontrollers ─────────────────────────────────────────────────────────────────
def _program(place: Path) -> mcu.Mcu:
    (place / "app.bin").write_bytes(bytes(range(256)) * 40)
    return mcu.Mcu(place / "app.bin", "2.0.0+7", 5, 0x20000)


def test_D33_an_image_for_mcuboot(bench: Bench, tmp_path: Path) -> None:
    """Verified with the public half; another's is refused, and so is a changed byte."""
    for name in ("mcu", "foreign"):
        mcu.make_key(tmp_path / f"{name}.key")
    out = tmp_path / "signed.bin"
    made = mcu.make(_program(tmp_path), out, str(tmp_path / "mcu.key"), bench.tools)
    assert (made.image.version, made.image.counter) == ("2.0.0+7", 5)
    assert made.sha256 != made.image.digest  # what SMP calls sha, and hash
    told = looking.look(out, bench.tools, tmp_path / "mcu.pub")
    assert told["image_hash"] == made.image.digest.hex()
    with pytest.raises(RefusedError, match="is not signed by"):
        looking.look(out, bench.tools, tmp_path / "foreign.pub")
    bench.tool("imgtool", "verify", out)  # without a key, any signer will do
    raw = bytearray(out.read_bytes())
    raw[0x300] ^= 1
    out.write_bytes(raw)
    with pytest.raises(RefusedError, match="not of its bytes"):
        looking.look(out, bench.tools)


def test_images_for_mcuboot_that_are_none(bench: Bench, tmp_path: Path) -> None:
    """Cut anywhere: refused, and never more than a refusal."""
    mcu.make_key(tmp_path / "mcu.key")
    out = tmp_path / "out"
    mcu.make(_program(tmp_path), out, str(tmp_path / "mcu.key"), bench.tools)
    raw = out.read_bytes()
    assert mcu.read_image(raw).counter == 5
    for length in (0, 10, 31, 600, *range(len(raw) - 180, len(raw))):
        with pytest.raises(MalformedError):
            mcu.read_image(raw[:length])


def test_images_for_mcuboot_of_other_kinds_of_keys(
    bench: Bench, tmp_path: Path
) -> None:
    """RSA of the boot chain serves, too."""
    key = bench.home / "keys/db.key"
    made = mcu.make(_program(tmp_path), tmp_path / "out", str(key), bench.tools)
    assert made.image.key_hash is not None


# ── enrolment ────────────────────────────────────────────────────────────────────────
def bare_files(tools: Tools) -> Tools:
    """The programs, and no data file beside them."""
    paths = tools._environment["PATH"].split(os.pathsep)
    kept = [path for path in paths if not path.endswith("/usr/bin")]
    return Tools({**tools._environment, "PATH": os.pathsep.join(kept)})


def test_D37_enrolment_is_reproducible(bench: Bench, tmp_path: Path) -> None:
    """A store with Secure Boot on, and the files for Setup Mode: twice the same."""
    certificates = {n: bench.key(n).certificate for n in ("PK", "KEK", "db")}
    template = toolbox.file(STORE)
    made = []
    for name in ("one", "two"):
        place = tmp_path / name
        place.mkdir()
        found = enrol.enrol(
            certificates, bench.tools, store=place / "vars.fd", auth=place / "auth",
            template=template,
        )  # fmt: skip
        made.append(list(found.files.values()))
    assert made[0] == made[1]
    assert len(made[0]) == 5
    assert "option ROM" in str(found.to_json()["warning"])
    said = bench.tool("virt-fw-vars", "-i", tmp_path / "one/vars.fd", "-p", "-v")
    assert "subject CN=db" in said
    assert said.count("bool: ON") == 1
    with pytest.raises(MissingToolError) as caught:
        enrol.enrol(certificates, bare_files(bench.tools), store=tmp_path / "x")
    assert "ovmf" in str(caught.value.hint)


# ── the image of a slot ──────────────────────────────────────────────────────────────
def test_root_and_boot_file_as_one_image(bench: Bench, tmp_path: Path) -> None:
    """Joined, checked from the bytes, and told in facts that read back."""
    boot = bench.uki("joined.efi", bench.key("db")).path
    out = tmp_path / "slot.img"
    facts = image.join(bench.home / "root.verity", boot, out)
    assert image.read_facts(tmp_path / "slot.img.boot.json") == facts
    raw = out.read_bytes()
    assert len(raw) % BLOCK == 0
    assert raw[facts.offset :][: facts.length] == boot.read_bytes()
    check(facts, lambda at, size: raw[at : at + size], len(raw))
    told = looking.look(out, bench.tools)
    assert (told["kind"], told["boot_file_signed"]) == ("slot image", True)
    out.write_bytes(raw[:BLOCK] + b"x" + raw[BLOCK + 1 :])
    with pytest.raises(RefusedError, match="do not agree"):
        looking.look(out, bench.tools)


def test_a_boot_file_at_an_offset_u_boot_knows(bench: Bench, tmp_path: Path) -> None:
    """Between the tree and it are zeros; an offset inside the tree is refused."""
    boot = bench.fit("offset.itb", bench.key("fit")).path
    bench.root  # noqa: B018  has the image made
    out = tmp_path / "slot.img"
    root = bench.home / "root.verity"
    facts = image.join(root, boot, out, offset=4 << 20)
    assert facts.offset == 4 << 20
    assert out.read_bytes()[175 * BLOCK : 4 << 20].strip(b"\0") == b""
    for bad in (170 * BLOCK, (4 << 20) + 512):
        with pytest.raises(RefusedError, match="cannot lie"):
            image.join(root, boot, tmp_path / "bad.img", offset=bad)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "slot.img",
        "slot.img.boot.json",
    ]


def test_c_11_another_release_s_boot_file(bench: Bench, tmp_path: Path) -> None:
    """The desk refuses what a device would refuse."""
    line = bench.line.replace(bench.root.root_hash.hex(), "00" * 32)
    boot = bench.uki("other.efi", bench.key("db"), line).path
    with pytest.raises(RefusedError, match="another roothash"):
        image.join(bench.home / "root.verity", boot, tmp_path / "slot.img")
    with pytest.raises(InvalidConfigError, match="neither a UKI nor a FIT"):
        image.join(bench.home / "root.verity", bench.home / "kernel", tmp_path / "x")


def test_D37_the_same_input_is_the_same_image(bench: Bench, tmp_path: Path) -> None:
    """File system, tree, unsigned UKI, signed FIT, slot image: built twice."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "init").write_text("#!/bin/sh\n")
    made: list[list[bytes]] = []
    for name in ("one", "two"):
        place = tmp_path / name
        place.mkdir()
        os.utime(tree / "init")
        bench.tool(
            "mksquashfs", tree, place / "root", "-all-root", "-mkfs-time", "0",
            "-all-time", "0", "-noappend", "-quiet", "-no-progress",
        )  # fmt: skip
        salt = verity.salt_of("demo-1.2.0")
        root = verity.append(place / "root", place / "verity", salt, bench.tools)
        line = " ".join(root.words)
        signed = bench.fit(f"{name}.itb", bench.key("fit"), line).path
        plain = bench.uki(f"{name}.efi", None, line).path
        image.join(place / "verity", signed, place / "slot")
        files = (place / "verity", signed, plain, place / "slot")
        made.append([path.read_bytes() for path in files])
        time.sleep(1.1)
    assert made[0] == made[1]


def test_what_is_no_part_of_a_boot_chain(bench: Bench) -> None:
    """It is said what would be one."""
    with pytest.raises(InvalidInputError, match="nothing a boot chain is made of"):
        looking.look(bench.home / "initrd", bench.tools)
    with pytest.raises(InvalidConfigError):
        looking.look(bench.home / "none", bench.tools)
    with pytest.raises(RefusedError, match="has no signature"):
        own = bench.key("db").certificate
        looking.look(bench.home / "board.dtb", bench.tools, own)
    broken = bench.home / "broken.efi"
    broken.write_bytes(b"MZ" + bytes(100))
    with pytest.raises(RefusedError):
        looking.look(broken, bench.tools)


def test_sections_as_objcopy_sees_them(bench: Bench, tmp_path: Path) -> None:
    """What our reader gives is what the other tool takes out."""
    made = bench.uki("sections.efi", bench.key("db")).path
    out = tmp_path / "cmdline"
    bench.tool(
        "objcopy", "--only-section=.cmdline", "-O", "binary", made, out,
    )  # fmt: skip
    raw = made.read_bytes()
    found = read_pe(lambda at, size: raw[at : at + size], len(raw))
    mine = found.content(lambda at, size: raw[at : at + size], ".cmdline", 4096)
    assert out.read_bytes().rstrip(b"\0") + b"\0" == mine
