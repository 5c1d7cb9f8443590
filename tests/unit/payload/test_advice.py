"""Advice on real images: each cause is found where it is, and only there."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sealift.payload.look.advice import advise
from sealift.payload.look.builds import _longest_rise
from sealift.payload.look.findings import Case, Finding, Severity, Trial
from sealift.payload.look.survey import Survey, survey
from tests.unit.payload.filesystems import (
    STEADY,
    TIME,
    build,
    compress,
    debugfs,
    grow,
    reader,
    settle,
)

VECTORS = Path(__file__).resolve().parents[2] / "vectors/images"


@dataclass
class Bench:
    """A place to build images in: two trees that are the same until a test says so."""

    home: Path

    def tree(self, name: str = "tree") -> Path:
        place = self.home / name
        if not place.exists():
            settle(grow(place))
        return place

    def image(self, *options: str, tree: str = "tree", **more: object) -> Path:
        number = sum(1 for _ in self.home.glob("image-*"))
        words = options or STEADY
        return build(
            self.tree(tree),
            self.home / f"image-{number}",
            *words,
            **more,  # type: ignore[arg-type]
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def look(image: Path | bytes) -> Survey:
    raw = image if isinstance(image, bytes) else image.read_bytes()
    return survey(reader(raw), len(raw))


def found(image: Path | bytes, base: Path | bytes | None = None) -> dict[str, Finding]:
    case = Case(look(image), None if base is None else look(base))
    return {finding.code: finding for finding in advise(case)}


# ── one image ────────────────────────────────────────────────────────────────────────
def test_a_good_image_has_nothing_to_change(bench: Bench) -> None:
    """As we build them: 4 KiB blocks, no journal, read-only root; twice the same."""
    assert found(bench.image(), bench.image()) == {}


def writable(tree: Path) -> None:
    (tree / "etc/fstab").write_text("/dev/root / ext4 defaults 0 1\n")


def kernel(tree: Path) -> None:
    compress(tree, "boot/vmlinuz-6.1")


def modules(tree: Path) -> None:
    for number in range(3):
        compress(tree, f"usr/lib/modules/m{number}.ko.gz", seed=number)


def initramfs(tree: Path) -> None:
    compress(tree, "boot/initrd.img-6.1")


def firmware(tree: Path) -> None:
    compress(tree, "usr/lib/firmware/wifi.bin.gz")


def manuals(tree: Path) -> None:
    compress(tree, "usr/share/man/man4/initrd.4.gz", length=9000)


# what is done to the tree → the one finding, its severity, what it must name
TREES: list[tuple[Callable[[Path], None], str, Severity, str]] = [
    (writable, "root.writable", Severity.WARNING, "defaults"),
    (kernel, "compressed.kernel", Severity.WARNING, "/boot/vmlinuz-6.1"),
    (modules, "compressed.modules", Severity.WARNING, "/usr/lib/modules/m0.ko.gz"),
    (initramfs, "compressed.initramfs", Severity.WARNING, "/boot/initrd.img-6.1"),
    (firmware, "compressed.firmware", Severity.WARNING, "wifi.bin.gz"),
    (manuals, "compressed.files", Severity.NOTE, "/usr/share/man/man4/initrd.4.gz"),
]


@pytest.mark.parametrize(
    ("spoil", "code", "severity", "named"), TREES, ids=lambda v: str(v)[:24]
)
def test_what_is_in_a_tree_is_named(
    spoil: Callable[[Path], None],
    code: str,
    severity: Severity,
    named: str,
    bench: Bench,
) -> None:
    """One cause in the tree, one finding, with the file that is to blame."""
    spoil(bench.tree())
    findings = found(bench.image())
    assert list(findings) == [code]
    assert findings[code].severity is severity
    assert named in " ".join((findings[code].cause, *findings[code].where))


def test_sizes_of_compressed_files_are_theirs(bench: Bench) -> None:
    """The whole file counts, however many extents it has."""
    kernel(bench.tree())
    size = (bench.tree() / "boot/vmlinuz-6.1").stat().st_size
    finding = found(bench.image())["compressed.kernel"]
    assert f"{size / 1024:.1f} KiB" in finding.cause


# options of mke2fs → the findings
OPTIONS = {
    (): {"ext4.journal"},
    ("-O", "^has_journal", "-b", "1024"): {"ext4.small-blocks"},
}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_how_the_file_system_was_made_is_told(
    options: tuple[str, ...], bench: Bench
) -> None:
    """A journal and small blocks, from the superblock."""
    block = 1024 if "1024" in options else 4096
    image = bench.image("-q", *options, size="32M", block=block)
    assert set(found(image)) == OPTIONS[options]


@pytest.mark.parametrize(
    ("length", "severity"), [(20_000, Severity.NOTE), (1_500_000, Severity.WARNING)]
)
def test_old_content_weighs_by_its_size(
    length: int, severity: Severity, bench: Bench
) -> None:
    """Little is a note; from 1 MiB on a warning. Streams in it are not counted again."""
    compress(bench.tree(), "usr/doomed.gz", length=length)
    image = bench.image()
    debugfs(image, "rm /usr/doomed.gz")
    findings = found(image)
    assert list(findings) == ["ext4.stale-blocks"]
    assert findings["ext4.stale-blocks"].severity is severity


def test_an_image_that_was_mounted_says_so(bench: Bench) -> None:
    """By its mount count."""
    image = bench.image()
    debugfs(image, "ssv mnt_count 3")
    assert "3 times" in found(image)["ext4.mounted"].cause


# vector → the codes
VECTOR_CODES = {
    "squashfs-xz.img": {"filesystem.compressed"},
    "squashfs-zstd.img": {"filesystem.compressed"},
    "squashfs-plain.img": set(),
    "erofs-lz4.img": {"filesystem.compressed"},
    "erofs-plain.img": set(),
    "luks1-head.img": {"encrypted"},
    "verity-head.img": set(),
}


@pytest.mark.parametrize("name", VECTOR_CODES)
def test_other_images_get_the_advice_for_them(name: str) -> None:
    """Compressed and encrypted ones are warned about, plain ones are not."""
    assert set(found((VECTORS / name).read_bytes())) == VECTOR_CODES[name]


def test_wrapped_firmware_is_dense() -> None:
    """Bytes like chance and no file system: compressed or encrypted as a whole."""
    wrapped = b"HEADER01" * 64 + random.Random(5).randbytes(2 << 20)
    finding = found(wrapped)["dense"]
    assert finding.where[0].startswith("2.0 MiB at 0")
    assert "dense" not in found(bytes(2 << 20) + b"plain text " * 90_000)


def test_an_image_cut_short_is_an_error(bench: Bench) -> None:
    """Its file system says more than there is."""
    findings = found(bench.image().read_bytes()[: 3 << 20])
    assert findings["filesystem.truncated"].severity is Severity.ERROR


def test_the_slot_is_the_measure() -> None:
    """One byte more is an error and comes first, an exact fit is none."""
    image = look((VECTORS / "squashfs-xz.img").read_bytes())
    first = advise(Case(image, slot_size=image.length - 1))[0]
    assert (first.code, first.severity) == ("slot.too-small", Severity.ERROR)
    codes = {finding.code for finding in advise(Case(image, slot_size=image.length))}
    assert "slot.too-small" not in codes


# ── two builds ───────────────────────────────────────────────────────────────────────
def test_a_fresh_uuid_costs_checksums(bench: Bench) -> None:
    """UUID and hash seed of its own in each build, as mke2fs does unless told."""
    finding = found(
        bench.image("-O", "^has_journal"), bench.image("-O", "^has_journal")
    )["build.identity"]
    assert finding.severity is Severity.WARNING
    assert "UUID, hash seed" in finding.cause
    assert "checksums" in finding.cost


def test_fresh_times_in_the_superblock_are_a_note(bench: Bench) -> None:
    """They are a few bytes."""
    new, old = bench.image(), bench.image()
    debugfs(new, "ssv mkfs_time @1800000000")
    finding = found(new, old)["build.identity"]
    assert (finding.severity, "creation time" in finding.cause) == (Severity.NOTE, True)


def test_fresh_time_stamps_are_counted(bench: Bench) -> None:
    """A build that does not settle its times touches every inode."""
    old = bench.image()
    settle(bench.tree(), TIME + 100)
    finding = found(bench.image(), old)["build.times"]
    told, all_ = (int(word) for word in finding.cause.split()[0:3:2])
    assert told >= 40
    assert all_ - told <= 2, "the root and lost+found are mke2fs's own"


def test_another_order_of_files_is_a_note(bench: Bench) -> None:
    """The same files, written from the last to the first: inodes run the other way."""
    old = look(bench.image())
    (volume,) = old.volumes
    assert volume.tree is not None
    turned = {
        path: replace(entry, inode=10_000 - entry.inode)
        for path, entry in volume.tree.files.items()
    }
    other = replace(volume, tree=replace(volume.tree, files=turned))
    findings = advise(Case(replace(old, volumes=(other,)), old))
    assert [finding.code for finding in findings] == ["build.order"]


@pytest.mark.parametrize(
    ("numbers", "length"),
    [([], 0), ([1, 2, 3], 3), ([3, 2, 1], 1), ([5, 1, 6, 2, 7, 3], 3)],
)
def test_what_kept_its_order(numbers: list[int], length: int) -> None:
    """The longest run that still rises."""
    assert _longest_rise(numbers) == length


def test_a_new_salt_is_told() -> None:
    """The same data under another salt: the whole tree differs."""
    tree = (VECTORS / "verity-head.img").read_bytes()
    salted = bytearray(tree)
    salted[88:92] = b"\1\2\3\4"
    assert list(found(bytes(salted), tree)) == ["verity.salt"]
    assert found(tree, tree) == {}


@pytest.mark.parametrize(("delta", "poor"), [(49, False), (50, True), (120, True)])
def test_a_poor_delta_names_its_carriers(delta: int, poor: bool) -> None:
    """From half of the full container on; the largest first, crumbs left out."""
    image = look((VECTORS / "squashfs-plain.img").read_bytes())
    trial = Trial(100 << 10, delta << 10, (("/usr/bin/app", delta << 10), ("/etc", 1)))
    findings = advise(Case(image, trial=trial))
    assert bool(findings) is poor
    if poor:
        assert findings[0].code == "delta.poor"
        assert findings[0].where == (f"{delta}.0 KiB /usr/bin/app",)
