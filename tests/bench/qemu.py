"""One QEMU machine: its console in a file, a shell inside, a monitor, no network.

Whoever builds a board's command line (``x86``, ``uboot``) gets from here what all boards
share: :class:`Machine` starts and ends the process and reads its console against
deadlines; :func:`network` lets a guest reach one TCP port of this machine and nothing
else (device-D38); :func:`drive` keeps raw and qcow2 apart (device-D34). The accelerator
is always TCG and asserted (device-D35).
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from tests.bench import toolbox

GUEST_SERVER = "10.0.2.100"
"""The one address a guest reaches; :data:`GUEST_PORT` there is the test server."""
GUEST_PORT = 8799
GUEST_ADDRESS = "10.0.2.15/24"
"""What a guest gives itself: there is no need for DHCP."""

_ESCAPES = re.compile(r"\x1b(\[[0-9;?=]*[ -/]*[@-~]|[()][0-9A-B]|[=>])|\r|\x00")
_STEP = 0.05
_SHOWN_LINES = 40


class BenchError(AssertionError):
    """The machine did not do what the test waits for; the text shows its console."""


def network(port: int | None) -> tuple[str, ...]:
    """A network in which :data:`GUEST_SERVER` is ``127.0.0.1:port``; ``None``: nothing.

    Every connection of a guest is a ``busybox nc`` of its own, a pipe to the server:
    with ``restrict=on`` there is no other way out.
    """
    words = "user,id=n0,restrict=on"
    if port is not None:
        nc = f"{toolbox.program('busybox')} nc 127.0.0.1 {port}"
        words += f",guestfwd=tcp:{GUEST_SERVER}:{GUEST_PORT}-cmd:{nc}"
    return ("-netdev", words)


def drive(path: Path, name: str, *more: str) -> tuple[str, ...]:
    """``-drive`` for a file in the format its suffix says: ``.qcow2``, else raw."""
    return ("-drive", ",".join([f"id={name},file={path},format={form(path)}", *more]))


def form(path: Path) -> str:
    """The format of a disk file, by its suffix."""
    return "qcow2" if path.suffix == ".qcow2" else "raw"


def overlay(base: Path, into: Path) -> Path:
    """A qcow2 file over ``base``, which is never written: a copy in no time."""
    words = ("create", "-q", "-f", "qcow2", "-F", form(base), "-b", str(base.resolve()))
    subprocess.run(
        [toolbox.program("qemu-img"), *words, str(into)],
        check=True,
        env=toolbox.environment(),
    )
    return into


class Machine:
    """A QEMU process. ``with Machine(...) as machine: machine.expect("login")``.

    ``argv`` is the program and its options without console, monitor and accelerator.
    The console is the first serial port, its text grows in ``place/console.log``. With
    ``shell`` the guest has a second port (``-serial`` again, or what the words say,
    which then name the character device ``shell``), on which a quiet shell reads
    commands: :meth:`run`.
    """

    def __init__(
        self,
        place: Path,
        argv: Sequence[str | Path],
        *,
        shell: Sequence[str] | None = ("-serial", "chardev:shell"),
        tcg: str = "tcg,thread=multi",
        name: str = "console",
    ) -> None:
        self.place = place
        self.log = place / f"{name}.log"
        self._argv = [str(word) for word in argv]
        self._shell_words = shell
        self._tcg = tcg
        self._sockets = Path(tempfile.mkdtemp(prefix="sealift-qemu-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._shell: socket.socket | None = None
        self._monitor: _Monitor | None = None
        self._seen = 0
        self.started = 0.0

    # ── life ─────────────────────────────────────────────────────────────────────
    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._sockets, ignore_errors=True)

    def start(self, *more: str) -> None:
        """Power on; the console's log goes on where it was."""
        self._refuse_accelerators()
        self._sockets.mkdir(exist_ok=True)
        self.mark()
        words = [
            *self._argv,
            *("-accel", self._tcg, "-display", "none", "-serial", "stdio"),
            *("-qmp", f"unix:{self._sockets}/qmp,server=on,wait=off"),
        ]
        if self._shell_words is not None:
            port = f"socket,id=shell,path={self._sockets}/shell,server=on,wait=off"
            words += ["-chardev", port, *self._shell_words]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_leashed(), *words, *more],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=toolbox.environment(),
                cwd=self.place,
                start_new_session=True,
            )
        self.started = time.monotonic()
        self._monitor = None
        self._shell = None
        self._require_tcg()

    def stop(self) -> None:
        """Power off at once. A cut for those who ask what survives one is `cut`."""
        self._close()
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)  # writes back what it caches
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(10)
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    def cut(self) -> None:
        """SIGKILL: the power is gone between two instructions.

        Raises:
            BenchError: a qcow2 file would lose what the guest had flushed long ago (D34).
        """
        for block in self.monitor("query-block"):
            inserted = block.get("inserted") or {}
            if inserted.get("drv") == "qcow2" and not inserted["ro"]:
                raise BenchError(f"{inserted['file']} is qcow2: cuts are made on raw")
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process, for those who kill it at a moment of their own."""
        assert self._process is not None
        return self._process.pid

    def wait_off(self, seconds: float) -> None:
        """Until the machine ended by itself (power off, or a reset with -no-reboot)."""
        self._wait(lambda: not self.alive, "end of the process", seconds)

    # ── console ──────────────────────────────────────────────────────────────────
    @property
    def text(self) -> str:
        """All of the console so far, without escape sequences."""
        raw = self.log.read_bytes() if self.log.exists() else b""
        return _ESCAPES.sub("", raw.decode("utf-8", "replace"))

    def mark(self) -> None:
        """What the console says from here on is what :meth:`expect` looks at."""
        self._seen = len(self.text)

    @property
    def news(self) -> str:
        """The console since the last mark or match."""
        return self.text[self._seen :]

    def expect(self, pattern: str, seconds: float, *, never: str = "") -> re.Match[str]:
        """Wait for a pattern behind the last match; the next one is looked for behind it.

        Raises:
            BenchError: it did not come in time, the machine ended, or ``never`` came.
        """
        wanted = re.compile(pattern, re.MULTILINE)
        unwanted = re.compile(never, re.MULTILINE) if never else None
        found: re.Match[str] | None = None

        def came() -> bool:
            nonlocal found
            text = self.text
            found = wanted.search(text, self._seen)
            end = found.start() if found else len(text)
            if unwanted and unwanted.search(text, self._seen, end):
                raise BenchError(f"{never!r} came on the console\n{self._tail()}")
            return found is not None

        self._wait(came, repr(pattern), seconds, dead_ends=True)
        assert found is not None
        self._seen = found.end()
        return found

    def send(self, text: str) -> None:
        """Type on the console."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    # ── inside ───────────────────────────────────────────────────────────────────
    def run(self, command: str, seconds: float = 60.0, *, check: bool = True) -> str:
        """Run a shell command in the guest; what it printed on both outputs.

        Raises:
            BenchError: it did not end in time, or failed while ``check``.
        """
        token = secrets.token_hex(8)
        told = f"printf '\\n@%s:%s@\\n' {token} $?"
        whole = base64.b64encode(command.encode()).decode()
        inner = f'sh -c "$(echo {whole} | busybox base64 -d)"'
        line = f"{inner} </dev/null 2>&1; {told}\n"
        said, end = self._ask(line, rf"\n@{token}:(\d+)@", seconds)
        text = said.decode("utf-8", "replace").replace("\r", "")
        if check and int(end[1]):
            raise BenchError(f"{command!r} ended with {int(end[1])}: {text}")
        return text.strip("\n")

    def _ask(
        self, line: str, pattern: str, seconds: float
    ) -> tuple[bytes, re.Match[bytes]]:
        """Type at the shell until the pattern comes; what came before it."""
        port, wanted = self._shell_port(), re.compile(pattern.encode())
        port.sendall(line.encode())
        said, until = b"", time.monotonic() + seconds
        while (end := wanted.search(said)) is None:
            left = until - time.monotonic()
            if left <= 0 or not self.alive:
                raise BenchError(
                    f"{line!r} brought only {said[-400:]!r}\n{self._tail()}"
                )
            port.settimeout(min(left, 1.0))
            with contextlib.suppress(TimeoutError):
                said += port.recv(65536)
        return said[: end.start()], end

    def json(self, command: str, seconds: float = 60.0) -> Any:
        """Run a command that prints one JSON value on standard output."""
        return json.loads(self.run(f"{command} 2>/dev/null", seconds))

    def read(self, path: str) -> bytes:
        """A file of the guest."""
        return base64.b64decode(self.run(f"busybox base64 {shlex.quote(path)}"))

    def write(self, path: str, data: bytes) -> None:
        """Write a small file in the guest."""
        text = base64.b64encode(data).decode()
        self.run(f"echo {text} | busybox base64 -d > {shlex.quote(path)}")

    def _shell_port(self) -> socket.socket:
        if self._shell is None:
            self._shell = socket.socket(socket.AF_UNIX)
            self._shell.connect(str(self._sockets / "shell"))
        return self._shell

    def settle(self, seconds: float = 60.0) -> None:
        """Wait for the guest's shell, once after each start of the guest.

        Before it is up, a terminal echoes what is typed, or forgets it: so ask again
        and again, and then once more, to have all earlier answers behind us.
        """
        until = time.monotonic() + seconds
        while True:
            try:
                self._answer(1.0)
                break
            except BenchError:
                if time.monotonic() > until or not self.alive:
                    raise
        self._answer(seconds)

    def _answer(self, seconds: float) -> None:
        token = secrets.token_hex(8)
        self._ask(f"\nprintf '\\n@%s@\\n' {token}\n", rf"\n@{token}@\r?\n", seconds)

    def monitor(self, command: str, **arguments: object) -> Any:
        """A command of QEMU's monitor (QMP); what it returns."""
        if self._monitor is None:
            self._monitor = _Monitor(self._sockets / "qmp", lambda: self.alive)
        return self._monitor.ask(command, arguments)

    def human(self, line: str) -> str:
        """A line of QEMU's human monitor, for what QMP has no command for."""
        said = str(self.monitor("human-monitor-command", **{"command-line": line}))
        if "Error" in said or "error" in said:
            raise BenchError(f"{line}: {said}")
        return said

    def save(self, name: str) -> None:
        """``savevm``: the machine as it is, in its qcow2 files, to ``-loadvm`` later.

        Raises:
            BenchError: a file that is written is not qcow2 (D34).
        """
        for block in self.monitor("query-block"):
            inserted = block.get("inserted") or {}
            if inserted and not inserted["ro"] and inserted["drv"] != "qcow2":
                raise BenchError(f"{inserted['file']} is {inserted['drv']}, not qcow2")
        self.human(f"savevm {name}")

    # ── inner ────────────────────────────────────────────────────────────────────
    def _refuse_accelerators(self) -> None:
        """No other accelerator, by no other spelling (D35)."""
        if "-enable-kvm" in self._argv or "-accel" in self._argv:
            raise BenchError("the accelerator is the harness's choice: TCG (D35)")
        if any("accel=" in word for word in self._argv) or "tcg" not in self._tcg:
            raise BenchError("the accelerator is TCG (D35)")

    def _require_tcg(self) -> None:
        told = self.monitor("query-kvm")
        if told["enabled"]:
            raise BenchError("this machine runs under KVM (D35)")

    def _wait(
        self,
        ready: Callable[[], bool],
        what: str,
        seconds: float,
        *,
        dead_ends: bool = False,
    ) -> None:
        until = time.monotonic() + seconds
        while not ready():
            if dead_ends and not self.alive and not ready():
                raise BenchError(f"{what}: the machine is off\n{self._tail()}")
            if time.monotonic() > until:
                raise BenchError(f"{what}: not within {seconds:.0f} s\n{self._tail()}")
            time.sleep(_STEP)

    def _tail(self) -> str:
        lines = [line for line in self.text.splitlines() if line.strip()]
        return "\n".join(["console:", *lines[-_SHOWN_LINES:]])

    def _close(self) -> None:
        if self._shell is not None:
            self._shell.close()
            self._shell = None
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None


class _Monitor:
    """QMP over its socket: one question, one answer; events are passed over."""

    def __init__(self, path: Path, alive: Callable[[], bool]) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        until = time.monotonic() + 30
        while True:
            try:
                self._socket.connect(str(path))
                break
            except OSError as error:
                if not alive() or time.monotonic() > until:
                    raise BenchError(f"QEMU did not start: {error}") from error
                time.sleep(_STEP)
        self._socket.settimeout(120)
        self._lines = self._read()
        next(self._lines)  # the greeting
        self.ask("qmp_capabilities", {})

    def ask(self, command: str, arguments: dict[str, object]) -> Any:
        question = {"execute": command, "arguments": arguments}
        self._socket.sendall(json.dumps(question).encode() + b"\n")
        for answer in self._lines:
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise BenchError(f"{command}: {answer['error']['desc']}")
        raise BenchError(f"{command}: QEMU is gone")

    def _read(self) -> Iterator[dict[str, Any]]:
        rest = b""
        while piece := self._socket.recv(65536):
            *lines, rest = (rest + piece).split(b"\n")
            yield from (json.loads(line) for line in lines if line.strip())

    def close(self) -> None:
        self._socket.close()


def _leashed() -> list[str]:
    """Words before a program by which it ends when whoever started it ends."""
    setpriv = shutil.which("setpriv", path="/usr/bin:/bin")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
