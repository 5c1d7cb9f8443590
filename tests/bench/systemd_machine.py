"""A machine without a kernel of its own: Debian's systemd as the first process.

The directory of ``debian_tree`` becomes the root of new mount, process, host name, IPC
and control-group namespaces, in which ``/sbin/init`` is a real systemd with its real
fences. A restart ends it; who holds the machine starts it again, as a loader does. It
needs root, as control groups do.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

_OUTER = """
set -e
mount --make-rprivate /
mkdir -p {work}/groups
mount -t cgroup2 cgroup2 {work}/groups
mkdir -p {work}/groups/{name}
echo 0 > {work}/groups/{name}/cgroup.procs
exec unshare --cgroup sh -c {inner}
"""
_INNER = """
set -e
mount --bind {root} {root}
mount -t proc proc {root}/proc
mount -t sysfs sysfs {root}/sys
mount -t cgroup2 cgroup2 {root}/sys/fs/cgroup
mount -t tmpfs tmpfs {root}/run
mount -t tmpfs tmpfs {root}/tmp
mount -t tmpfs tmpfs {root}/dev
for node in null zero full random urandom; do
    touch {root}/dev/$node
    mount --bind /dev/$node {root}/dev/$node
done
mkdir -p {root}/run/sealift
{more}
exec chroot {root} /usr/bin/env -i container=sealift PATH=/usr/sbin:/usr/bin \
    /lib/systemd/systemd --system --unit=multi-user.target
"""


class Machine:
    """One machine over the directory ``root``; ``work`` is for what it needs outside."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root = root
        self._work = work
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0

    def start(self, more: str = "") -> None:
        """Power on; ``more`` are shell lines a loader or initramfs would have run."""
        facts = {"root": shlex.quote(str(self.root)), "more": more}
        outer = _OUTER.format(
            work=shlex.quote(str(self._work)),
            name=_group(),
            inner=shlex.quote(_INNER.format(**facts)),
        )
        spaces = ("--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child")
        with (self._work / "console").open("ab") as console:
            self._process = subprocess.Popen(
                ["unshare", *spaces, "sh", "-c", outer],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.wait(lambda: bool(self._first()), "a first process")
        self._pid = self._first()

    def _first(self) -> int:
        assert self._process is not None
        place = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        found = place.read_text().split() if place.exists() else []
        return int(found[0]) if found else 0

    @property
    def runs(self) -> bool:
        """Whether it is on."""
        return self._process is not None and self._process.poll() is None

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside, as root."""
        enter = ("nsenter", "--target", str(self._pid), "--all", "--root", "--wd")
        return subprocess.run(
            [*enter, *command], capture_output=True, text=True, check=False, timeout=60
        )

    def show(self, unit: str) -> Mapping[str, str]:
        """The properties of a unit."""
        lines = self.run("systemctl", "show", unit).stdout.splitlines()
        found = defaultdict[str, str](str)  # nobody answers yet: nothing is known
        for line in lines:
            name, _, value = line.partition("=")
            found[name] = value
        return found

    def journal(self) -> str:
        """What systemd and its services said since the start."""
        return self.run("journalctl", "--boot", "--no-pager").stdout

    def wait(
        self, condition: Callable[[], bool], what: str, seconds: float = 60
    ) -> None:
        """Until it holds."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                told = self.journal() if self._pid and self.runs else ""
                console = (self._work / "console").read_text(errors="replace")
                told = f"{console[-2000:]}\n{told[-6000:]}"
                raise AssertionError(f"no {what} within {seconds} s\n{told}")
            time.sleep(0.2)

    def wait_off(self, seconds: float = 90) -> None:
        """Until it restarts or stops by itself."""
        self.wait(lambda: not self.runs, "end of this start", seconds)

    def off(self) -> None:
        """Pull the plug, and leave no group behind."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
        self._process = None
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[2] == "cgroup2":
                self._forget(Path(line.split()[1]) / _group())

    def _forget(self, group: Path) -> None:
        """Remove the control groups; whoever was in them is still on the way out."""
        until = time.monotonic() + 10
        while group.exists() and time.monotonic() < until:
            _remove_groups(group)
            time.sleep(0.1)


def _group() -> str:
    return f"sealift-{os.getpid()}"


def _remove_groups(top: Path) -> None:
    """Empty groups, the innermost first; one that is not empty stays."""
    if top.is_dir():
        for below in top.iterdir():
            if below.is_dir():
                _remove_groups(below)
        with contextlib.suppress(OSError):
            top.rmdir()
