"""Disks of the benches as files: a GPT, a FAT with boot files, slots, an ext4 for data.

All by programs that work on files, so nothing needs root: ``sfdisk``, ``mkfs.vfat``,
mtools, ``mke2fs`` and ``debugfs``.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench import toolbox

MIB = 1 << 20
_SECTOR = 512
_ESP_TYPE = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_LINUX_TYPE = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
_DISK_GUID = "5EA11F70-0000-4000-8000-00000000000{}"


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition: its name in the table, where it lies, how long it is."""

    name: str
    offset: int
    size: int


ESP = Partition("esp", MIB, 128 * MIB)
SLOT_A = Partition("sealift-a", ESP.offset + ESP.size, 96 * MIB)
SLOT_B = Partition("sealift-b", SLOT_A.offset + SLOT_A.size, 96 * MIB)
DATA = Partition("sealift-data", SLOT_B.offset + SLOT_B.size, 16 * MIB)
PARTITIONS = (ESP, SLOT_A, SLOT_B, DATA)
SLOTS = {"a": SLOT_A, "b": SLOT_B}
DISK_BYTES = DATA.offset + DATA.size + MIB


def run(*words: str | Path, text: str = "") -> str:
    """A program of the toolbox, which must succeed; what it printed."""
    argv = [toolbox.program(str(words[0])), *map(str, words[1:])]
    done = subprocess.run(
        argv,
        input=text,
        env={**toolbox.environment(), "MKE2FS_CONFIG": "/dev/null"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, f"{argv}: {done.stderr}{done.stdout}"
    return done.stdout


def format_disk(path: Path, partitions: tuple[Partition, ...] = PARTITIONS) -> Path:
    """An empty disk with its table and, in the first partition, an empty FAT."""
    with path.open("wb") as file:
        file.truncate(DISK_BYTES)
    lines = [f"label: gpt\nlabel-id: {_DISK_GUID.format(0)}\n"]
    for number, part in enumerate(partitions, 1):
        kind = _ESP_TYPE if part is ESP else _LINUX_TYPE
        lines.append(
            f"start={part.offset // _SECTOR}, size={part.size // _SECTOR}, "
            f'type={kind}, name="{part.name}", uuid={_DISK_GUID.format(number)}\n'
        )
    run(
        "sfdisk",
        "--quiet",
        "--no-reread",
        "--no-tell-kernel",
        path,
        text="".join(lines),
    )
    fat = path.with_suffix(".fat")
    with fat.open("wb") as file:
        file.truncate(partitions[0].size)
    run("mkfs.vfat", "--invariant", "-F", "32", "-n", "ESP", fat)
    copy_sparse(fat, path, partitions[0].offset)
    fat.unlink()
    return path


def copy_sparse(source: Path, into: Path, offset: int = 0) -> None:
    """A file into another one at ``offset``, holes left as they are."""
    with source.open("rb") as file, into.open("r+b") as out:
        while piece := file.read(MIB):
            if any(piece):
                out.seek(offset)
                out.write(piece)
            offset += len(piece)


def write(path: Path, part: Partition, data: bytes | Path, at: int = 0) -> None:
    """Bytes into a partition, ``at`` so many bytes from its beginning."""
    raw = data.read_bytes() if isinstance(data, Path) else data
    assert at + len(raw) <= part.size, f"{part.name} is too small"
    with path.open("r+b") as file:
        file.seek(part.offset + at)
        file.write(raw)


def read(path: Path, part: Partition, size: int, at: int = 0) -> bytes:
    """Bytes of a partition."""
    with path.open("rb") as file:
        file.seek(part.offset + at)
        return file.read(min(size, part.size - at))


def flip(path: Path, part: Partition, at: int, bit: int = 1) -> None:
    """One bit of a partition, the other way round."""
    (byte,) = read(path, part, 1, at)
    write(path, part, bytes([byte ^ bit]), at)


class Esp:
    """The FAT on a raw disk, by mtools."""

    def __init__(self, path: Path, part: Partition = ESP) -> None:
        self._image = f"{path}@@{part.offset}"

    def put(self, name: str, data: bytes | Path) -> None:
        """A file, its directories made; one that is there is replaced."""
        for parent in reversed(Path(name).parents[:-1]):
            if not self.has(str(parent)):
                run("mmd", "-i", self._image, f"::{parent}")
        if isinstance(data, Path):
            run("mcopy", "-o", "-m", "-i", self._image, data, f"::{name}")
        else:
            argv = [toolbox.program("mcopy"), "-o", "-i", self._image, "-", f"::{name}"]
            subprocess.run(argv, input=data, check=True, env=toolbox.environment())

    def get(self, name: str) -> bytes:
        """The content of a file."""
        return subprocess.run(
            [toolbox.program("mtype"), "-i", self._image, f"::{name}"],
            check=True,
            env=toolbox.environment(),
            stdout=subprocess.PIPE,
        ).stdout

    def has(self, name: str) -> bool:
        """Whether there is a file or directory of that name."""
        done = subprocess.run(
            [toolbox.program("mdir"), "-b", "-i", self._image, f"::{name}"],
            check=False,
            env=toolbox.environment(),
            capture_output=True,
        )
        return done.returncode == 0

    def names(self, directory: str) -> list[str]:
        """What lies in a directory, by its long name."""
        said = run("mdir", "-b", "-i", self._image, f"::{directory}")
        found = [line.rstrip("/").rsplit("/", 1)[-1] for line in said.splitlines()]
        return sorted(name for name in found if name)

    def remove(self, name: str) -> None:
        """Delete a file."""
        run("mdel", "-i", self._image, f"::{name}")


def write_data(path: Path, tree: Path, scratch: Path, part: Partition = DATA) -> None:
    """``tree`` as the data partition's ext4, every file root's own."""
    image = scratch / "data.ext4"
    image.unlink(missing_ok=True)
    options = "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0"
    features = "has_journal,extent,filetype,dir_index,sparse_super,large_file"
    words = ("-q", "-F", "-t", "ext4", "-b", "1024", "-m", "0", "-E", options)
    run(
        "mke2fs",
        *words,
        "-O",
        features,
        "-L",
        "data",
        "-d",
        tree,
        image,
        f"{part.size // 1024}",
    )
    own_by_root(image)
    write(path, part, image)
    image.unlink()


def own_by_root(image: Path) -> None:
    """Give every file of an ext4 image to root: mke2fs copies the builder's owner."""
    said = run("debugfs", "-R", "stats -h", image)
    facts = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in said.splitlines())
    }
    used = int(facts["Inode count"]) - int(facts["Free inodes"])
    lines = [
        f"sif <{n}> {f} 0\n" for n in (2, *range(11, used + 1)) for f in ("uid", "gid")
    ]
    run("debugfs", "-w", "-f", "-", image, text="".join(lines))
