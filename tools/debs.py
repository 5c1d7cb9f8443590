"""Debian packages without root: fetched by name, unpacked into .venv/debs.

    python3 -m tools.debs softhsm2 busybox-static      fetch and unpack
    python3 -m tools.debs --install softhsm2           apt-get install, as root

The machine's own apt does the work, with its own sources and its own keys, in
private directories; so signatures are checked and no address is written here.
What the named packages need and the machine lacks comes along. Maintainer
scripts do not run: this is for programs and libraries that work from any
directory, such as softhsm2, e2fsprogs or busybox-static.

`fetch()` is the same for Python: it returns the content root, under which
`usr/bin` and `usr/lib` lie. Only the standard library is used here.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv"
DEBS = HOME / "debs"

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")


class DebsError(Exception):
    """A package could not be had; the text says why and what to do."""


class Apt:
    """apt-get with its state in a directory of ours."""

    def __init__(self, home: Path) -> None:
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise DebsError(
                "this machine has no apt-get and dpkg-deb. They are needed only to "
                "fetch Debian packages; on another distribution install the same "
                "programs (and python3-venv) with its own package manager"
            )
        self.lists = home / "lists"
        cache = home / "cache"
        for directory in (self.lists / "partial", cache / "archives/partial"):
            directory.mkdir(parents=True, exist_ok=True)
        options = {
            "Dir::State": home,
            "Dir::State::Lists": self.lists,
            "Dir::State::status": "/var/lib/dpkg/status",
            "Dir::Cache": cache,
            "Debug::NoLocking": "1",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            # The machine's hooks tidy the machine's own apt, not ours.
            "APT::Update::Pre-Invoke": "",
            "APT::Update::Post-Invoke": "",
            "APT::Update::Post-Invoke-Success": "",
        }
        if os.geteuid() == 0:
            # Otherwise apt becomes _apt, who may not enter our directories.
            options["APT::Sandbox::User"] = "root"
        self.config = home / "apt.conf"
        lines = [
            "#clear APT::Update::Pre-Invoke;",
            "#clear APT::Update::Post-Invoke;",
            "#clear APT::Update::Post-Invoke-Success;",
            *(f'{name} "{value}";' for name, value in options.items() if value),
        ]
        self.config.write_text("\n".join(lines) + "\n", "utf-8")

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        """Run apt-get; its output."""
        # APT_CONFIG is read before the command line but after /etc/apt, so that
        # #clear can take the machine's hooks away.
        done = subprocess.run(
            ["apt-get", "--quiet=2", *arguments],
            cwd=cwd,
            env={**os.environ, "APT_CONFIG": str(self.config), "LC_ALL": "C"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise DebsError(
                f"apt-get {' '.join(arguments)} ended with status {done.returncode}: "
                + " / ".join(said[-3:])
            )
        return done.stdout

    def update(self) -> None:
        """Fetch the package lists."""
        print("debs: fetching the package lists (no root needed)", flush=True)
        self.run("update")
        if not any(self.lists.glob("*Packages*")):
            raise DebsError(
                "apt-get update brought no package list: is there a network, and "
                "does /etc/apt name a Debian mirror?"
            )

    def missing(self, names: list[str]) -> list[str]:
        """What `names` need and the machine lacks, `names` included."""
        try:
            planned = self.run(
                "--simulate",
                "--no-install-recommends",
                "--no-remove",
                "install",
                *names,
            )
        except DebsError as error:
            # Held or half-installed packages of the machine; the named ones
            # alone may well do.
            print(f"debs: not resolving dependencies: {error}", flush=True)
            return names
        found = re.findall(r"^Inst (\S+)", planned, re.MULTILINE)
        return sorted({*names, *found})

    def download(self, names: list[str], into: Path) -> list[Path]:
        """The packages as files; apt has checked their hashes."""
        if not any(self.lists.glob("*Packages*")):
            self.update()
        try:
            names = self.missing(names)
            self.run("download", *names, cwd=into)
        except DebsError:
            # Lists grow stale: what they name may have left the mirror.
            self.update()
            names = self.missing(names)
            self.run("download", *names, cwd=into)
        return sorted(into.glob("*.deb"))


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One fetch at a time: tests may ask from several processes."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unpack(deb: Path, into: Path) -> None:
    done = subprocess.run(
        ["dpkg-deb", "--extract", deb, into],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DebsError(f"cannot unpack {deb.name}: {done.stderr.strip()}")


def fetch(names: Iterable[str], into: Path = DEBS) -> Path:
    """Make the named packages available under `into`; does nothing twice.

    Raises:
        DebsError: no apt, no network, no such package, or no room.
    """
    wanted = sorted(set(names))
    for name in wanted:
        if not _NAME.fullmatch(name):
            raise DebsError(f"{name!r} is not the name of a Debian package")
    home = into.with_name(into.name + ".apt")
    record = home / "unpacked.json"
    try:
        with _alone(home):
            have: dict[str, list[str]] = {}
            if record.exists() and into.is_dir():
                have = json.loads(record.read_text("utf-8"))
            lacking = [name for name in wanted if name not in have]
            if lacking:
                _bring(lacking, into, home, have)
                fresh = record.with_suffix(".new")
                fresh.write_text(json.dumps(have, indent=1, sort_keys=True), "utf-8")
                fresh.replace(record)
    except OSError as error:
        raise DebsError(f"cannot write below {home.parent}: {error}") from error
    return into


def _bring(
    names: list[str], into: Path, home: Path, have: dict[str, list[str]]
) -> None:
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=home) as desk:
        files = Apt(home).download(names, Path(desk))
        for deb in files:
            _unpack(deb, into)
            print(f"debs: unpacked {deb.name}", flush=True)
        for name in names:
            have[name] = [deb.name for deb in files]


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
