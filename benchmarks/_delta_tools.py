"""Programs of other projects: this machine's, else Debian's, fetched without root."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sealift.core.errors import MissingToolError
from sealift.sim import debian

_VERSION = re.compile(rb"\d+(?:\.\d+)+|(?<=\s)\d+(?=\s)")


class Tools:
    """Finds programs in PATH, then in Debian packages unpacked below `home`."""

    def __init__(self, home: Path, say: debian.Say = debian.quiet) -> None:
        self._home = home / "debs"
        self._say = say

    def command(self, words: Sequence[str], package: str) -> list[str]:
        """The command with its program found, and told where its libraries are.

        Raises:
            MissingToolError: neither here nor at Debian's. FailedTransferError: no
            network.
        """
        program, *rest = words
        if found := shutil.which(program):
            return [found, *rest]
        root = debian.fetch([package], self._home, self._say)
        found = shutil.which(program, path=f"{root}/usr/bin{os.pathsep}{root}/bin")
        if found is None:
            raise MissingToolError(f"Debian's {package} holds no {program}")
        return ["env", f"LD_LIBRARY_PATH={_libraries(root)}", found, *rest]

    def version(self, words: Sequence[str], package: str) -> str:
        """What the program says its version is, else what Debian says.

        Raises:
            MissingToolError, FailedTransferError: as for :meth:`command`.
        """
        command = self.command(words, package)
        done = subprocess.run(command, capture_output=True, check=False, timeout=30)
        found = _VERSION.search(done.stdout + done.stderr)
        return found[0].decode() if found else self._of_debian(package)

    def _of_debian(self, package: str) -> str:
        record = self._home.with_name(self._home.name + ".apt") / "unpacked.json"
        if record.exists():
            names: list[str] = json.loads(record.read_text("utf-8")).get(package, [])
            for name in names:
                if name.startswith(f"{package}_"):
                    return name.split("_")[1]
        asked = ["dpkg-query", "--show", "--showformat=${Version}", package]
        try:
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
        except OSError:
            return "unknown"
        return done.stdout.strip() or "unknown"


def module_version(name: str) -> str:
    """The version of a Python package.

    Raises:
        MissingToolError: it is not installed.
    """
    try:
        return version(name)
    except PackageNotFoundError as error:
        raise MissingToolError(
            f"the Python package {name} is not installed", hint="run make native"
        ) from error


def _libraries(root: Path) -> str:
    places = {str(found.parent) for found in root.rglob("lib*.so.*")}
    return os.pathsep.join(sorted(places))
