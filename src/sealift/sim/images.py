"""Real images out of real software: what the demo ships.

A *tide gauge* made of Debian packages and a small service with a ``healthcheck`` that
runs from the image itself. Release 1 holds the oldest versions the mirror offers,
later ones the newest, so an update between them is a security update as people ship
them. The same packages and version make the same bytes.

Packages come from ``debian``, file systems from ``ext4``; who installs an image, and
when, is the demo's matter.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sealift.core.errors import FailedTransferError
from sealift.sim import debian
from sealift.sim.debian import Package, Say
from sealift.sim.ext4 import EPOCH, Ext4

HARDWARE_ID = "demo-board-r1"
PRODUCT = "tide-gauge"
COMPONENT = "rootfs"

_OVERLAY = Path(__file__).with_name("overlay")
_MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_DROPPED = ("man", "locale", "lintian", "info", "bash-completion", "bug")
_BUILDER = 1
"""Raise it when the same packages come to make other bytes."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of image: its packages, the checks it must pass, its bytes."""

    name: str
    packages: tuple[str, ...]
    checks: tuple[str, ...]
    size: int


FULL = Profile(
    "full",
    ("busybox-static", "ca-certificates", "openssl", "python3-minimal", "tzdata"),
    ("release", "zones", "tls", "forecast", "app"),
    56 << 20,
)
SMALL = Profile(
    "small", ("busybox-static", "tzdata"), ("release", "zones", "app"), 32 << 20
)
PROFILES = {profile.name: profile for profile in (FULL, SMALL)}


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image to build. ``healthy=False`` ships a setting its service cannot use."""

    profile: Profile
    version: str
    packages: tuple[Package, ...]
    healthy: bool = True

    @property
    def digest(self) -> str:
        """Lower hex SHA-256 of all that decides the image's bytes."""
        told = {
            "builder": _BUILDER,
            "version": self.version,
            "packages": [package.spec for package in self.packages],
            "profile": [self.profile.name, self.profile.checks, self.profile.size],
            "healthy": self.healthy,
            "overlay": {str(name): data.hex() for name, data in _overlay().items()},
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Image:
    """One image that was built: where it lies and what it is."""

    path: Path
    version: str
    length: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Pools:
    """The same software twice: as old and as new as the mirror offers it."""

    older: tuple[Package, ...]
    newer: tuple[Package, ...]

    @property
    def updated(self) -> list[tuple[Package, Package]]:
        """The packages whose version differs."""
        before = {package.name: package for package in self.older}
        pairs = ((before[new.name], new) for new in self.newer if new.name in before)
        return [(old, new) for old, new in pairs if old != new]


class Builder:
    """Builds images below ``work`` and keeps packages and results for the next time."""

    def __init__(self, work: Path, profile: Profile, ext4: Ext4, say: Say) -> None:
        work = work.absolute()
        self._debs = work / "debs"
        self._images = work / "images"
        self._plan = work / f"packages-{profile.name}.json"
        self._work = work
        self._profile = profile
        self._ext4 = ext4
        self._say = say
        for directory in (self._debs, self._images):
            directory.mkdir(parents=True, exist_ok=True)

    def pools(self) -> Pools:
        """The packages, fetched; asks the network only the first time.

        Raises:
            MissingToolError: no apt. FailedTransferError: no network, no such package.
        """
        pools = self._known()
        if pools is None:
            pools = self._choose()
            chosen = {"older": pools.older, "newer": pools.newer}
            self._plan.write_text(
                json.dumps(
                    {key: [[p.name, p.version] for p in chosen[key]] for key in chosen}
                ),
                "utf-8",
            )
        return pools

    def build(
        self, version: str, pool: tuple[Package, ...], *, healthy: bool = True
    ) -> Image:
        """The image of one version out of ``pool``; an earlier result is taken as is.

        Raises:
            SpaceError: it does not fit its size, or the disk is full.
        """
        recipe = Recipe(self._profile, version, pool, healthy)
        image = self._images / f"{PRODUCT}-{version}-{recipe.digest[:16]}.img"
        if not image.exists():
            tree = self._work / f"tree-{version}"
            shutil.rmtree(tree, ignore_errors=True)
            self._grow(recipe, tree)
            fresh = image.with_suffix(".new")
            self._ext4.make(tree, fresh, recipe.profile.size)
            fresh.replace(image)
            shutil.rmtree(tree)
        with image.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._say(f"{image.name}: sha256 {sha256}")
        return Image(image, version, image.stat().st_size, sha256)

    def _known(self) -> Pools | None:
        if not self._plan.exists():
            return None
        found = json.loads(self._plan.read_text("utf-8"))
        pools = Pools(
            *(tuple(Package(*row) for row in found[key]) for key in ("older", "newer"))
        )
        have = all(p.file_in(self._debs) for p in (*pools.older, *pools.newer))
        return pools if have else None

    def _choose(self) -> Pools:
        # Against an empty machine apt plans all an image needs, libc6 included.
        nothing = self._work / "nothing-installed"
        nothing.write_bytes(b"")
        apt = debian.Apt(self._work / "apt", self._say, installed=nothing)
        apt.update()
        newer = apt.closure(self._profile.packages)
        older = _oldest(apt, newer)
        wanted = sorted({*older, *newer})
        lacking = [p.spec for p in wanted if p.file_in(self._debs) is None]
        if lacking:
            self._say(f"fetching {len(lacking)} Debian packages")
            apt.download(lacking, self._debs)
        return Pools(tuple(older), tuple(newer))

    def _grow(self, recipe: Recipe, tree: Path) -> None:
        self._say(
            f"building {PRODUCT} {recipe.version} from {len(recipe.packages)} packages"
        )
        plant([self._file(package) for package in recipe.packages], tree)
        _trim(tree)
        _configure(recipe, tree)
        settle(tree)

    def _file(self, package: Package) -> Path:
        deb = package.file_in(self._debs)
        if deb is None:
            raise FailedTransferError(
                f"{package.spec} is gone from {self._debs}",
                hint="remove that directory and run again",
            )
        return deb


def plant(debs: Iterable[Path], tree: Path) -> None:
    """A new tree with these packages unpacked and on record; no script of theirs runs.

    Raises:
        SpaceError, MalformedError: one of them does not unpack.
    """
    for name, behind in _MERGED.items():
        (tree / behind).mkdir(parents=True)
        (tree / name).symlink_to(behind)
    status = []
    for deb in debs:
        debian.unpack(deb, tree)
        status.append(f"{debian.field(deb)}\nStatus: install ok installed")
    _write(tree / "var/lib/dpkg/status", "\n\n".join(status).encode() + b"\n")


def _oldest(apt: debian.Apt, newer: list[Package]) -> list[Package]:
    """The oldest versions on offer that still fit together, else the newest."""
    try:
        return apt.closure([p.spec for p in apt.oldest([p.name for p in newer])])
    except FailedTransferError:
        return newer


def _overlay() -> dict[Path, bytes]:
    files = sorted(path for path in _OVERLAY.rglob("*") if path.is_file())
    return {path.relative_to(_OVERLAY): path.read_bytes() for path in files}


def _configure(recipe: Recipe, tree: Path) -> None:
    """What is ours in the image, and what maintainer scripts would have done."""
    told = {
        b"@VERSION@": recipe.version.encode(),
        b"@CHECKS@": " ".join(recipe.profile.checks).encode(),
    }
    for name, data in _overlay().items():
        for word, value in told.items():
            data = data.replace(word, value)
        _write(tree / name, data)
    if not recipe.healthy:
        settings = tree / "opt/tidegauge/settings"
        text = settings.read_text("utf-8")
        _write(settings, text.replace("/srv/tidegauge", "/srv/tidegage").encode())
    (tree / "bin/sh").symlink_to("busybox")
    authorities = sorted((tree / "usr/share/ca-certificates").rglob("*.crt"))
    if authorities:
        bundle = b"".join(path.read_bytes() for path in authorities)
        _write(tree / "etc/ssl/certs/ca-certificates.crt", bundle)


def _trim(tree: Path) -> None:
    for name in _DROPPED:
        shutil.rmtree(tree / "usr/share" / name, ignore_errors=True)
    for path in sorted((tree / "usr/share/doc").rglob("*")):
        if path.name != "copyright" and not path.is_dir():
            path.unlink()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)


def settle(tree: Path) -> None:
    """One time stamp and one mode wherever the builder's own would show."""
    for path in (*tree.rglob("*"), tree):
        then = min(int(path.lstat().st_mtime), EPOCH)
        os.utime(path, (then, then), follow_symlinks=False)
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    os.utime(tree, (EPOCH, EPOCH))
