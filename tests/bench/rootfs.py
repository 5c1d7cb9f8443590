"""Root file systems of the benches: Debian packages, our real agent, a small init.

Built without root and without a network of their own, kept by digest. The same inputs
make the same bytes (device-D37): a release differs from the next in two small files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from sealift.sim import debian, images
from sealift.sim.ext4 import EPOCH
from tests.bench import cache, toolbox

PACKAGES = (
    *("busybox-static", "python3-minimal", "libpython3.11-stdlib"),
    *("python3-cryptography", "dosfstools"),
)
"""What the agent needs, and nothing it does not."""

_HERE = Path(__file__).parent
_OVERLAY = _HERE / "overlay"
_SOURCE = _HERE.parents[1] / "src/sealift"
_OURS = ("core", "agent")
_PYTHON = "usr/lib/python3.11"
_NEVER_RUN = (
    *(f"{_PYTHON}/{name}" for name in ("idlelib", "lib2to3", "test", "ensurepip")),
    *(f"{_PYTHON}/{name}" for name in ("distutils", "pydoc_data", "turtledemo")),
    *(f"usr/share/{name}" for name in ("doc", "man", "locale", "lintian", "info")),
    *(f"usr/share/{name}" for name in ("perl5", "bash-completion", "bug", "pixmaps")),
    *("usr/lib/x86_64-linux-gnu/perl-base", "usr/lib/x86_64-linux-gnu/gconv"),
    *("usr/lib/aarch64-linux-gnu/perl-base", "usr/lib/aarch64-linux-gnu/gconv"),
    *("usr/bin/perl", "var/lib/dpkg", "usr/share/zoneinfo", "usr/lib/dpkg"),
    *("usr/share/debconf", "usr/share/dpkg", "usr/bin/perl5.36.0"),
)
_PLACES = ("dev", "proc", "sys", "run", "tmp", "data", "efi", "etc", "root")
_BUILDER = 1
"""Raise it when the same inputs come to make other bytes."""


def packages(
    architecture: str | None = None, names: tuple[str, ...] = PACKAGES
) -> Path:
    """The packages as files, with all they need on an empty machine; fetched once.

    What the mirror has at the first time stays: a digest of the list names the rest.
    """
    facts = [_BUILDER, list(names), architecture]

    def fetch(into: Path) -> None:
        home = into / "apt"
        home.mkdir()
        empty = home / "nothing-installed"
        empty.write_bytes(b"")
        options = {"APT::Architecture": architecture} if architecture else {}
        apt = debian.Apt(home, installed=empty, options=options)
        apt.update()
        debs = into / "debs"
        debs.mkdir()
        apt.download([package.spec for package in apt.closure(names)], debs)
        shutil.rmtree(home)

    return cache.built("packages", cache.digest(*facts), fetch) / "debs"


def tree(
    architecture: str | None = None,
    names: tuple[str, ...] = PACKAGES,
    more: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """The root directory that all releases share: packages, agent, overlay.

    ``more`` are text files of one board, by name; they replace those of the overlay.
    """
    debs = sorted(packages(architecture, names).glob("*.deb"))
    facts: list[object] = [_BUILDER, [deb.name for deb in debs], list(_NEVER_RUN)]
    facts += [dict(more)]
    facts += [_OVERLAY, *(_python_sources(_SOURCE / name) for name in _OURS)]

    def build(into: Path) -> None:
        root = into / "root"
        root.mkdir()
        images.plant(debs, root)
        for name in _NEVER_RUN:
            _remove(root / name)
        for name in _PLACES:
            (root / name).mkdir(exist_ok=True)
        shutil.copytree(_OVERLAY, root, dirs_exist_ok=True)
        for name, text in more.items():
            (root / name).write_text(text, "utf-8")
        _plant_agent(root / "usr/lib/python3/dist-packages/sealift")
        _link_applets(root)
        _compile(root)

    return cache.built("root", cache.digest(*facts), build) / "root"


def squash(root: Path, into: Path, files: Mapping[str, str]) -> Path:
    """``root`` with a few small text ``files`` more as a squashfs, padded to 4096."""
    words = [
        *("-quiet", "-no-progress", "-noappend", "-comp", "lz4", "-all-root"),
        *("-mkfs-time", str(EPOCH), "-all-time", str(EPOCH), "-b", "131072"),
        *("-no-xattrs", "-no-exports"),
    ]
    for name, text in sorted(files.items()):
        words += ["-p", f"{name} f 0644 0 0 printf %s '{text}'"]
    done = subprocess.run(
        [toolbox.program("mksquashfs"), str(root), str(into), *words],
        env=toolbox.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return into


def _python_sources(directory: Path) -> object:
    found = sorted(directory.rglob("*.py"))
    return [[str(p.relative_to(_SOURCE)), p.read_text("utf-8")] for p in found]


def _plant_agent(into: Path) -> None:
    into.mkdir(parents=True)
    shutil.copy(_SOURCE / "__init__.py", into)
    for name in _OURS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(_SOURCE / name, into / name, ignore=ignored)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _link_applets(root: Path) -> None:
    """Busybox under each of its names, where no package brought that program."""
    busybox = next(p for p in (root / "usr/bin/busybox", root / "bin/busybox"))
    listed = subprocess.run(
        [toolbox.program("busybox"), "--list-full"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for name in (*listed, "sbin/init"):
        target = root / "usr" / name.removeprefix("usr/")
        if not (target.exists() or target.is_symlink() or target == busybox):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to("/bin/busybox")


def _compile(root: Path) -> None:
    """Byte code for a root that is read-only: an emulated processor compiles slowly.

    Of any Python that has the same byte code as Debian 12's: 3.11. Else the modules
    stay as they are, and everything takes longer.
    """
    if sys.version_info[:2] != (3, 11):
        return
    words = ("-q", "-j", "0", "--invalidation-mode", "unchecked-hash")
    places = [root / _PYTHON, root / "usr/lib/python3/dist-packages"]
    subprocess.run(
        [sys.executable, "-m", "compileall", *words, "-s", root, "-p", "/", *places],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=False,
        stdout=subprocess.DEVNULL,
    )
