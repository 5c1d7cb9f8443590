"""ext4 read without mounting: free blocks and files agree with e2fsprogs; lies fail."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sealift.core.errors import FormatError, LimitError, MalformedError
from sealift.payload.look import ext4
from sealift.payload.look.ext4 import Ext4, Superblock
from tests.unit.payload.filesystems import STEADY, build, debugfs, grow, reader

# name → block size, options of mke2fs, size of the image
FORMS: dict[str, tuple[int, tuple[str, ...], str]] = {
    "as we make them": (4096, STEADY, "8M"),
    "mke2fs's own choice": (4096, (), "16M"),
    "small blocks, many groups": (1024, (), "40M"),
    "narrow descriptors": (1024, ("-O", "^64bit"), "20M"),
    "no checksums, unwritten bitmaps": (
        1024, ("-O", "^has_journal,^metadata_csum,uninit_bg"), "40M",
    ),
    "groups on their own": (4096, ("-O", "^flex_bg,^resize_inode"), "300M"),
    "block maps instead of extents": (1024, ("-O", "^extents,^64bit"), "20M"),
    "copies in every group": (1024, ("-O", "^sparse_super,^resize_inode"), "40M"),
}  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return grow(tmp_path_factory.mktemp("trees") / "tree")


@pytest.fixture(params=FORMS, scope="module")
def image(
    request: pytest.FixtureRequest, tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    block, options, size = FORMS[request.param]
    place = tmp_path_factory.mktemp("images") / "image"
    return build(tree, place, *options, size=size, block=block)


def opened(image: Path) -> Ext4:
    def read_at(offset: int, length: int) -> bytes:
        with image.open("rb") as file:
            file.seek(offset)
            return file.read(length)

    return Ext4(read_at)


def test_free_blocks_are_those_that_debugfs_counts(image: Path) -> None:
    """Whatever the form: flexible groups, bitmaps never written, copies everywhere."""
    system = opened(image)
    told = re.search(r"Free blocks: +(\d+)", debugfs(image, "stats -h"))
    assert told is not None
    free = sum(length for _, length in system.free_runs())
    assert free == int(told[1]) * system.superblock.block_size


def test_files_are_those_of_the_tree(image: Path, tree: Path) -> None:
    """Each path once, with its size and its bytes."""
    system = opened(image)
    files = {file.path: file for file in system.files()}
    wanted = {f"/{path.relative_to(tree)}" for path in tree.rglob("*")}
    assert set(files) == wanted | {"/", "/lost+found"}
    for path in tree.rglob("*"):
        found = files[f"/{path.relative_to(tree)}"]
        if path.is_file() and not path.is_symlink():
            assert system.read(found, 1 << 20) == path.read_bytes()
        assert found.inode.is_directory == path.is_dir()


def test_a_journal_is_found_where_there_is_one(tree: Path, tmp_path: Path) -> None:
    """As the hidden file it is, with all its blocks."""
    with_journal = opened(build(tree, tmp_path / "with", size="32M"))
    found = with_journal.journal()
    assert found is not None
    assert sum(length for _, length in found.runs) >= 1 << 20
    assert opened(build(tree, tmp_path / "without", *STEADY)).journal() is None


def test_forms_that_are_not_read_are_named(tree: Path, tmp_path: Path) -> None:
    """Clusters are refused, not misread."""
    coarse = opened(
        build(tree, tmp_path / "coarse", "-O", "bigalloc", "-C", "16384", size="32M")
    )
    with pytest.raises(MalformedError, match="clusters"):
        list(coarse.free_runs())


@pytest.fixture(scope="module")
def small(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    place = tmp_path_factory.mktemp("small") / "image"
    return build(tree, place, *STEADY, size="2M", block=1024).read_bytes()


def look(raw: bytes | bytearray) -> int:
    """How much of a file system could not be read."""
    try:
        system = Ext4(reader(raw))
    except FormatError:
        return 1
    walks: tuple[Callable[[], object], ...] = (
        lambda: list(system.free_runs()),
        lambda: list(system.files()),
        system.journal,
    )
    refused = 0
    for walk in walks:
        try:
            walk()
        except FormatError:
            refused += 1
    return refused


def test_a_thousand_lies_are_errors_or_facts(small: bytes) -> None:
    """No byte of superblock, descriptors, inodes or directories breaks the reader."""
    chance = random.Random(7)
    refused = 0
    for _ in range(1000):
        raw = bytearray(small)
        for _ in range(chance.randrange(1, 6)):
            # A third of the lies go where the sizes are.
            end = chance.choice((1280, 4096, 1 << 19))
            raw[chance.randrange(1024, end)] = chance.choice((0, 1, 0x7F, 0xFF))
        refused += look(raw) > 0
    assert refused > 50, "some of them must have hit something"
    assert look(small) == 0


Lie = Callable[[bytearray], None]


def put(at: int, value: int, size: int = 4) -> Lie:
    def lie(raw: bytearray) -> None:
        raw[1024 + at : 1024 + at + size] = value.to_bytes(size, "little")

    return lie


# name → what is put into the superblock
LIES: dict[str, Lie] = {
    "blocks of 2 TiB": put(0x18, 31),
    "no blocks in a group": put(0x20, 0),
    "more blocks in a group than its bitmap": put(0x20, 1 << 31),
    "no inodes in a group": put(0x28, 0),
    "inodes of no bytes": put(0x58, 0, 2),
    "descriptors of no bytes": put(0xFE, 0, 2),
    "an exabyte": put(0x150, 0xFFFF),
    "begins nowhere": put(0x14, 1 << 30),
    "a group per block": put(0x20, 1),
    "another magic": put(0x38, 0, 2),
}


@pytest.mark.parametrize("name", LIES)
def test_a_superblock_that_lies_is_refused(name: str, small: bytes) -> None:
    """Before anything is read by its numbers."""
    raw = bytearray(small)
    LIES[name](raw)
    with pytest.raises(FormatError):
        list(Ext4(reader(raw)).free_runs())


def test_steps_are_bounded(small: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with more in it than is read ends in an error, not in hours."""
    monkeypatch.setattr(ext4, "STEPS_MAX", 20)
    with pytest.raises(LimitError):
        list(Ext4(reader(small)).files())


def test_a_circle_of_directories_ends(tree: Path, tmp_path: Path) -> None:
    """A name that leads back to the root is passed over."""
    image = build(tree, tmp_path / "image", *STEADY)
    before = len(list(opened(image).files()))
    debugfs(image, "ln <2> /usr/round")
    assert len(list(opened(image).files())) == before


def test_what_a_build_chooses_is_told(small: bytes) -> None:
    """UUID and hash seed as mke2fs was told them."""
    found = Superblock.decode(small[1024:2048]).identity
    assert found["UUID"] == "5ea11f70000040008000000000000001"
    assert found["hash seed"].endswith("0002")
    assert found["creation time"] == "1700000000"
