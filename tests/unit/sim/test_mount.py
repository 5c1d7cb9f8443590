"""Between loader and programs: the running slot, checked, is what programs see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sealift.agent.boot.file import Started, running_text
from sealift.core.types import Slot
from sealift.sim import ext4

TOOLS = Path(__file__).resolve().parents[3] / ".venv/test-images/tools"


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """Two slots, each with a file that says which; the loader started slot b."""
    for name in "ab":
        tree = tmp_path / f"tree-{name}"
        tree.mkdir()
        (tree / "which").write_text(name)
        ext4.find(TOOLS).make(tree, tmp_path / f"slot-{name}", 1 << 20)
    (tmp_path / "running").write_bytes(running_text(Started(Slot.B, "1-boot")))
    return tmp_path


def mount(board: Path, *program: str) -> subprocess.CompletedProcess[str]:
    words: list[str | Path] = [
        "--store",
        board,
        "--root",
        board / "root",
        "--tools",
        TOOLS,
    ]
    words += ["--slot-a", board / "slot-a", "--slot-b", board / "slot-b"]
    return subprocess.run(
        [sys.executable, "-m", "sealift.sim.mount", *words, "--", *program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_programs_see_the_slot_that_runs(board: Path) -> None:
    """What is mounted is the slot of the loader's word, and nothing older."""
    (board / "root").mkdir()
    (board / "root/left-over").touch()
    done = mount(board, "/bin/sh", "-c", f"ls {board}/root; cat {board}/root/which")
    assert (done.returncode, done.stdout) == (0, "lost+found\nwhich\nb")


def test_a_broken_file_system_does_not_start(board: Path) -> None:
    """A slot without a sound file system ends before any program, by device.slot."""
    (board / "slot-b").write_bytes(bytes(1 << 20))
    done = mount(board, "/bin/echo", "started")
    assert (done.returncode, done.stdout) == (5, "")
    assert "[device.slot]" in done.stderr


def test_without_a_loader_nothing_starts(board: Path) -> None:
    """Nobody said what runs: nothing does."""
    (board / "running").unlink()
    done = mount(board, "/bin/echo", "started")
    assert (done.returncode, done.stdout) == (5, "")
    assert "[device.boot]" in done.stderr


def test_a_missing_program_is_told(board: Path) -> None:
    """A program that is not there is named, without a traceback."""
    done = mount(board, "/nonexistent/agent")
    assert done.returncode == 1
    assert "/nonexistent/agent: No such file" in done.stderr
    assert "Traceback" not in done.stderr
