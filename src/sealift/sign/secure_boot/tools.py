"""The programs of others the verbs start: found by name, run without a shell.

A program that is not there is an error that names the Debian package to install. What
a program prints is kept for its error; nothing of ours parses it but where it says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from sealift.core.errors import InvalidConfigError, MissingToolError
from sealift.repo.files import sync_directory, translated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

__all__ = ["FILES", "PACKAGES", "Tools", "draft_of", "reader"]

PACKAGES: Final = {
    "objcopy": "binutils",
    "sbsign": "sbsigntool",
    "sbverify": "sbsigntool",
    "veritysetup": "cryptsetup-bin",
    "mkimage": "u-boot-tools",
    "dumpimage": "u-boot-tools",
    "dtc": "device-tree-compiler",
    "fdtget": "device-tree-compiler",
    "fdtput": "device-tree-compiler",
}
"""Programs, and the Debian package that has them."""
FILES: Final = {
    "/usr/lib/systemd/boot/efi": "systemd-boot-efi",
    "/usr/share/OVMF": "ovmf",
}
"""Directories of data files, and the Debian package that has them."""
EXTRA: Final = frozenset({"virt-fw-vars", "imgtool"})
"""Programs that come with the extra ``secureboot``."""

_SECONDS: Final = 600.0
_SAID: Final = 2000


class Tools:
    """Programs as they are found by ``environment``, and started in it."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(os.environ if environment is None else environment)

    def find(self, program: str) -> str:
        """The path of a program: on PATH, or beside this Python.

        Raises:
            MissingToolError: it is not there; the hint says where it comes from.
        """
        beside = str(Path(sys.executable).parent)
        path = os.pathsep.join([self._environment.get("PATH", os.defpath), beside])
        found = shutil.which(program, path=path)
        if found is not None:
            return found
        hint = f"Debian: apt-get install {PACKAGES.get(program, program)}"
        if program in EXTRA:
            hint = "pip install 'sealift[secureboot]'"
        raise MissingToolError(f"{program} is not installed", hint=hint)

    def has(self, program: str) -> bool:
        """Whether a program is there."""
        try:
            self.find(program)
        except MissingToolError:
            return False
        return True

    def library(self, name: str, package: str) -> str:
        """A file below a directory of libraries, by its name there.

        Raises:
            MissingToolError: none of them has it; the hint names the package.
        """
        machine = os.uname().machine
        places = [
            *filter(
                None, self._environment.get("LD_LIBRARY_PATH", "").split(os.pathsep)
            ),
            *(f"/usr/lib/{machine}-linux-gnu", "/usr/lib64", "/usr/lib"),
        ]
        for place in places:
            if (Path(place) / name).exists():
                return str(Path(place) / name)
        raise MissingToolError(
            f"{name} is not installed", hint=f"Debian: apt-get install {package}"
        )

    def file(self, path: Path) -> Path:
        """A data file of a Debian package: as it is, or below where programs lie.

        Packages that were unpacked elsewhere have both, ``usr/bin`` and ``usr/share``.

        Raises:
            MissingToolError: it is a file of a package, and not there.
        """
        if path.exists() or not path.is_relative_to("/usr"):
            return path
        for place in self._environment.get("PATH", "").split(os.pathsep):
            if place.endswith("/usr/bin"):
                beside = Path(place.removesuffix("/usr/bin") + str(path))
                if beside.exists():
                    return beside
        for start, package in FILES.items():
            if path.is_relative_to(start):
                raise MissingToolError(
                    f"{path} is not there", hint=f"Debian: apt-get install {package}"
                )
        return path

    def run(
        self,
        program: str,
        *arguments: str | Path,
        more: Mapping[str, str] | None = None,
        descriptors: Collection[int] = (),
    ) -> str:
        """Run a program to its end; what it printed.

        ``more`` joins its environment, ``descriptors`` stay open for it.

        Raises:
            MissingToolError: it is not there. InvalidConfigError: it did not end well;
            the message has what it said last.
        """
        command = [self.find(program), *map(str, arguments)]
        environment = {**self._environment, "LC_ALL": "C.UTF-8", **(more or {})}
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=tuple(descriptors),
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise InvalidConfigError(f"{program} could not be run: {error}") from error
        said = done.stdout.decode("utf-8", "replace")
        if done.returncode:
            raise InvalidConfigError(
                f"{program} ended with status {done.returncode}: "
                + " ".join(said[-_SAID:].split())
            )
        return said


@contextmanager
def draft_of(out: Path) -> Iterator[Path]:
    """A directory beside ``out`` to work in; its file ``out`` takes that name at last.

    Raises:
        InvalidConfigError, SpaceError: it cannot be made there, or nothing was made.
    """
    place = out.absolute()
    try:
        with TemporaryDirectory(dir=place.parent, prefix=f".{place.name}.") as scratch:
            yield Path(scratch)
            made = Path(scratch) / "out"
            with made.open("rb") as stream:
                os.fsync(stream.fileno())
            made.replace(place)
        sync_directory(place.parent)
    except OSError as error:
        raise translated(out, error, "written") from error


def reader(stream: BinaryIO) -> Callable[[int, int], bytes]:
    """How ``core`` reads a file that stays open: at an offset, so many bytes."""
    descriptor = stream.fileno()
    return lambda offset, length: os.pread(descriptor, length, offset)
