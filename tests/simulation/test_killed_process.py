"""The shipped agent parts on real files, killed at any fsync, started by the board."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from sealift.agent.boot.file import open_store
from sealift.agent.journal import JOURNAL_BYTES, Floors, Journal
from sealift.agent.machine import Idle
from sealift.agent.record import FileCells, Record
from sealift.core.types import Slot
from sealift.sim.board import Board, Settings
from sealift.sim.device import ECU, NEW, OLD, SLOT_BYTES, Kind

AGENT = """
    import os, signal, sys, time
    from sealift.agent.boot.file import open_boot
    from sealift.agent.install.ab import AbInstaller
    from sealift.agent.journal import JOURNAL_BYTES, Floors, Journal
    from sealift.agent.machine import Idle
    from sealift.agent.ports import CheckResult
    from sealift.agent.record import FileCells, Record
    from sealift.agent.shell import Component, Outside, Shell
    from sealift.agent.slot import PathSlots
    from sealift.core.types import Slot
    from sealift.sim.device import ECU, NEW, OLD, Kind
    from sealift.sim.world import SimClock

    directory, kind, kill_at = {directory!r}, Kind({kind!r}), {kill_at}
    image = NEW[kind]

    def counting(real):
        # The count goes on across lives; at one sync of all, the process is gone.
        def sync(fd):
            with open(directory + "/syncs", "a") as file:
                file.write(".")
            if os.path.getsize(directory + "/syncs") == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            real(fd)
        return sync

    os.fsync, os.fdatasync = counting(os.fsync), counting(os.fdatasync)

    class Checks:
        def check(self, order):
            return [CheckResult("self-test", kind is Kind.GOOD)]

    def fill(order, _base):
        def filling(into, base):
            for at in range(0, len(image.content), 16):
                piece = image.content[at : at + 16]
                if into.read(at, len(piece)) != piece:
                    into.write(at, piece)
                    into.flush()
        return filling

    def report(result):
        with open(directory + "/reports", "a") as file:
            print(result.id, result.verdict, file=file)

    def record(name):
        return Record(FileCells(directory, name), limit=JOURNAL_BYTES)

    boot = open_boot(directory)
    slots = PathSlots({{it: directory + "/slot-" + it for it in Slot}})
    installer = AbInstaller(boot, slots, boot.boot_id)
    part = Component(
        ECU, installer, fill, lambda: sys.exit(75), Checks(),
        factory=lambda: installer.recognised(OLD.artifact),
    )
    outside = Outside(poll=lambda: [image.order()], report=report)
    floors = Floors(record("floors"))
    shell = Shell([part], Journal(record("journal")), floors, SimClock(), outside)
    shell.once()
    sys.exit(0 if all(isinstance(it, Idle) for it in shell.states.values()) else 1)
"""


def live(directory: Path, kind: Kind, kill_at: int) -> list[str]:
    """One device's life; what its board said."""
    for slot, content in ((Slot.A, OLD.content), (Slot.B, b"")):
        path = directory / f"slot-{slot}"
        path.write_bytes(content.ljust(SLOT_BYTES, b"\xff"))
        path.chmod(0o600)
    said: list[str] = []
    program = textwrap.dedent(AGENT).format(
        directory=str(directory), kind=str(kind), kill_at=kill_at
    )
    settings = Settings(str(directory), revive=True, starts=12)
    status = Board(settings, said.append).run([sys.executable, "-c", program])
    assert status == 0, said
    return said


@pytest.mark.parametrize("kind", [Kind.GOOD, Kind.UNHEALTHY])
@pytest.mark.parametrize("kill_at", [0, 2, 12, 24, 37, 50, 58, 69])
def test_a_killed_agent_finishes_what_it_began(
    tmp_path: Path, kind: Kind, kill_at: int
) -> None:
    """Killed at one fsync of its life: idle, confirmed, reported once and truly."""
    said = live(tmp_path, kind, kill_at)
    good = kind is Kind.GOOD
    slot, image = (Slot.B, NEW[kind]) if good else (Slot.A, OLD)
    store = open_store(str(tmp_path)).read()
    assert (store.default, store.next) == (slot, slot), said
    assert (tmp_path / f"slot-{slot}").read_bytes().startswith(image.content)
    journal = Journal(Record(FileCells(str(tmp_path), "journal"), limit=JOURNAL_BYTES))
    [state] = journal.read().values()
    assert isinstance(state, Idle)
    assert state.installed == image.artifact
    reports = set((tmp_path / "reports").read_text().splitlines())
    assert len(reports) == 1
    assert reports.pop().endswith("succeeded" if good else "rolled_back")
    floors = Floors(Record(FileCells(str(tmp_path), "floors"), limit=JOURNAL_BYTES))
    assert floors.floor(ECU) == (2 if good else 0)
    if 0 < kill_at < len((tmp_path / "syncs").read_text()):
        assert sum("start" in line for line in said) >= 3, "it was killed"
