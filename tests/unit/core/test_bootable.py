"""Boot file, root and metadata of one release: three that agree, or a refusal."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sealift.core.bootable import check, check_line, command_lines, words
from sealift.core.errors import BootError, SlotError
from sealift.core.types import Bootable, BootKind
from sealift.sim.boot_files import (
    fit_file,
    fit_tree,
    joined,
    line_for,
    root_of,
    tree_file,
    uki_file,
)
from sealift.sim.loaders.uki import pe_file

SALT = bytes(range(32))
DATA = hashlib.shake_256(b"root").digest(131 * 4096)
OTHER = hashlib.shake_256(b"other").digest(131 * 4096)
LINE, STRANGE = line_for(DATA, SALT), line_for(OTHER, SALT)
UKI, FIT = BootKind.UKI, BootKind.FIT


def reader(raw: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: raw[offset : offset + length]


def judged(image: tuple[bytes, Bootable]) -> None:
    content, facts = image
    check(facts, reader(content), len(content))


@pytest.mark.parametrize("offset", [None, 1 << 20])
@pytest.mark.parametrize(("kind", "boot"), [(UKI, uki_file), (FIT, fit_file)])
def test_what_belongs_together(
    kind: BootKind, boot: Callable[[str], bytes], offset: int | None
) -> None:
    """A UKI or FIT behind its root, at once or at an offset a loader knows."""
    judged(joined(DATA, SALT, boot(LINE), kind, offset))


def test_one_block() -> None:
    """A root without a hash block (device-D16)."""
    data = DATA[:4096]
    judged(joined(data, SALT, uki_file(line_for(data, SALT))))


def test_memory_does_not_grow_with_the_image() -> None:
    """A root of 64 MiB, and a boot file of 64 MiB, in less than a MiB."""
    blocks, size = 1 << 14, 64 << 20
    zeros = bytes(4096)
    image, root = root_of(zeros * 2, SALT)
    tracemalloc.start()
    with pytest.raises(SlotError):
        check(
            Bootable(UKI, 1 << 27, size, bytes(32), root, SALT, blocks),
            lambda _offset, length: bytes(length),
            1 << 28,
        )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    assert image


# ── what does not belong together ────────────────────────────────────────────────────
def with_sections(**sections: bytes) -> bytes:
    return pe_file({f".{name}": content for name, content in sections.items()})


def fit_with(change: Callable[[Any], None], *lines: str) -> bytes:
    made: Any = fit_tree(*(lines or [LINE]))
    change(made)
    return tree_file(made)


def _without(*path: str) -> Callable[[Any], None]:
    def change(made: Any) -> None:
        for name in path[:-1]:
            made = made[name]
        del made[path[-1]]

    return change


def _with(value: object, *path: str) -> Callable[[Any], None]:
    def change(made: Any) -> None:
        for name in path[:-1]:
            made = made[name]
        made[path[-1]] = value

    return change


CONF = ("configurations", "conf-1")
REFUSED: dict[str, tuple[BootKind, bytes]] = {
    "another root's line": (UKI, uki_file(STRANGE)),
    "no root in the line": (UKI, uki_file("quiet")),
    "two roots in the line": (UKI, uki_file(f"{LINE} {STRANGE}")),
    "the same root twice": (UKI, uki_file(f"{LINE} {LINE}")),
    "a longer word": (UKI, uki_file(LINE + "0")),
    "quotes": (UKI, uki_file(f'"x {LINE}"')),
    "a tab": (UKI, uki_file(LINE.replace(" ", "\t"))),
    "a second line": (UKI, uki_file(LINE + "\nroothash")),
    "text behind the end": (UKI, uki_file(LINE + "\0" + STRANGE)),
    "not ASCII": (UKI, with_sections(cmdline=b"\xff" + LINE.encode(), linux=b"x")),
    "no command line": (UKI, with_sections(linux=b"x")),
    "no kernel": (UKI, with_sections(cmdline=LINE.encode())),
    "no PE file": (UKI, b"x" * 5000),
    "a FIT as a UKI": (UKI, fit_file(LINE)),
    "a UKI as a FIT": (FIT, uki_file(LINE)),
    "one of two configurations": (FIT, fit_file(LINE, STRANGE)),
    "the default": (FIT, fit_file(STRANGE, LINE)),
    "no bootargs": (FIT, fit_with(_with(tree_file({}), "images", "fdt-1", "data"))),
    "a packed tree": (FIT, fit_with(_with("gzip", "images", "fdt-1", "compression"))),
    "a tree that is none": (FIT, fit_with(_with(b"x" * 99, "images", "fdt-1", "data"))),
    "two trees": (FIT, fit_with(_with(["fdt-1", "fdt-1"], *CONF, "fdt"))),
    "no tree": (FIT, fit_with(_without(*CONF, "fdt"))),
    "no kernel in it": (FIT, fit_with(_without(*CONF, "kernel"))),
    "no signature": (FIT, fit_with(_without(*CONF, "signature"))),
    "an empty signature": (FIT, fit_with(_without(*CONF, "signature", "value"))),
    "a part uncovered": (
        FIT,
        fit_with(_with(["kernel", "fdt"], *CONF, "signature", "sign-images")),
    ),
    "a node uncovered": (
        FIT,
        fit_with(_with(["/"], *CONF, "signature", "hashed-nodes")),
    ),
    "more than is covered": (FIT, fit_with(_with("ramdisk", *CONF, "loadables"))),
    "no hash": (FIT, fit_with(_without("images", "kernel", "hash-1"))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_c_11_a_boot_file_that_is_not_for_this_root(name: str) -> None:
    """All of it is signed, and it does not belong together."""
    kind, boot = REFUSED[name]
    with pytest.raises(BootError):
        judged(joined(DATA, SALT, boot, kind))


def test_c_11_another_root_beside_the_right_boot_file() -> None:
    """Metadata and boot file agree; root, tree and superblock are another's."""
    boot = uki_file(LINE)
    content, _ = joined(OTHER, SALT, boot)
    _, facts = joined(DATA, SALT, boot)
    with pytest.raises(BootError):
        judged((content, facts))


def test_another_salt_in_the_superblock() -> None:
    """The superblock is of another tree."""
    boot = uki_file(LINE)
    content, _ = joined(DATA, bytes(32), boot)
    _, facts = joined(DATA, SALT, boot)
    with pytest.raises(BootError):
        judged((content, facts))


CONTENT, FACTS = joined(DATA, SALT, uki_file(LINE))


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, offset=FACTS.offset + 512),
        replace(FACTS, offset=FACTS.offset - 4096),
        replace(FACTS, offset=1 << 30),
        replace(FACTS, length=len(CONTENT)),
        replace(FACTS, data_blocks=FACTS.data_blocks + 1),
        replace(FACTS, data_blocks=1 << 30),
    ],
)
def test_parts_that_cannot_lie_there(facts: Bootable) -> None:
    """In each other, outside the image, or between blocks."""
    with pytest.raises(BootError):
        judged((CONTENT, facts))


# ── bytes that changed ───────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    "at",
    [
        0,  # the first block
        70 * 4096,  # one in the middle
        131 * 4096 + 4,  # the superblock
        132 * 4096 + 40,  # the top of the tree
        133 * 4096 + 40,  # its first leaf
        FACTS.offset + 3,  # the boot file
    ],
)
def test_d_01_a_byte_that_changed(at: int) -> None:
    """Wherever it lies, the slot is refused."""
    content = bytearray(CONTENT)
    content[at] ^= 1
    with pytest.raises(SlotError):
        judged((bytes(content), FACTS))


@pytest.mark.parametrize("length", [100, 131 * 4096, FACTS.offset + 10])
def test_a_slot_that_ends(length: int) -> None:
    """What was announced has to be there."""
    with pytest.raises(SlotError):
        check(FACTS, reader(CONTENT[:length]), len(CONTENT))


# ── words ────────────────────────────────────────────────────────────────────────────
def test_the_words_of_a_root() -> None:
    """Three words, with the facts as an initramfs reads them."""
    assert words(b"\1" * 32, b"\2" * 32, 977) == (
        "roothash=" + "01" * 32,
        "sealift.salt=" + "02" * 32,
        "sealift.blocks=977",
    )


def test_a_line_ends_where_it_ends() -> None:
    """The NUL and a line feed at its end are no part of it."""
    raw = uki_file(LINE + "\n")
    assert command_lines(UKI, reader(raw), len(raw)) == (LINE,)
    check_line(LINE, FACTS)
