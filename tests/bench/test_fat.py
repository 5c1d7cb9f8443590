"""The FAT reader of the benches against mtools and fsck.fat, on real images."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest

from tests.bench import toolbox
from tests.bench.disk import run
from tests.bench.fat import Fat, FatError

NAMES = (
    *("EFI/Linux/sealift-b+2-1.efi", "EFI/Linux/sealift-a.efi", "EFI/BOOT/BOOTX64.EFI"),
    *(
        "loader/loader.conf",
        "README",
        "lower.txt",
        "MiXeD.TxT",
        "a name with spaces.md",
    ),
    *("EFI/sealift/" + "n" * 120 + ".tmp", "exactly13.efi", "thirteen-char"),
    *("many/of/them/deep/down/x.bin", "empty.bin"),
)
SIZES = {12: (2, 1), 16: (16, 2), 32: (40, 1)}
"""Mebibytes, and sectors of a cluster."""


def made(place: Path, bits: int) -> tuple[Path, dict[str, bytes]]:
    """A file system with files of many sizes and a directory of many entries."""
    mebibytes, per_cluster = SIZES[bits]
    image = place / f"fat{bits}.img"
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    run("mkfs.vfat", "-F", str(bits), "-s", str(per_cluster), "-n", "VOLUME", image)
    chance = random.Random(bits)
    sizes = [0, 1, 511, 512, 513, 4096, 70_000]
    contents = {
        name: b"" if name == "empty.bin" else chance.randbytes(chance.choice(sizes))
        for name in NAMES
    }
    contents |= {f"crowd/file number {n}.bin": b"%d" % n for n in range(40)}
    folders = {str(it) for name in contents for it in Path(name).parents} - {"."}
    for folder in sorted(folders):
        run("mmd", "-i", image, f"::{folder}")
    piece = place / "piece"
    for name, content in contents.items():
        piece.write_bytes(content)
        run("mcopy", "-i", image, piece, f"::{name}")
    for number in range(0, 40, 3):  # holes in the directory, and in the table
        run("mdel", "-i", image, f"::crowd/file number {number}.bin")
        del contents[f"crowd/file number {number}.bin"]
    return image, contents


def opened(image: Path | bytes) -> Fat:
    raw = image.read_bytes() if isinstance(image, Path) else image
    return Fat(lambda at, size: raw[at : at + size])


def fsck(image: Path) -> tuple[int, str]:
    done = subprocess.run(
        [toolbox.program("fsck.fat"), "-n", "-v", str(image)],
        env=toolbox.environment(),
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_what_mtools_wrote_is_read_back(tmp_path: Path, bits: int) -> None:
    image, contents = made(tmp_path, bits)
    fat = opened(image)
    assert fat.bits == bits
    survey = fat.survey()
    assert not survey.faults
    assert fsck(image)[0] == 0
    found = {it.path: fat.content(it) for it in survey.nodes if not it.directory}
    assert found == contents
    node = fat.find("efi/linux/SEALIFT-A.EFI")
    assert node is not None
    assert fat.content(node) == contents["EFI/Linux/sealift-a.efi"]
    assert fat.find("EFI/Linux/nothing") is None
    assert {it.name for it in fat.inside("loader")} == {"loader.conf"}
    assert fat.inside("loader/loader.conf") == []


@pytest.mark.parametrize("bits", [12, 16, 32])
def test_damage_is_seen_as_fsck_sees_it(tmp_path: Path, bits: int) -> None:
    """A bit of the tables or of a directory, the other way round: 60 times."""
    image, _ = made(tmp_path, bits)
    whole = image.read_bytes()
    fat = opened(whole)
    node = fat.find("crowd")
    assert node is not None
    table = slice(fat._fats[0], fat._fats[0] + 1200 * bits // 8)
    crowd = [
        fat._data + (cluster - 2) * fat.cluster_bytes
        for cluster in fat.chain(node.first)
    ]
    chance = random.Random(bits)
    seen = 0
    for _ in range(60):
        raw = bytearray(whole)
        if chance.random() < 0.5:
            at = chance.randrange(table.start + 6, table.stop)
        else:
            # First cluster or length of a short entry.
            at = (
                chance.choice(crowd)
                + 32 * chance.randrange(16)
                + chance.choice((26, 28))
            )
            if raw[at - at % 32 + 11] == 0x0F or raw[at - at % 32] in {0, 0xE5}:
                continue
        raw[at] ^= 1 << chance.randrange(8)
        image.write_bytes(raw)
        status, said = fsck(image)
        try:
            faults = opened(bytes(raw)).survey().faults
        except FatError as error:
            faults = [str(error)]
        assert bool(faults) == (status != 0), (at, faults, said)
        seen += bool(faults)
    assert seen > 20


def test_lost_clusters_are_counted_as_fsck_does(tmp_path: Path) -> None:
    image, contents = made(tmp_path, 32)
    fat = opened(image)
    name = max(contents, key=lambda it: len(contents[it]))
    node = fat.find(name)
    assert node is not None
    clusters = len(fat.chain(node.first))
    raw = bytearray(image.read_bytes())
    at = raw.find(struct.pack("<HI", node.first & 0xFFFF, node.size))
    assert at > 0
    raw[at - 26] = 0xE5  # its entry is gone, its clusters are not
    image.write_bytes(raw)
    assert opened(image).survey().lost == clusters
    assert f"Reclaimed {clusters} unused clusters" in fsck(image)[1]


def test_no_file_system_is_no_fat() -> None:
    for raw in (b"", bytes(512), bytes(510) + b"\x55\xaa", b"\xff" * 510 + b"\x55\xaa"):
        with pytest.raises(FatError):
            opened(raw)
