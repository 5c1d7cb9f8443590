"""ext4 images without root: a directory becomes a file system, and comes out again.

The same tree makes the same bytes, whoever builds it: UUID, hash seed, owners and times
are fixed (payload format, section 8). e2fsprogs does the work; when the machine lacks
it, it is fetched as ``debian`` fetches anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sealift.core.errors import MissingToolError, SlotError, SpaceError
from sealift.sim import debian

BLOCK = 4096
"""Bytes of a block: with smaller ones a delta finds little."""

EPOCH = 1_700_000_000
"""The one time stamp of everything that has none of its own; Unix seconds."""

_UUID = "5ea11f70-0000-4000-8000-000000000001"
_HASH_SEED = "5ea11f70-0000-4000-8000-000000000002"
_PROGRAMS = ("mke2fs", "debugfs", "e2fsck")
_FIRST_INODE = 11  # lost+found; 1 to 10 are the file system's own
_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Ext4:
    """mke2fs, debugfs and e2fsck, wherever they are; made by :func:`find`."""

    programs: dict[str, str]
    libraries: tuple[Path, ...] = field(default=())

    def make(self, tree: Path, image: Path, size: int) -> None:
        """Write ``tree`` as a file system of exactly ``size`` bytes to ``image``.

        Raises:
            SpaceError: the tree does not fit, or the disk is full.
        """
        image.unlink(missing_ok=True)
        options = {
            # No journal, read-only root: a log would only differ between builds.
            "-O": "^has_journal",
            "-b": str(BLOCK),
            "-I": "256",
            "-m": "0",
            "-U": _UUID,
            "-L": "rootfs",
            "-E": f"hash_seed={_HASH_SEED},root_owner=0:0,lazy_itable_init=0",
            "-d": str(tree),
        }
        arguments = [word for option in options.items() for word in option]
        blocks = str(size // BLOCK)
        said = self._run(
            "mke2fs", "-q", "-F", "-t", "ext4", *arguments, str(image), blocks
        )
        if said.returncode:
            image.unlink(missing_ok=True)
            raise SpaceError(
                f"mke2fs cannot put {tree} into {size} bytes: {_last(said)}",
                hint="a larger image, or more room on this disk",
                size=size,
            )
        self._settle(image)

    def _settle(self, image: Path) -> None:
        """Give every inode root as owner and one time: mke2fs copies the builder's."""
        used = _used_inodes(self._run("debugfs", "-R", "stats -h", str(image)).stdout)
        script = image.with_suffix(".debugfs")
        fields = (("uid", "0"), ("gid", "0"), ("atime", "@"), ("ctime", "@"))
        script.write_text(
            "".join(
                f"sif <{inode}> {name} {value.replace('@', f'@{EPOCH}')}\n"
                for inode in (2, *range(_FIRST_INODE, used + 1))
                for name, value in fields
            ),
            "ascii",
        )
        said = self._run("debugfs", "-w", "-f", str(script), str(image))
        script.unlink()
        if said.returncode:
            raise SpaceError(f"debugfs cannot settle {image}: {_last(said)}")

    def check(self, image: Path) -> None:
        """Look whether a kernel could mount ``image``.

        Raises:
            SlotError: it is no ext4 file system, or a damaged one.
        """
        said = self._run("e2fsck", "-f", "-n", str(image))
        if said.returncode:
            raise SlotError(f"{image.name} is no sound file system: {_last(said)}")

    def extract(self, image: Path, into: Path) -> Path:
        """Copy the whole file system out to ``into``, which must not exist yet.

        What mounting is to a board with root, this is to one without.

        Raises:
            SlotError: nothing came out.
        """
        into.mkdir(parents=True)
        said = self._run("debugfs", "-R", f'rdump / "{into}"', str(image))
        if not any(path.name != "lost+found" for path in into.iterdir()):
            raise SlotError(f"nothing to read in {image.name}: {_last(said)}")
        return into

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {
            **os.environ,
            "LC_ALL": "C",
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "E2FSPROGS_FAKE_TIME": str(EPOCH),
            "DEBUGFS_PAGER": "cat",
            "MKE2FS_CONFIG": os.devnull,
        }
        if self.libraries:
            environ["LD_LIBRARY_PATH"] = ":".join(map(str, self.libraries))
        try:
            return subprocess.run(
                [self.programs[program], *arguments],
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise SlotError(f"{program} did not end in {_TIMEOUT:.0f} s") from error


def find(home: Path, say: debian.Say = debian.quiet) -> Ext4:
    """The programs of this machine, else Debian's, fetched below ``home``.

    Raises:
        MissingToolError: neither is to be had. FailedTransferError: no network.
    """
    # An ordinary user's PATH has no sbin.
    places = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/sbin", "/sbin"]
    return _in(places) or fetch(home, say)


def fetch(home: Path, say: debian.Say = debian.quiet) -> Ext4:
    """Debian's programs, fetched below ``home`` with the libraries they need.

    Raises:
        MissingToolError: no apt. FailedTransferError: no network.
    """
    root = debian.fetch(["e2fsprogs"], home, say)
    libraries = sorted({found.parent for found in root.rglob("lib*.so.*")})
    found = _in([root / "usr/sbin", root / "sbin"], tuple(libraries))
    if found is None:
        raise MissingToolError(
            "Debian's e2fsprogs holds no mke2fs, debugfs and e2fsck",
            hint="apt install e2fsprogs",
        )
    return found


def _in(places: Sequence[str | Path], libraries: tuple[Path, ...] = ()) -> Ext4 | None:
    path = os.pathsep.join(map(str, places))
    found = {name: shutil.which(name, path=path) or "" for name in _PROGRAMS}
    return Ext4(found, libraries) if all(found.values()) else None


def _used_inodes(stats: str) -> int:
    """The highest inode in use: mke2fs hands them out in order."""
    numbers = {
        key.strip(): value.strip()
        for key, _, value in (line.partition(":") for line in stats.splitlines())
    }
    return int(numbers["Inode count"]) - int(numbers["Free inodes"])


def _last(said: subprocess.CompletedProcess[str]) -> str:
    lines = (said.stderr + said.stdout).strip().splitlines()
    return lines[-1][:300] if lines else f"status {said.returncode}"
