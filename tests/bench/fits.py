"""FIT images as somebody without the key would make them out of signed ones.

Every function takes a signed FIT and gives another file. Nodes and properties are
changed by ``fdtput``, as an attacker would; the images inside are those of releases.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from tests.bench import disk, uboot_release
from tests.bench.uboot_release import KEY, Release

CONF = "/configurations/conf"
ALGORITHM = "sha256,rsa2048"


class Tree:
    """A device tree file that is changed in place."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def text(self, node: str, name: str) -> str:
        """A property that is a text."""
        return disk.run("fdtget", self.path, node, name).strip()

    def data(self, node: str, name: str) -> bytes:
        """A property as bytes."""
        words = disk.run("fdtget", "-t", "bx", self.path, node, name).split()
        return bytes(int(word, 16) for word in words)

    def names(self, node: str) -> list[str]:
        """The properties of a node."""
        return disk.run("fdtget", "-p", self.path, node).split()

    def set(self, node: str, name: str, value: str | bytes) -> None:
        """Set a property."""
        if isinstance(value, str):
            disk.run("fdtput", "-t", "s", self.path, node, name, value)
        else:
            words = [f"{byte:x}" for byte in value]
            disk.run("fdtput", "-t", "bx", self.path, node, name, *words)

    def make(self, node: str) -> None:
        """A node without properties."""
        disk.run("fdtput", "-c", self.path, node)

    def remove(self, node: str) -> None:
        """A node and all in it."""
        disk.run("fdtput", "-r", self.path, node)

    def copy(self, node: str, source: str) -> None:
        """A node like another one, without what lies below it."""
        self.make(node)
        for name in self.names(source):
            self.set(node, name, self.data(source, name))


def unsigned(release: Release, into: Path) -> Path:
    """The same without a signature."""
    tree = Tree(shutil.copyfile(release.fit, into))
    tree.remove(f"{CONF}/signature")
    return into


def foreign(release: Release, into: Path) -> Path:
    """The same, signed by another key of the same name."""
    words = release.command_line.removeprefix(uboot_release.COMMAND_LINE).split()
    place = into.parent / "foreign"
    place.mkdir()
    made = uboot_release.sign(place, tuple(words), signer="foreign")
    return made.path.rename(into)


def flipped(release: Release, into: Path) -> Path:
    """One bit of the kernel the other way round."""
    shutil.copyfile(release.fit, into)
    with into.open("r+b") as file:
        at = into.stat().st_size // 2  # the kernel is most of it
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    return into


def rehashed(release: Release, into: Path) -> Path:
    """Another command line, and the hash of its image put right; only that is signed."""
    tree = Tree(shutil.copyfile(release.fit, into))
    _evil_tree(tree, "/images/fdt", into)
    return into


def borrowed(release: Release, into: Path) -> Path:
    """A configuration of one's own with the signature of another (CVE-2026-46728).

    The signature lists the nodes it covers, and that list is not covered: a loader that
    goes by it checks the old configuration and starts the new one.
    """
    tree = Tree(shutil.copyfile(release.fit, into))
    tree.copy("/images/fdt-evil", "/images/fdt")
    tree.copy("/images/fdt-evil/hash-1", "/images/fdt/hash-1")
    _evil_tree(tree, "/images/fdt-evil", into)
    tree.copy("/configurations/evil", CONF)
    tree.set("/configurations/evil", "fdt", "fdt-evil")
    tree.copy("/configurations/evil/signature", f"{CONF}/signature")
    tree.set("/configurations", "default", "evil")
    return into


def _evil_tree(tree: Tree, node: str, beside: Path) -> None:
    """A device tree with another command line as the image at ``node``, and its hash."""
    inner = beside.with_suffix(".dtb")
    inner.write_bytes(tree.data(node, "data"))
    Tree(inner).set("/chosen", "bootargs", "console=ttyAMA0 init=/bin/sh")
    content = inner.read_bytes()
    tree.set(node, "data", content)
    tree.set(f"{node}/hash-1", "value", hashlib.sha256(content).digest())


# ── two configurations in one image ──────────────────────────────────────────────────
def both(first: Release, second: Release, into: Path) -> Path:
    """One image with the configurations of two releases, both signed by the vendor.

    ``sealift release secure-boot fit`` makes no such image; others do.
    """
    place = into.parent / "both"
    place.mkdir()
    for number, one in enumerate((first, second), 1):
        data = Tree(one.fit).data("/images/fdt", "data")
        (place / f"fdt-{number}").write_bytes(data)
    source = place / "both.its"
    parts = uboot_release.parts()
    source.write_text(_BOTH.format(parts=parts, place=place, key=KEY, algo=ALGORITHM))
    disk.run("mkimage", "-f", source, "-k", uboot_release.keys(), "-r", into)
    shutil.rmtree(place)
    return into


def swapped(first: Release, second: Release, into: Path) -> Path:
    """An image of one of them in the configuration of the other (device-D25)."""
    tree = Tree(both(first, second, into))
    tree.set(CONF, "fdt", "fdt-2")
    return into


_BOTH = """/dts-v1/;
/ {{
    description = "two releases";
    #address-cells = <1>;
    images {{
        kernel {{
            data = /incbin/("{parts}/kernel");
            type = "kernel"; arch = "arm64"; os = "linux"; compression = "none";
            load = <0x40400000>; entry = <0x40400000>;
            hash-1 {{ algo = "sha256"; }};
        }};
        ramdisk {{
            data = /incbin/("{parts}/initrd");
            type = "ramdisk"; arch = "arm64"; os = "linux"; compression = "none";
            hash-1 {{ algo = "sha256"; }};
        }};
        fdt-1 {{
            data = /incbin/("{place}/fdt-1");
            type = "flat_dt"; arch = "arm64"; compression = "none";
            hash-1 {{ algo = "sha256"; }};
        }};
        fdt-2 {{
            data = /incbin/("{place}/fdt-2");
            type = "flat_dt"; arch = "arm64"; compression = "none";
            hash-1 {{ algo = "sha256"; }};
        }};
    }};
    configurations {{
        default = "conf";
        conf {{
            kernel = "kernel"; ramdisk = "ramdisk"; fdt = "fdt-1";
            signature {{
                algo = "{algo}"; key-name-hint = "{key}";
                sign-images = "kernel", "fdt", "ramdisk";
            }};
        }};
        other {{
            kernel = "kernel"; ramdisk = "ramdisk"; fdt = "fdt-2";
            signature {{
                algo = "{algo}"; key-name-hint = "{key}";
                sign-images = "kernel", "fdt", "ramdisk";
            }};
        }};
    }};
}};
"""
