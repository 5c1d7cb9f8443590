"""Small images that boot verified: a root with its tree, and a boot file for it.

All is real but what would run: readers of ``core`` take them as they take those the
desk makes with the standard tools. The signatures in them are made up; they are the
loader's matter.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from sealift.core import verity
from sealift.core.bootable import words
from sealift.core.types import Bootable, BootKind
from sealift.sim.loaders.uki import pe_file

__all__ = [
    "fit_file",
    "fit_tree",
    "joined",
    "line_for",
    "root_of",
    "tree_file",
    "uki_file",
]

_PAGE: Final = verity.BLOCK


# ── roots ────────────────────────────────────────────────────────────────────────────
def root_of(data: bytes, salt: bytes) -> tuple[bytes, bytes]:
    """The data with superblock and tree behind it; its root hash."""
    blocks = len(data) // _PAGE
    tree = bytearray(verity.tree_blocks(blocks) * _PAGE)

    def write(offset: int, block: bytes) -> None:
        tree[offset : offset + len(block)] = block

    root = verity.build(
        lambda offset, length: data[offset : offset + length], blocks, salt, write
    )
    superblock = verity.Superblock(blocks, salt, bytes(16)).encode()
    return data + superblock + bytes(tree), root


def joined(
    data: bytes,
    salt: bytes,
    boot: bytes,
    kind: BootKind = BootKind.UKI,
    offset: int | None = None,
) -> tuple[bytes, Bootable]:
    """The image of a slot, and what is to be said of it; nothing is compared."""
    image, root = root_of(data, salt)
    place = len(image) if offset is None else offset
    return image.ljust(place, b"\0") + boot, Bootable(
        kind=kind,
        offset=place,
        length=len(boot),
        sha256=hashlib.sha256(boot).digest(),
        root_hash=root,
        salt=salt,
        data_blocks=len(data) // _PAGE,
    )


def line_for(data: bytes, salt: bytes) -> str:
    """A command line that admits this root."""
    _, root = root_of(data, salt)
    return " ".join(["quiet", *words(root, salt, len(data) // _PAGE)])


# ── boot files ───────────────────────────────────────────────────────────────────────
def uki_file(line: str) -> bytes:
    """A unified kernel image with that command line."""
    return pe_file({".cmdline": line.encode() + b"\0", ".linux": b"kernel"})


def fit_file(*lines: str) -> bytes:
    """A FIT image with a configuration for each command line."""
    return tree_file(fit_tree(*lines))


def fit_tree(*lines: str) -> dict[str, object]:
    """The tree of a FIT image, to be changed before it is written."""
    images: dict[str, object] = {
        "kernel": _image(b"kernel", "kernel"),
        "ramdisk": _image(b"ramdisk", "ramdisk"),
    }
    configurations: dict[str, object] = {"default": "conf-1"}
    for number, line in enumerate(lines, 1):
        tree = tree_file({"chosen": {"bootargs": line}})
        images[f"fdt-{number}"] = _image(tree, "flat_dt")
        uses = {"kernel": "kernel", "fdt": f"fdt-{number}", "ramdisk": "ramdisk"}
        nodes = ["/", f"/configurations/conf-{number}"]
        for name in uses.values():
            nodes += [f"/images/{name}", f"/images/{name}/hash-1"]
        configurations[f"conf-{number}"] = {
            **uses,
            "signature": {
                "algo": "sha256,rsa2048",
                "key-name-hint": "fit",
                "sign-images": list(uses),
                "hashed-nodes": nodes,
                "value": bytes(256),
            },
        }
    return {"images": images, "configurations": configurations}


def _image(content: bytes, kind: str) -> dict[str, object]:
    digest = hashlib.sha256(content).digest()
    return {
        "data": content,
        "type": kind,
        "compression": "none",
        "hash-1": {"algo": "sha256", "value": digest},
    }


# ── device trees ─────────────────────────────────────────────────────────────────────
def tree_file(tree: Mapping[str, object]) -> bytes:
    """A flattened device tree of version 17."""
    strings = bytearray()
    structure = _node("", tree, strings) + struct.pack(">I", 9)
    start = 56
    size = start + len(structure) + len(strings)
    header = struct.pack(
        ">10I", 0xD00DFEED, size, start, start + len(structure), 40, 17, 16, 0,
        len(strings), len(structure),
    )  # fmt: skip
    return header + bytes(16) + structure + bytes(strings)


def _node(name: str, tree: Mapping[str, object], strings: bytearray) -> bytes:
    out = struct.pack(">I", 1) + _padded(name.encode() + b"\0")
    for member, value in tree.items():
        if isinstance(value, Mapping):
            out += _node(member, value, strings)
        else:
            raw = _raw(value)
            out += struct.pack(">3I", 3, len(raw), len(strings)) + _padded(raw)
            strings += member.encode() + b"\0"
    return out + struct.pack(">I", 2)


def _raw(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, int):
        return struct.pack(">I", value)
    texts = [value] if isinstance(value, str) else value
    assert isinstance(texts, Sequence)  # noqa: S101  narrows the type
    return b"".join(str(text).encode() + b"\0" for text in texts)


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % 4)
