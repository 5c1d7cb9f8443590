"""The Debian package of the agent, made without root: ``python -m tools.deb OUT``.

    .venv/bin/python -m tools.deb build        writes build/sealift-agent_0.1.0_all.deb

It holds the layers ``core`` and ``agent`` and no other, the units of ``packaging/``,
and an example configuration. The same tree makes the same bytes: times, owners and
modes are fixed here, and the compressor runs in one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from sealift.agent import settings

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src/sealift"
PACKAGING = ROOT / "packaging"
LAYERS = ("core", "agent")
EPOCH = 1_767_225_600
"""2026-01-01: the time of every file in it."""

_MODULES = "usr/lib/python3/dist-packages/sealift"
_UNITS = "usr/lib/systemd/system"
_DOC = "usr/share/doc/sealift-agent"
_PROGRAM = """#!/usr/bin/python3 -I
import sys

from sealift.agent.__main__ import main

sys.exit(main())
"""
_WANTED = {
    "multi-user.target.wants": "sealift-agent.service",
    "sysinit.target.wants": "sealift-trial.timer",
}
_SCRIPTS = ("postinst", "prerm", "postrm")
_HELPERS = ("on-trial", "restart-if-wanted")
_CONTROL = """Package: sealift-agent
Version: {version}
Architecture: all
Maintainer: The Sealift authors <sealift@example.org>
Installed-Size: {size}
Depends: python3 (>= 3.11), python3-cryptography (>= 38)
Recommends: systemd
Suggests: tpm2-tools, libubootenv-tool
Section: admin
Priority: optional
Description: secure over-the-air updates, the device's agent
 Polls its server, verifies what is ordered against signed metadata, writes it into
 the slot that does not run, has the boot loader try it, and confirms it or goes back.
 Opens no port.
"""


def version() -> str:
    """The version of the distribution."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return str(found["project"]["version"])


def build(into: Path) -> Path:
    """Write the package into the directory ``into``.

    Raises:
        FileNotFoundError: no ``dpkg-deb``. CalledProcessError: it failed.
    """
    into.mkdir(parents=True, exist_ok=True)
    package = into / f"sealift-agent_{version()}_all.deb"
    with tempfile.TemporaryDirectory(prefix="sealift-deb-") as desk:
        tree = Path(desk)
        _plant(tree)
        _control(tree)
        _settle(tree)
        environment = {
            **os.environ,
            "SOURCE_DATE_EPOCH": str(EPOCH),
            "DPKG_DEB_THREADS_MAX": "1",
        }
        words = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", desk]
        subprocess.run(
            [*words, str(package)], env=environment, check=True, capture_output=True
        )
    return package


def _plant(tree: Path) -> None:
    _copy(SOURCE / "__init__.py", tree / _MODULES / "__init__.py")
    for layer in LAYERS:
        for path in sorted((SOURCE / layer).rglob("*.py")):
            _copy(path, tree / _MODULES / path.relative_to(SOURCE))
    _write(tree / "usr/bin/sealift-agent", _PROGRAM, 0o755)
    for name in _HELPERS:
        _copy(PACKAGING / name, tree / "usr/lib/sealift" / name, 0o755)
    for unit in sorted((PACKAGING / "systemd").glob("sealift-*")):
        if unit.suffix in {".service", ".timer"} and "server" not in unit.name:
            _copy(unit, tree / _UNITS / unit.name)
    for target, wanted in _WANTED.items():
        (tree / _UNITS / target).mkdir()
        (tree / _UNITS / target / wanted).symlink_to(f"../{wanted}")
    tmpfiles = PACKAGING / "systemd/sealift-agent.tmpfiles"
    _copy(tmpfiles, tree / "usr/lib/tmpfiles.d/sealift-agent.conf")
    _write(tree / _DOC / "examples/agent.toml", settings.example())
    for example in sorted((PACKAGING / "systemd").glob("*.conf")):
        _copy(example, tree / _DOC / "examples" / example.name)
    _copy(ROOT / "docs/agent.md", tree / _DOC / "agent.md")
    _copy(ROOT / "LICENSE", tree / _DOC / "copyright")


def _control(tree: Path) -> None:
    files = sorted(path for path in tree.rglob("*") if _is_file(path))
    size = sum(path.stat().st_size for path in files)
    sums = "".join(
        f"{hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()}"
        f"  {path.relative_to(tree)}\n"
        for path in files
    )
    control = _CONTROL.format(version=version(), size=-(-size // 1024))
    _write(tree / "DEBIAN/control", control)
    _write(tree / "DEBIAN/md5sums", sums)
    for name in _SCRIPTS:
        _copy(PACKAGING / name, tree / "DEBIAN" / name, 0o755)


def _settle(tree: Path) -> None:
    """Modes of directories and all times, whatever the umask and the day."""
    for path in (tree, *_below(tree)):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def _below(tree: Path) -> Iterator[Path]:
    yield from sorted(tree.rglob("*"), reverse=True)


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _copy(source: Path, into: Path, mode: int = 0o644) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, into)
    into.chmod(mode)


def _write(into: Path, text: str, mode: int = 0o644) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    into.write_text(text, "utf-8")
    into.chmod(mode)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.deb", description="Make the agent's Debian package."
    )
    parser.add_argument("out", type=Path, help="directory to write it into")
    package = build(parser.parse_args().out)
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    print(f"{package}: {package.stat().st_size} bytes, sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
