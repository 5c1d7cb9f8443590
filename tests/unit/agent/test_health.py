"""Health checks: a status of 0 in time, and nothing else, is health."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from sealift.agent.health import DETAIL_MAX, CommandCheck, CommandHealth
from sealift.agent.ports import CheckResult
from sealift.core.types import Artifact, Container, Instruction
from tests.unit.agent.system_clock import SystemClock

ARTIFACT = Artifact(
    "p/c-2.img", 1, b"\xaa" * 32, None, 1 << 20, b"", ("hw",), 1, "2.0.1"
)
ORDER = Instruction(
    "dev-0001-main", "hw", ARTIFACT, Container("x", 1, b"", 1, b""), None, None, 1, b""
)


def check(*command: str, deadline: float = 5.0) -> CheckResult:
    found = CommandCheck("it", command, deadline)
    return CommandHealth([found], SystemClock()).check(ORDER)[0]


def shell(script: str, deadline: float = 5.0) -> CheckResult:
    return check("/bin/sh", "-c", script, deadline=deadline)


def test_status_0_is_health_and_output_is_kept() -> None:
    """A command that succeeds passes, with what it said."""
    assert shell("echo fine; echo really >&2") == CheckResult(
        "it", True, "fine\nreally"
    )


ROWS = [
    ("another status", "echo broken; exit 3", "status 3\nbroken"),
    ("a signal", "kill -SEGV $$", "signal 11"),
]


@pytest.mark.parametrize(("sentence", "script", "detail"), ROWS)
def test_anything_else_is_not(sentence: str, script: str, detail: str) -> None:
    """A status or a signal fails the check and is named."""
    assert shell(script) == CheckResult("it", False, detail)


@pytest.mark.parametrize(
    "program", ["/does/not/exist", "/etc/passwd", "/tmp", "/bin/tr\0ue"]
)
def test_a_program_that_cannot_start_is_a_failure(program: str) -> None:
    """Missing, not executable, a directory, a name with NUL: a failed check, no traceback."""
    found = check(program)
    assert not found.ok
    assert found.detail.startswith("no start")


def gone(pid: int) -> bool:
    for _ in range(100):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
            time.sleep(0.02)
            continue
        return True
    return False


HANGS = [
    ("sleeps", "sleep 60"),
    ("sleeps with its output closed", "exec >&- 2>&-; sleep 60"),
    ("ignores SIGTERM", "trap '' TERM; sleep 60"),
    ("talks for ever", "while :; do echo x; done"),
    ("leaves a child with the pipe", "sleep 60 & sleep 60"),
]


@pytest.mark.parametrize(("sentence", "script"), HANGS)
def test_a_hang_is_a_failure_at_the_deadline(sentence: str, script: str) -> None:
    """However it hangs, it is over at the deadline."""
    began = time.monotonic()
    found = shell(script, deadline=0.3)
    assert time.monotonic() - began < 3
    assert not found.ok
    assert found.detail.startswith("no end within 0.3 s")


def test_the_whole_group_ends_with_its_check(tmp_path: Path) -> None:
    """A child left in the background does not outlive the check, even a passing one."""
    for script in (
        "sleep 60 & echo $! >{}; exit 0",
        "sleep 60 & echo $! >{}; sleep 60",
    ):
        file = tmp_path / "pid"
        shell(script.format(file), deadline=0.5)
        assert gone(int(file.read_text()))


def test_a_check_ends_with_its_command() -> None:
    """A daemon it left behind with the pipe open does not hold it up."""
    began = time.monotonic()
    assert shell("sleep 60 & echo started").ok
    assert time.monotonic() - began < 2


def test_output_is_cut_and_cleaned() -> None:
    """A megabyte of escapes becomes a thousand printable characters."""
    found = shell("head -c 1000000 /dev/zero | tr '\\0' '\\033'")
    assert found.ok
    assert len(found.detail) == DETAIL_MAX
    assert "\x1b" not in found.detail


def test_the_environment_is_clean_and_says_what_is_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing of the agent's environment leaks, D-12; the order is there to be checked."""
    monkeypatch.setenv("SECRET", "token")
    monkeypatch.setenv("LD_PRELOAD", "")
    found = check("/usr/bin/env").detail.splitlines()
    assert {line.partition("=")[0] for line in found} <= {
        "PATH", "LANG", "SEALIFT_ECU", "SEALIFT_VERSION", "SEALIFT_IMAGE_SHA256", "PWD", "LC_CTYPE",
    }  # fmt: skip
    assert "SEALIFT_VERSION=2.0.1" in found
    assert f"SEALIFT_IMAGE_SHA256={'aa' * 32}" in found


def test_there_is_no_input_and_no_shell() -> None:
    """Standard input is empty, and arguments are arguments."""
    assert check("/bin/cat").ok
    assert check("/bin/echo", "a; echo $HOME `id`").detail == "a; echo $HOME `id`"


def test_every_check_runs_whatever_the_others_say() -> None:
    """A report names all that failed, in their order."""
    checks = [
        CommandCheck("first", ("/bin/false",), 1),
        CommandCheck("second", ("/bin/true",), 1),
    ]
    found = CommandHealth(checks, SystemClock()).check(ORDER)
    assert [(result.name, result.ok) for result in found] == [
        ("first", False), ("second", True),
    ]  # fmt: skip


def test_no_checks_is_no_results() -> None:
    """That the slot booted is then all that is asked."""
    assert CommandHealth([], SystemClock()).check(ORDER) == []
