"""A whole Debian in a directory, made without root: real dpkg, real systemd, Python.

Programs run in it behind ``chroot`` in a user namespace of their own, so nothing of it
touches this machine. No maintainer script of Debian's has run: what is tested here is
what our package does, not what Debian's do.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from sealift.sim import images
from tests.bench import cache, rootfs

PACKAGES = (
    *("dpkg", "libc-bin", "coreutils", "dash", "sed", "tar", "diffutils", "grep"),
    *("python3", "python3-cryptography", "systemd", "libubootenv-tool", "strace"),
    *("procps", "util-linux", "findutils"),
)
_PLACES = (
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "var/log",
    "boot",
    "var/lib/dpkg/updates",
)
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_ENTER = """
set -e
mount --rbind /dev {root}/dev
mount --rbind /proc {root}/proc
exec chroot {root} /usr/bin/env -i {words}
"""


def tree() -> Path:
    """The tree that is kept; copy it before you write."""
    debs = sorted(rootfs.packages(None, PACKAGES).glob("*.deb"))

    def build(into: Path) -> None:
        root = into / "root"
        root.mkdir()
        images.plant(debs, root)
        for name in _PLACES:
            (root / name).mkdir(parents=True, exist_ok=True)

    return (
        cache.built("debian", cache.digest([deb.name for deb in debs]), build) / "root"
    )


def copy(into: Path) -> Path:
    """A copy to write to."""
    shutil.copytree(tree(), into, symlinks=True)
    return into


def run(
    root: Path,
    *command: str,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """``command`` inside, as a root that is none outside; its output and status."""
    facts = {**_ENVIRONMENT, **(environment or {})}
    words = [*(f"{name}={value}" for name, value in facts.items()), *command]
    script = _ENTER.format(root=shlex.quote(str(root)), words=shlex.join(words))
    return subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
