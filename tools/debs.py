"""Debian packages without root: fetched by name, unpacked into .venv/debs.

    python3 -m tools.debs softhsm2 busybox-static      fetch and unpack
    python3 -m tools.debs --install softhsm2           apt-get install, as root

The machine's own apt does the work, with its own sources and its own keys, in
private directories; so signatures are checked and no address is written here.
What the named packages need and the machine lacks comes along. Maintainer
scripts do not run: this is for programs and libraries that work from any
directory, such as softhsm2, e2fsprogs or busybox-static.

`fetch()` is the same for Python: it returns the content root, under which
`usr/bin` and `usr/lib` lie. The work is done in `sealift.sim.debian`, which the
demo shares; both need the standard library only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv"
DEBS = HOME / "debs"

# Before the first installation there is no other way to our own package.
sys.path.insert(0, str(ROOT / "src"))

from sealift.core.errors import SealiftError  # noqa: E402  (see above)
from sealift.sim import debian  # noqa: E402


class DebsError(Exception):
    """A package could not be had; the text says why and what to do."""


def say(text: str) -> None:
    """One line of progress."""
    print(f"debs: {text}", flush=True)


def fetch(names: Iterable[str], into: Path = DEBS) -> Path:
    """Make the named packages available under `into`; does nothing twice.

    Raises:
        DebsError: no apt, no network, no such package, or no room.
    """
    try:
        return debian.fetch(names, into, say)
    except SealiftError as error:
        raise DebsError("; ".join(filter(None, (error.message, error.hint)))) from error


def install(names: Iterable[str]) -> None:
    """Install on the machine itself; only root can, and only when asked.

    Raises:
        DebsError: not root, or apt-get failed.
    """
    if os.geteuid() != 0:
        raise DebsError("only root can install; without --install nothing needs root")
    if not shutil.which("apt-get"):
        raise DebsError("this machine has no apt-get")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wanted = sorted(set(names))
    for arguments in (
        ["update"],
        ["install", "--yes", "--no-install-recommends", *wanted],
    ):
        done = subprocess.run(
            ["apt-get", "--quiet=2", *arguments], env=environ, check=False
        )
        if done.returncode:
            raise DebsError(f"apt-get {arguments[0]} ended with {done.returncode}")
    print(f"debs: installed on this machine: {' '.join(wanted)}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tools.debs",
        description="Fetch Debian packages into .venv/debs without root.",
    )
    parser.add_argument("names", nargs="+", metavar="PACKAGE")
    parser.add_argument(
        "--install", action="store_true", help="apt-get install instead, as root"
    )
    asked = parser.parse_args()
    try:
        if asked.install:
            install(asked.names)
        else:
            print(f"debs: ready below {fetch(asked.names)}")
    except DebsError as error:
        sys.exit(f"debs: {error}")


if __name__ == "__main__":
    main()
