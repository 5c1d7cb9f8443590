"""`sealift demo` as a user runs it, with small images: every step, and no trace left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sealift.sim.plot import STEPS

SEALIFT = Path(sys.executable).parent / "sealift"
WORK = Path(__file__).resolve().parents[2] / ".venv/test-demo"
"""Packages and images are kept there for the next run, as a user's cache keeps them."""


def _demo(*more: str | Path, work: Path = WORK) -> list[str]:
    words = ("demo", "--json", "--image-size", "small", "--work", work, *more)
    return [str(SEALIFT), *map(str, words)]


def _left(work: Path) -> list[str]:
    """Processes that know the work directory and should have ended."""
    found = []
    for listed in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = listed.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if any(str(work / "run") in word for word in words):
            found.append(" ".join(words))
    return found


def test_every_step_holds() -> None:
    """Exit status 0, one JSON object per step and line, and nothing is left running."""
    done = subprocess.run(
        _demo(), capture_output=True, text=True, check=False, timeout=500
    )
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert [step["step"] for step in steps if not step["ok"]] == [], done.stdout
    assert [step["step"] for step in steps] == [step.name for step in STEPS]
    assert all(set(step) == {"step", "ok", "detail", "seconds"} for step in steps)
    assert done.returncode == 0
    assert not (WORK / "run").exists(), "keys of a run that held are not kept"
    assert _left(WORK) == []


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    """Interrupted while server and device run, the demo ends all of them first."""
    _borrow_images(tmp_path)
    process = subprocess.Popen(
        _demo(work=tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["step"] == "device":
            break
    assert len(_left(tmp_path)) >= 3, "server, board and agent run by now"
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    assert process.wait(60) == 130
    assert _left(tmp_path) == []


def test_a_step_that_fails_is_told_and_its_logs_are_kept(tmp_path: Path) -> None:
    """A broken tool ends the demo with status 1 and says where to look."""
    environ = {**os.environ, "PATH": "/nonexistent"}
    done = subprocess.run(
        _demo(work=tmp_path),
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=120,
    )
    (step,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (step["step"], step["ok"]) == ("images", False)
    assert "[config.missing]" in step["detail"]
    assert done.returncode == 1
    assert str(tmp_path / "run") in done.stderr
    assert (tmp_path / "run").is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image-size", "huge"], "full or small"),
        (["--work", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_a_wrong_option_gets_a_hint(words: list[str], said: str) -> None:
    """A size that does not exist and a place nobody can write are refused politely."""
    done = subprocess.run(
        [SEALIFT, "demo", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_two_demos_do_not_share_a_directory(tmp_path: Path) -> None:
    """A second demo in the same directory ends at once, and says what to do."""
    _borrow_images(tmp_path)
    first = subprocess.Popen(
        _demo(work=tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 30
        while not (tmp_path / "run").is_dir() and time.monotonic() < until:
            time.sleep(0.05)
        second = subprocess.run(
            _demo(work=tmp_path), capture_output=True, text=True, check=False
        )
    finally:
        first.send_signal(signal.SIGTERM)
        first.communicate(timeout=60)
    assert second.returncode == 5
    assert "device.busy" in second.stdout
    assert first.returncode == 130


def _borrow_images(work: Path) -> None:
    """Start from what an earlier demo fetched and built, if there was one."""
    for name in ("debs", "images", "packages-small.json", "tools"):
        if (WORK / name).exists() and not (work / name).exists():
            (work / name).symlink_to(WORK / name)
