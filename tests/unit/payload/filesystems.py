"""ext4 images for tests, by the real mke2fs; and one tree to put into them."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
from pathlib import Path

from sealift.core.container import ReadAt
from sealift.sim import ext4

KEPT = Path(__file__).resolve().parents[3] / ".venv/test-images/tools"
STEADY = (
    "-O", "^has_journal", "-U", "5ea11f70-0000-4000-8000-000000000001",
    "-E", "hash_seed=5ea11f70-0000-4000-8000-000000000002",
)  # fmt: skip
TIME = 1_700_000_000


def program(name: str) -> str:
    """mke2fs or debugfs of this machine, else Debian's."""
    return ext4.find(KEPT).programs[name]


def grow(tree: Path, seed: int = 0, files: int = 40) -> Path:
    """A tree of directories, files of many sizes, a link and a table of mounts."""
    chance = random.Random(seed)
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/fstab").write_text("# none\n/dev/root / ext4 ro,noatime 0 1\n")
    for number in range(files):
        place = tree / f"usr/lib/d{number % 7}"
        place.mkdir(parents=True, exist_ok=True)
        words = [f"{chance.randrange(900)}\n".encode() for _ in range(number * 97)]
        (place / f"file-{number}").write_bytes(b"".join(words))
    # Large enough for blocks of numbers of blocks of numbers.
    (tree / "usr/lib/large").write_bytes(chance.randbytes(600) * 1000)
    (tree / "usr/lib/link").symlink_to("d0/file-0")
    (tree / "usr/lib/far").symlink_to("d0/" * 30 + "file-0")
    return tree


def compress(tree: Path, name: str, seed: int = 1, length: int = 200_000) -> None:
    """Put a gzip file into the tree that nothing makes smaller."""
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(random.Random(seed).randbytes(length), mtime=0))


def settle(tree: Path, time: int = TIME) -> None:
    """Give everything in the tree one time stamp."""
    for path in (tree, *tree.rglob("*")):
        os.utime(path, (time, time), follow_symlinks=False)


def build(
    tree: Path, image: Path, *options: str, size: str = "6M", block: int = 4096
) -> Path:
    """The tree as a file system with those options; its own times are steady."""
    environ = {**os.environ, "E2FSPROGS_FAKE_TIME": str(TIME), "LC_ALL": "C"}
    command = [program("mke2fs"), "-q", "-F", "-t", "ext4", "-b", str(block), *options]
    subprocess.run(
        [*command, "-d", tree, image, size],
        env=environ,
        check=True,
        capture_output=True,
        timeout=60,
    )
    return image


def debugfs(image: Path, *requests: str) -> str:
    """What debugfs says to the requests, with leave to write."""
    done = subprocess.run(
        [program("debugfs"), "-w", "-f", "/dev/stdin", image],
        input="\n".join(requests),
        env={**os.environ, "LC_ALL": "C", "DEBUGFS_PAGER": "cat"},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout


def reader(raw: bytes | bytearray) -> ReadAt:
    """Reads bytes in memory."""
    return lambda offset, length: bytes(raw[offset : offset + length])
