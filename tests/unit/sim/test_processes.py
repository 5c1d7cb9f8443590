"""A demonstration leaves no process behind, however it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sealift.core.errors import FailedTransferError, OutcomeError
from sealift.sim.processes import free_ports, wait_for

ROOT = Path(__file__).resolve().parents[3]

STUBBORN = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:          # a child in a session of its own, as a daemon has
    os.setsid()
    if os.fork():
        os._exit(0)
open(sys.argv[1], "a").write(f"{os.getpid()}\\n")
time.sleep(60)
"""

SCENE = """
import sys, time
from pathlib import Path
from sealift.sim import processes
processes.POLITE_SECONDS = 0.5
pids = Path(sys.argv[1])
with processes.Processes(pids.parent / "logs") as run:
    run.start("stubborn", sys.executable, "-c", sys.argv[2], pids)
    while not pids.exists() or len(pids.read_text().split()) < 2:
        time.sleep(0.02)
    match sys.argv[3]:
        case "failure": raise RuntimeError("as planned")
        case "interrupt": raise KeyboardInterrupt
"""


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]
    except OSError:
        return False


@pytest.mark.parametrize("end", ["success", "failure", "interrupt"])
def test_nothing_is_left_behind(tmp_path: Path, end: str) -> None:
    """Children that ignore SIGTERM, and their daemons, are gone after the block."""
    pids = tmp_path / "pids"
    # In a process of its own: adopting orphans is a property of the whole process.
    subprocess.run(
        [sys.executable, "-c", SCENE, pids, STUBBORN, end],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=60,
    )
    found = [int(word) for word in pids.read_text().split()]
    assert len(found) == 2
    assert not [pid for pid in found if _alive(pid)]


def _scene(tmp_path: Path, body: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            (
                "import sys; from pathlib import Path\n"
                "from sealift.sim.processes import Processes\n"
                "from sealift.core.errors import SealiftError\n"
                f"with Processes(Path({str(tmp_path)!r})) as run:\n"
                f"    try: print({body})\n"
                "    except SealiftError as error: print(error.code, error.message)\n"
            ),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_output_and_status_are_kept(tmp_path: Path) -> None:
    """What a program writes comes back, and lies in the log with its status."""
    said = _scene(tmp_path, "run.run('echo', '[1, 2]').json()")
    assert said == "[1, 2]"
    assert (
        "$ echo [1, 2]\n[1, 2]\n[status 0]" in (tmp_path / "commands.log").read_text()
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("run.run('false')", OutcomeError.code),
        ("run.run('true', status=3)", OutcomeError.code),
        ("run.run('echo', 'text').json()", OutcomeError.code),
        ("run.run('sleep', '60', seconds=0.2)", FailedTransferError.code),
    ],
)
def test_another_end_than_required_is_an_error(
    tmp_path: Path, body: str, code: str
) -> None:
    """A wrong status, a wrong form and a hang are told apart."""
    assert _scene(tmp_path, body).split()[0] == code


def test_ports_are_free_and_different() -> None:
    """Each port is another one, and can be listened on."""
    found = free_ports(4)
    assert len(set(found)) == 4
    assert all(1024 <= port < 65536 for port in found)


def test_waiting_ends() -> None:
    """What never happens is an error after the time given, not a hang."""
    began = time.monotonic()
    with pytest.raises(FailedTransferError, match="the moon"):
        wait_for(lambda: False, "the moon", seconds=0.1)
    assert time.monotonic() - began < 5
