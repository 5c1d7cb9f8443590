"""Debian packages without root: the machine's own apt, in private directories.

The machine's own sources and keys are used, so signatures are checked and no address is
written here. Maintainer scripts never run. ``tools/debs.py`` calls this before Sealift
is installed, hence the standard library and ``core.errors`` only.

What is built out of the packages is in ``images``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sealift.core.errors import (
    FailedTransferError,
    InvalidInputError,
    MalformedError,
    MissingToolError,
    SpaceError,
)

MACHINE = Path("/var/lib/dpkg/status")
"""What is installed on this machine, as dpkg records it."""

Say = Callable[[str], None]

_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_PLANNED = re.compile(r"^Inst (\S+)(?: \[[^\]]*\])? \((\S+)", re.MULTILINE)
_TIMEOUT = 600.0


def quiet(_: str) -> None:
    """Say nothing: the default for whoever wants no progress."""


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One package in one version."""

    name: str
    version: str

    @property
    def spec(self) -> str:
        """The package as apt's command line names it."""
        return f"{self.name}={self.version}"

    def file_in(self, directory: Path) -> Path | None:
        """Where ``apt-get download`` put it, ``None`` if it did not."""
        escaped = self.version.replace(":", "%3a")
        return next(iter(directory.glob(f"{self.name}_{escaped}_*.deb")), None)


@dataclass(frozen=True, slots=True)
class Repository:
    """One suite as the machine's sources name it."""

    uri: str
    codename: str
    label: str


class Apt:
    """apt with its state below ``home``; ``installed`` is what it takes for present.

    ``options`` of apt's configuration choose other sources or another architecture.

    Raises:
        MissingToolError: this machine has no apt.
    """

    def __init__(
        self,
        home: Path,
        say: Say = quiet,
        *,
        installed: Path = MACHINE,
        options: Mapping[str, str] | None = None,
    ) -> None:
        if not all(map(shutil.which, ("apt-get", "apt-cache", "dpkg-deb"))):
            raise MissingToolError(
                "this machine has no apt-get, apt-cache and dpkg-deb",
                hint="they are needed only to fetch Debian packages; use a Debian or "
                "Ubuntu machine or container",
            )
        home = home.absolute()  # apt takes a relative one from its own root
        self.lists = home / "lists"
        self._say = say
        cache = home / "cache"
        for directory in (self.lists / "partial", cache / "archives/partial"):
            directory.mkdir(parents=True, exist_ok=True)
        self._config = home / "apt.conf"
        wanted = _options(home, cache, installed) | dict(options or {})
        self._config.write_text(_configuration(wanted), "utf-8")

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        # APT_CONFIG is read before the command line but after /etc/apt, so that
        # #clear can take the machine's hooks away.
        environ = {**os.environ, "APT_CONFIG": str(self._config), "LC_ALL": "C"}
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=environ,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_TIMEOUT,
            )
        except subprocess.TimeoutExpired as error:
            raise FailedTransferError(
                f"{' '.join(command[:3])} did not end within {_TIMEOUT:.0f} s"
            ) from error
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise FailedTransferError(
                f"{' '.join(command[:6])} ended with status {done.returncode}: "
                + " / ".join(said[-3:]),
                hint="is there a network, and does /etc/apt name a Debian mirror?",
            )
        return done.stdout

    def update(self) -> None:
        """Fetch the package lists.

        Raises:
            FailedTransferError: no network, no mirror, or a list that does not verify.
        """
        self._say("fetching Debian's package lists (no root needed)")
        self._run("apt-get", "--quiet=2", "update")
        if not self.has_lists():
            raise FailedTransferError(
                "apt-get update brought no package list",
                hint="is there a network, and does /etc/apt name a Debian mirror?",
            )

    def has_lists(self) -> bool:
        """Whether package lists were fetched before."""
        return any(self.lists.glob("*Packages*"))

    def repositories(self) -> list[Repository]:
        """The suites of Debian itself that lists were fetched for.

        Raises:
            FailedTransferError: apt failed.
        """
        wanted = "|".join(f"$({name})" for name in ("REPO_URI", "CODENAME", "LABEL"))
        chosen = ("Created-By: Packages", "Origin: Debian")
        rows = self._run("apt-get", "indextargets", "--format", wanted, *chosen)
        return [Repository(*row.split("|")) for row in sorted(set(rows.splitlines()))]

    def names(self, prefix: str) -> list[str]:
        """The packages on offer whose names begin so.

        Raises:
            FailedTransferError: apt failed.
        """
        return sorted(self._run("apt-cache", "pkgnames", prefix).split())

    def closure(self, specs: Sequence[str]) -> list[Package]:
        """What ``specs`` need beyond what is installed, themselves included.

        Raises:
            FailedTransferError: unknown names, or dependencies that cannot hold.
        """
        options = ("--simulate", "--no-install-recommends", "--no-remove")
        planned = self._run(
            "apt-get", "--quiet=2", *options, "--allow-downgrades", "install", *specs
        )
        return sorted(Package(*found) for found in _PLANNED.findall(planned))

    def oldest(self, names: Sequence[str]) -> list[Package]:
        """Each package in the oldest version that the mirror offers."""
        offers = self._offers(names)
        return [Package(name, offers[name][-1]) for name in sorted(offers)]

    def newest(self, names: Sequence[str]) -> list[Package]:
        """Each package in the newest version that the mirror offers."""
        offers = self._offers(names)
        return [Package(name, offers[name][0]) for name in sorted(offers)]

    def _offers(self, names: Sequence[str]) -> dict[str, list[str]]:
        """The versions of each package, newest first."""
        # One call for all: apt reads its lists anew each time.
        listed = self._run("apt-cache", "madison", *names)
        rows = [line.split("|") for line in listed.splitlines() if "Packages" in line]
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row[0].strip(), []).append(row[1].strip())
        return found

    def download(self, specs: Sequence[str], into: Path) -> list[Path]:
        """The packages as files in ``into``; apt has checked their hashes.

        Raises:
            FailedTransferError: no network, or a stale package list.
        """
        self._run("apt-get", "--quiet=2", "download", *specs, cwd=into)
        return sorted(into.glob("*.deb"))

    def download_source(self, name: str, into: Path) -> list[Path]:
        """The newest source package as files in ``into``; apt has checked their hashes.

        Raises:
            FailedTransferError: no network, no such package, or the sources name none.
        """
        self._run("apt-get", "--quiet=2", "update")
        words = ("--download-only", "--only-source", "source", name)
        self._run("apt-get", "--quiet=2", *words, cwd=into)
        return sorted(into.iterdir())


def _options(home: Path, cache: Path, installed: Path) -> dict[str, str | Path]:
    options: dict[str, str | Path] = {
        "Dir::State": home,
        "Dir::State::Lists": home / "lists",
        "Dir::State::status": installed,
        "Dir::Cache": cache,
        "Debug::NoLocking": "1",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
    }
    if os.geteuid() == 0:
        # Otherwise apt becomes _apt, who may not enter our directories.
        options["APT::Sandbox::User"] = "root"
    return options


def _configuration(options: Mapping[str, str | Path]) -> str:
    # The machine's hooks tidy the machine's own apt, not ours.
    hooks = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
    lines = [f"#clear APT::Update::{hook};" for hook in hooks]
    lines += [f'{name} "{value}";' for name, value in options.items()]
    return "\n".join(lines) + "\n"


def unpack(deb: Path, into: Path) -> None:
    """Unpack one package below ``into``; symlinks to directories there are followed.

    Modes are the package's own, owners are whoever runs this.

    Raises:
        SpaceError: it could not be unpacked; no room is the usual reason.
    """
    # dpkg-deb --extract would replace /bin -> usr/bin by a directory.
    keep = ["--keep-directory-symlink", "--same-permissions", "--no-same-owner"]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE
    ) as source:
        done = subprocess.run(
            ["tar", "--extract", *keep, "--directory", into],
            stdin=source.stdout,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        source.communicate()
    if done.returncode or source.returncode:
        raise SpaceError(f"cannot unpack {deb.name}: {done.stderr.strip()[-300:]}")


def field(deb: Path) -> str:
    """The control paragraph of a package file.

    Raises:
        MalformedError: it is no package file.
    """
    done = subprocess.run(
        ["dpkg-deb", "--field", deb], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MalformedError(f"{deb.name} is no Debian package", file=str(deb))
    return done.stdout.strip()


@contextlib.contextmanager
def alone(home: Path) -> Iterator[None]:
    """One at a time below ``home``: several processes may ask at once."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch(names: Iterable[str], into: Path, say: Say = quiet) -> Path:
    """Unpack the named packages, and what this machine lacks for them, below ``into``.

    Does nothing twice. ``usr/bin`` and ``usr/lib`` lie below the path returned.

    Raises:
        InvalidInputError: not the name of a package.
        MissingToolError: no apt. FailedTransferError: no network, no such package.
        SpaceError: ``into`` cannot be written.
    """
    wanted = sorted(set(names))
    for name in wanted:
        if not _NAME.fullmatch(name):
            raise InvalidInputError(f"{name!r} is not the name of a Debian package")
    home = into.with_name(into.name + ".apt")
    try:
        with alone(home):
            _fetch_missing(wanted, into, home, say)
    except OSError as error:
        raise SpaceError(f"cannot write below {home.parent}: {error}") from error
    return into


def _fetch_missing(wanted: list[str], into: Path, home: Path, say: Say) -> None:
    record = home / "unpacked.json"
    have: dict[str, list[str]] = {}
    if record.exists() and into.is_dir():
        have = json.loads(record.read_text("utf-8"))
    lacking = [name for name in wanted if name not in have]
    if not lacking:
        return
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="download-", dir=home) as desk:
        files = _download(Apt(home, say), lacking, Path(desk))
        for deb in files:
            unpack(deb, into)
            say(f"unpacked {deb.name}")
        have |= {name: [deb.name for deb in files] for name in lacking}
    fresh = record.with_suffix(".new")
    fresh.write_text(json.dumps(have, indent=1, sort_keys=True), "utf-8")
    fresh.replace(record)


def _download(apt: Apt, names: list[str], into: Path) -> list[Path]:
    if not apt.has_lists():
        apt.update()
    try:
        return apt.download(_needed(apt, names), into)
    except FailedTransferError:
        # Lists grow stale: what they name may have left the mirror.
        apt.update()
        return apt.download(_needed(apt, names), into)


def _needed(apt: Apt, names: list[str]) -> list[str]:
    """The names to download: dependencies too, unless this machine's dpkg is unwell."""
    try:
        return sorted({*names, *(package.name for package in apt.closure(names))})
    except FailedTransferError:
        # Held or half-installed packages of the machine; the named ones may well do.
        return names
