"""The reference board: it counts, restarts, bites, and ends as its program ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from sealift.agent.boot.file import Store, open_boot, open_store, read_running
from sealift.core.errors import BootError, MissingToolError
from sealift.core.types import Slot
from sealift.sim.board import Board, Settings, main

AGENT = """
    import os, sys, time
    from sealift.agent.boot.file import open_boot
    from sealift.core.types import Slot
    boot = open_boot({directory!r})
    log = open({log!r}, "a")
    print(boot.current(), boot.boot_id(), boot.state().slots[Slot.B], file=log, flush=True)
    slot = boot.current()
"""


class Rig:
    """A board directory and a program whose behaviour is a few lines of Python."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.said: list[str] = []

    def run(self, body: str, **settings: object) -> int:
        """Run the board around a program that logs its start and then does ``body``."""
        board = Board(
            Settings(str(self.directory), **settings),  # type: ignore[arg-type]
            self.said.append,
        )
        return board.run(self.program(body))

    def program(self, body: str) -> list[str]:
        head = AGENT.format(directory=str(self.directory), log=str(self.log))
        return [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(body)]

    @property
    def starts(self) -> list[str]:
        return [line.split()[0] for line in self.log.read_text().splitlines()]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_the_board_ends_as_its_program_ends(rig: Rig) -> None:
    """On a confirmed slot every status but 75 is the board's own."""
    assert rig.run("sys.exit(3)") == 3
    assert rig.starts == ["a"]
    assert rig.run("os.kill(os.getpid(), 9)") == 128 + signal.SIGKILL
    assert read_running(str(rig.directory)).slot is Slot.A


def test_a_good_update(rig: Rig) -> None:
    """75 restarts into the slot on trial, whose confirm ends the trial; new boot ids."""
    status = rig.run(
        """
        if slot is Slot.A:
            boot.set_next(Slot.B, 2)
            sys.exit(75)
        boot.mark_good()
        """
    )
    assert status == 0
    assert rig.starts == ["a", "b"]
    ids = [line.split()[1] for line in rig.log.read_text().splitlines()]
    assert len(set(ids)) == 2
    assert open_store(str(rig.directory)).read().default is Slot.B


@pytest.mark.parametrize(("counts", "trials"), [(True, 2), (False, 1)])
def test_a_trial_that_dies_ends_at_home(rig: Rig, *, counts: bool, trials: int) -> None:
    """D-06: as many starts as were asked for, or one; each counted before it began."""
    status = rig.run(
        """
        if slot is Slot.A:
            if boot.state().slots[Slot.B] == "empty":
                boot.set_next(Slot.B, 2)
                sys.exit(75)
            sys.exit(0)
        os.kill(os.getpid(), 11)
        """,
        counts=counts,
    )
    assert status == 0
    assert rig.starts == ["a", *["b"] * trials, "a"]
    assert f"trial({trials - 1})" in rig.log.read_text().splitlines()[1]


def test_the_watchdog_bites_a_trial_that_hangs(rig: Rig) -> None:
    """And nobody else: the same hang on a confirmed slot is its own affair."""
    status = rig.run(
        """
        if slot is Slot.A:
            if boot.state().slots[Slot.B] == "empty":
                time.sleep(0.8)
                boot.set_next(Slot.B, 1)
                sys.exit(75)
            sys.exit(0)
        time.sleep(60)
        """,
        watchdog=0.5,
    )
    assert status == 0
    assert rig.starts == ["a", "b", "a"]
    assert any("watchdog" in line for line in rig.said)


def test_a_power_cut_is_survived_when_asked_for(rig: Rig) -> None:
    """``revive``: a SIGKILL is a power cut, and the board starts again."""
    status = rig.run(
        """
        if len(open(log.name).readlines()) == 1:
            os.kill(os.getpid(), 9)
        """,
        revive=True,
    )
    assert status == 0
    assert rig.starts == ["a", "a"]


def test_a_loop_of_restarts_is_given_up(rig: Rig) -> None:
    """The board says so instead of spinning for ever."""
    with pytest.raises(BootError):
        rig.run("sys.exit(75)", starts=3)
    assert rig.starts == ["a"] * 3


def test_a_program_that_cannot_be_started(rig: Rig) -> None:
    """config.missing, and no traceback."""
    with pytest.raises(MissingToolError):
        Board(Settings(str(rig.directory)), rig.said.append).run(["/no/such/agent"])


def test_a_lost_store_is_said_and_boots(rig: Rig) -> None:
    """B8 on the board: the remark is on its console."""
    open_store(str(rig.directory)).write(Store())
    open_boot(str(rig.directory)).set_next(Slot.B, 1)
    for name in ("boot.0", "boot.1"):
        (rig.directory / name).write_bytes(b"rotten")
    assert rig.run("") == 0
    assert "boots, it was confirmed last" in rig.said[0]


def test_as_a_program(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    """The command line: options, two dashes, the program; errors with code and hint."""
    options = ["--dir", str(rig.directory), "--starts", "2", "--no-counter", "--revive"]
    assert main([*options, "--watchdog", "5", "--", *rig.program("")]) == 0
    assert main([*options, "--", *rig.program("sys.exit(75)")]) == 5
    shown = capfd.readouterr().err
    assert "board: start 1: slot a" in shown
    assert "[device.boot]" in shown
    assert "board: hint:" in shown
    assert main(["--dir", str(rig.directory / "none"), "--", "true"]) == 5


def test_sigterm_reaches_the_program(rig: Rig) -> None:
    """Whoever stops the board stops what it runs."""
    command = [sys.executable, "-m", "sealift.sim.board", "--dir", str(rig.directory)]
    body = "print('up', file=sys.stderr, flush=True); time.sleep(60)"
    board = subprocess.Popen(
        [*command, "--", *rig.program(body)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    with board:
        assert board.stderr is not None
        for line in board.stderr:
            if line == "up\n":
                break
        board.send_signal(signal.SIGTERM)
        assert board.wait(20) == 128 + signal.SIGTERM


def test_switched_off_before_the_start(rig: Rig) -> None:
    """A SIGTERM before there is a program: it is never started, and the board ends."""

    def say(text: str) -> None:
        if text.startswith("start 1"):
            signal.raise_signal(signal.SIGTERM)

    board = Board(Settings(str(rig.directory)), say)
    assert board.run(rig.program("")) == 128 + signal.SIGTERM
    assert not rig.log.exists()


class Late(str):
    """A program's argument during whose last look, just before the fork, SIGTERM comes."""

    __slots__ = ()

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        signal.raise_signal(signal.SIGTERM)
        return super().encode(encoding, errors)


def test_switched_off_while_starting(rig: Rig) -> None:
    """A SIGTERM between the decision to start and the start reaches the program."""
    program = [Late(sys.executable), *rig.program("time.sleep(60)")[1:]]
    board = Board(Settings(str(rig.directory)), rig.said.append)
    assert board.run(program) == 128 + signal.SIGTERM


def test_switched_off_is_off(rig: Rig) -> None:
    """A program that answers SIGTERM by asking for a restart does not get one."""
    status = rig.run(
        """
        import signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        os.kill(os.getppid(), signal.SIGTERM)
        time.sleep(60)
        """
    )
    assert status == 75
    assert rig.starts == ["a"]


def test_the_program_hears_signals(rig: Rig) -> None:
    """What is blocked while it is started is not blocked in it."""
    body = (
        "sys.exit(int(open('/proc/self/status').read().split('SigBlk:')[1][:17], 16))"
    )
    assert rig.run(body) == 0


def test_a_board_that_dies_takes_its_program_with_it(rig: Rig) -> None:
    """SIGKILL of the board is the end of power: no agent is left behind."""
    command = [sys.executable, "-m", "sealift.sim.board", "--dir", str(rig.directory)]
    body = "print('up', os.getpid(), file=log, flush=True); time.sleep(60)"
    with subprocess.Popen([*command, "--", *rig.program(body)]) as board:
        while not rig.log.exists() or "up" not in rig.log.read_text():
            time.sleep(0.02)
        board.kill()
    process = Path("/proc", rig.log.read_text().split()[-1])
    deadline = time.monotonic() + 10
    while process.exists() and " Z " not in (process / "stat").read_text():
        assert time.monotonic() < deadline, "the program outlives its board"
        time.sleep(0.02)
