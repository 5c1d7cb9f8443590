"""The survey of an image: what it is, what is dense, what is left over; lies included."""

from __future__ import annotations

import gzip
import lzma
import random
import struct
from pathlib import Path

import pytest

from sealift.core.errors import LengthError, LimitError
from sealift.payload.density import entropy, is_dense, measure, streams
from sealift.payload.look import superblocks
from sealift.payload.look.owners import Owners, Place
from sealift.payload.look.superblocks import Partition, partitions
from sealift.payload.look.survey import Survey, survey
from tests.unit.payload.filesystems import (
    STEADY,
    build,
    compress,
    debugfs,
    grow,
    reader,
)

VECTORS = Path(__file__).resolve().parents[2] / "vectors/images"
CHANCE = random.Random(1)
NOISE = CHANCE.randbytes(1 << 17)
CODE = b"".join(CHANCE.choices([CHANCE.randbytes(4) for _ in range(500)], k=1 << 16))


def of(raw: bytes | bytearray) -> Survey:
    return survey(reader(raw), len(raw))


def vector(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


# ── what it is ───────────────────────────────────────────────────────────────────────
# file → kind, codec
PACKED = {
    "squashfs-xz.img": ("squashfs", "xz"),
    "squashfs-zstd.img": ("squashfs", "zstd"),
    "squashfs-plain.img": ("squashfs", None),
    "erofs-lz4.img": ("EROFS", "lz4"),
    "erofs-plain.img": ("EROFS", None),
}


@pytest.mark.parametrize("name", PACKED)
def test_read_only_file_systems_tell_their_codec(name: str) -> None:
    """As mksquashfs and mkfs.erofs were told, from the superblock alone."""
    (volume,) = of(vector(name)).volumes
    assert volume.packed is not None
    assert (volume.kind, volume.packed.codec) == PACKED[name]
    assert volume.identity["creation time"] == "1700000000"
    assert 0 < volume.claimed <= volume.length


def test_luks_is_known() -> None:
    """By its header."""
    assert of(vector("luks1-head.img")).volumes[0].kind == "LUKS"


def test_a_hash_tree_is_found_alone_and_behind_its_file_system(tmp_path: Path) -> None:
    """Its salt too, wherever veritysetup puts it."""
    tree = vector("verity-head.img")
    (alone,) = of(tree).volumes
    assert alone.verity is not None
    assert alone.verity.salt == bytes.fromhex("00112233")
    image = build(grow(tmp_path / "tree"), tmp_path / "image", *STEADY)
    (behind,) = of(image.read_bytes() + tree).volumes
    assert (behind.kind, behind.verity) == ("ext4", alone.verity)


def gpt(*places: tuple[str, int, int], sectors: int) -> bytearray:
    """A disk with such partitions: name, first and last sector."""
    disk = bytearray(sectors * 512)
    disk[446:462] = struct.pack("<B3sB3sII", 0, b"", 0xEE, b"", 1, sectors - 1)
    disk[510:512] = b"\x55\xaa"
    header = (b"EFI PART", 0x10000, 92, 0, 0, 1, 0, 34, sectors, bytes(16), 2, 128, 128)
    disk[512:604] = struct.pack("<8sIIIIQQQQ16sQII", *header)
    for number, (name, first, last) in enumerate(places):
        label = name.encode("utf-16-le")
        entry = struct.pack(
            "<16s16sQQQ72s", b"\1" * 16, b"\2" * 16, first, last, 0, label
        )
        disk[1024 + 128 * number : 1152 + 128 * number] = entry
    return disk


def test_partitions_are_looked_into(tmp_path: Path) -> None:
    """The file system in the second partition is found, with its files' places."""
    image = build(grow(tmp_path / "tree"), tmp_path / "image", *STEADY).read_bytes()
    disk = gpt(
        ("boot", 64, 127), ("rootfs", 2048, 2047 + len(image) // 512), sectors=20_000
    )
    disk[2048 * 512 : 2048 * 512 + len(image)] = image
    boot, root = of(disk).volumes
    assert [boot.name, root.name] == ["partition 1 (boot)", "partition 2 (rootfs)"]
    assert (boot.kind, root.kind) == ("unknown", "ext4")
    assert root.tree is not None
    assert root.tree.files["/etc/fstab"].size == 39
    at = disk.find(b"# none\n/dev/root")
    place = of(disk).owners.at(at)
    assert place is not None
    assert place.name == "/etc/fstab"


def test_an_old_partition_table_is_read() -> None:
    """MBR; what passes the end of the disk is left out, and code is no table."""
    disk = bytearray(1 << 20)
    disk[510:512] = b"\x55\xaa"
    disk[446:462] = struct.pack("<B3sB3sII", 0x80, b"", 0x83, b"", 64, 64)
    disk[462:478] = struct.pack("<B3sB3sII", 0, b"", 0x83, b"", 128, 1 << 20)
    disk[478:494] = struct.pack("<B3sB3sII", 0x31, b"", 0x83, b"", 256, 64)
    found = partitions(reader(disk), len(disk))
    assert found == (Partition("partition 1", 32768, 32768),)


# ── what it is made of ───────────────────────────────────────────────────────────────
def test_density_tells_chance_from_code() -> None:
    """Compressed and random bytes are dense; code, text and zeros are not."""
    assert is_dense(NOISE[:4096])
    assert is_dense(NOISE[:1024])
    assert is_dense(lzma.compress(CODE)[4096:8192])
    assert not is_dense(CODE[:4096])
    assert not is_dense(b"text " * 800)
    assert not is_dense(NOISE[:100])
    assert measure(0, bytes(1 << 20)).zero
    assert entropy(b"") == 0


def test_streams_are_found_by_magic_and_density() -> None:
    """At aligned offsets, and only where dense bytes follow."""
    packed = gzip.compress(NOISE)
    data = (
        bytes(512) + packed + bytes(-len(packed) % 512) + b"\x1f\x8b\x08" + bytes(600)
    )
    assert [(one.offset, one.kind) for one in streams(4096, data)] == [(4608, "gzip")]
    assert not list(streams(0, b"x" + packed))
    arm = bytearray(1024)
    arm[0x24:0x28] = b"\x18\x28\x6f\x01"
    assert [one.kind for one in streams(0, bytes(arm))] == ["ARM kernel (zImage)"]


def test_sums_are_of_the_whole(tmp_path: Path) -> None:
    """Zero and dense bytes by segment, over an image that ends amid one."""
    found = of(bytes(3 << 20) + NOISE * 8 + CODE * 4 + b"tail")
    assert found.zero == 3 << 20
    assert found.dense == pytest.approx(1 << 20, rel=0.1)
    assert sum(one.length for one in found.segments) == found.length


def test_old_content_in_free_blocks_is_counted(tmp_path: Path) -> None:
    """What was written and deleted again stays in the image."""
    tree = grow(tmp_path / "tree")
    compress(tree, "usr/doomed", length=300_000)
    image = build(tree, tmp_path / "image", *STEADY)
    before = of(image.read_bytes()).volumes[0].tree
    assert before is not None
    assert before.stale == 0
    debugfs(image, "rm /usr/doomed")
    after = of(image.read_bytes()).volumes[0].tree
    assert after is not None
    assert 300_000 <= after.stale < 310_000
    assert after.free > before.free


def test_the_options_of_the_root_come_from_its_fstab(tmp_path: Path) -> None:
    """As they stand there; comments and other mounts are passed over."""
    found = of(build(grow(tmp_path / "t"), tmp_path / "i", *STEADY).read_bytes())
    tree = found.volumes[0].tree
    assert tree is not None
    assert tree.root_options == ("ro", "noatime")


def test_owners_share_out_a_run() -> None:
    """In order, with gaps owned by nobody."""
    owners = Owners([Place(10, 5, "a"), Place(20, 5, "b")])
    shares = [(p.name if p else None, n) for p, n in owners.within(8, 30)]
    assert shares == [(None, 2), ("a", 5), (None, 5), ("b", 5), (None, 13)]
    assert owners.at(15) is None
    assert owners.at(0) is None


# ── lies ─────────────────────────────────────────────────────────────────────────────
def test_no_image_is_refused() -> None:
    """An empty one, and one that ends while it is read."""
    with pytest.raises(LimitError):
        of(b"")
    with pytest.raises(LengthError):
        survey(reader(b"short"), 6)


@pytest.mark.parametrize("name", sorted(path.name for path in VECTORS.glob("*.img")))
def test_mutated_superblocks_end_the_look_at_that_volume_only(name: str) -> None:
    """Every mutation gives a survey; what contradicts itself is told as trouble."""
    chance = random.Random(name)
    whole = vector(name)
    for _ in range(300):
        raw = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            start = chance.choice((0, 1024))
            raw[start + chance.randrange(128)] = chance.choice((0, 1, 0x80, 0xFF))
        cut = raw[: chance.choice((len(raw), 97, 1100, 2048))]
        assert len(of(cut).volumes) >= 1


def test_mutated_partition_tables_stay_within_the_disk() -> None:
    """No partition reaches beyond the image, whatever the table says."""
    chance = random.Random(3)
    whole = gpt(("boot", 64, 127), ("root", 128, 900), sectors=1000)
    for _ in range(2000):
        disk = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            disk[chance.choice((440, 512, 1024)) + chance.randrange(200)] = (
                chance.randrange(256)
            )
        for place in partitions(reader(disk), len(disk)):
            assert 0 < place.offset < place.offset + place.length <= len(disk)


def test_a_superblock_cut_short_is_none() -> None:
    """Readers do not look beyond what they were given."""
    for read in (superblocks.squashfs, superblocks.erofs, superblocks.verity):
        for name in ("squashfs-xz.img", "erofs-lz4.img", "verity-head.img"):
            assert read(vector(name)[:64]) is None
            assert read(b"") is None
