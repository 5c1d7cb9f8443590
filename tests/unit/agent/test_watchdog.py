"""Whoever hangs is not fed for: the rule, the two kinds of watchdog, real children."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sealift.agent import child, life, log
from sealift.agent.life import SILENCE_SECONDS
from sealift.agent.signals import Signals
from sealift.agent.watchdog import (
    GRACE_SECONDS,
    DeviceDog,
    Guard,
    ManagerDog,
)


@dataclass
class Bench:
    """A clock that is moved by hand, and a dog that writes down when it was fed."""

    at: float = 1000.0
    every: float = 10.0
    fed: list[float] = field(default_factory=list)
    released: bool = False

    def now(self) -> float:
        return self.at

    def feed(self) -> None:
        self.fed.append(self.at)

    def release(self) -> None:
        self.released = True

    def guard(self) -> Guard:
        return Guard([self], self.now)

    def pass_time(self, guard: Guard, seconds: float) -> int:
        """Look every second, as a parent does; how often the dog was fed."""
        before = len(self.fed)
        for _ in range(int(seconds)):
            self.at += 1.0
            guard.tend()
        return len(self.fed) - before


@pytest.fixture
def bench() -> Bench:
    return Bench()


# ── the rule ─────────────────────────────────────────────────────────────────────────
def test_who_shows_life_is_fed_for(bench: Bench) -> None:
    """At each interval, and not more often."""
    guard = bench.guard()
    for _ in range(50):
        guard.lives(SILENCE_SECONDS)
        bench.pass_time(guard, 10)
    assert 49 <= len(bench.fed) <= 51


def test_d27_who_is_silent_is_not_fed_for(bench: Bench) -> None:
    """The feeding ends when the silence lasts longer than was said, and is logged once."""
    guard = bench.guard()
    guard.lives(SILENCE_SECONDS)
    assert bench.pass_time(guard, SILENCE_SECONDS - 1) > 0
    lines: list[str] = []
    with log.diverted(lines.append):
        assert bench.pass_time(guard, 1000) <= 1
    assert [line.split()[:2] for line in lines] == [["error", "watchdog"]]


def test_a_long_step_that_said_so_is_fed_for(bench: Bench) -> None:
    """Flushing a slot for a quarter of an hour is no hang; a minute later it is one."""
    guard = bench.guard()
    life.listen(guard)
    try:
        with life.within(900.0):
            life.beat()  # another thread's sign does not shorten what was granted
            assert bench.pass_time(guard, 900) >= 89
            bench.pass_time(guard, SILENCE_SECONDS + 1)
            assert bench.pass_time(guard, 500) == 0
        assert bench.pass_time(guard, 60) > 0
    finally:
        life.listen(None)


def test_d27_a_trial_is_not_fed_for_beyond_its_deadline(bench: Bench) -> None:
    """Whatever shows life: a trial that does not end is a failed start."""
    guard = bench.guard()
    guard.trial(300.0)
    for _ in range(36):
        guard.lives(SILENCE_SECONDS)
        bench.pass_time(guard, 10)
    fed = len(bench.fed)
    assert bench.fed[-1] <= 1000.0 + 300.0 + GRACE_SECONDS
    for _ in range(50):
        guard.lives(SILENCE_SECONDS)
        bench.pass_time(guard, 10)
    assert len(bench.fed) == fed
    guard.settled()
    assert bench.pass_time(guard, 20) > 0


@pytest.mark.parametrize(
    ("told", "released"),
    [
        (lambda guard: None, True),
        (lambda guard: guard.trial(300.0), False),
        (lambda guard: (guard.trial(300.0), guard.settled()), True),
        (lambda guard: guard.restarts(), False),
    ],
    ids=["plain", "on trial", "trial settled", "restarting"],
)
def test_nobody_calls_a_watchdog_off_on_trial_or_before_a_restart(
    bench: Bench, told: Callable[[Guard], object], released: bool
) -> None:
    """An orderly stop does; a trial that is stopped, or a shutdown, may still hang."""
    guard = bench.guard()
    told(guard)
    guard.end()
    assert bench.released is released


def test_without_a_watchdog_nothing_is_looked_after() -> None:
    """No wake-ups for nobody."""
    guard = Guard([], lambda: 0.0)
    assert guard.tend() is None
    assert guard.lives(1.0) is None


# ── the kinds ────────────────────────────────────────────────────────────────────────
def test_a_manager_is_told_four_times_per_time_out() -> None:
    """The manager wants one word in the time it named."""
    said: list[str] = []
    dog = ManagerDog(180.0, said.append)
    dog.feed()
    dog.release()
    assert (said, dog.every) == (["WATCHDOG=1"], 45.0)


def test_a_device_is_opened_at_the_first_feeding_and_closed_with_the_magic_letter(
    tmp_path: Path,
) -> None:
    """What the kernel sees: a byte per feeding, ``V`` at an orderly stop only."""
    device = tmp_path / "watchdog"
    device.touch()
    dog = DeviceDog(str(device), 120)
    assert device.read_bytes() == b""
    dog.feed()
    dog.feed()
    assert device.read_bytes() == b"\0\0"
    dog.release()
    assert device.read_bytes() == b"\0\0V"


def test_a_device_of_the_kernel_takes_its_time_out_or_not() -> None:
    """A terminal refuses the call, as drivers without it do; it is fed all the same."""
    ours, theirs = os.openpty()
    dog = DeviceDog(os.ttyname(theirs), 60)
    dog.feed()
    assert os.read(ours, 10) in {b"\0", b"^@"}
    assert dog.every == 15.0
    os.close(ours)
    os.close(theirs)


def test_a_device_that_is_missing_is_said_once_and_tried_again(tmp_path: Path) -> None:
    """A board without its driver still gets updates, one of which may mend it."""
    device = tmp_path / "watchdog"
    lines: list[str] = []
    dog = DeviceDog(str(device), 60)
    with log.diverted(lines.append):
        dog.feed()
        dog.feed()
        device.touch()
        dog.feed()
    assert [line.split()[0] for line in lines] == ["error", "info"]
    assert device.read_bytes() == b"\0"


def test_a_device_is_not_followed_through_a_link(tmp_path: Path) -> None:
    """Somebody else's link does not have us write into a file of ours."""
    (tmp_path / "target").touch()
    (tmp_path / "watchdog").symlink_to("target")
    with log.diverted(lambda _: None):
        DeviceDog(str(tmp_path / "watchdog"), 60).feed()
    assert (tmp_path / "target").read_bytes() == b""


# ── real children ────────────────────────────────────────────────────────────────────
@pytest.fixture
def signals() -> Iterator[Signals]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    kept = {number: signal.getsignal(number) for number in numbers}
    found = Signals()
    yield found
    signal.set_wakeup_fd(-1)
    for number, handler in kept.items():
        signal.signal(number, handler)
    found.close()


@dataclass
class Fed:
    """A dog in real time."""

    every: float = 0.05
    times: list[float] = field(default_factory=list)

    def feed(self) -> None:
        self.times.append(time.monotonic())

    def release(self) -> None:
        """Nothing."""


def test_d27_a_child_that_hangs_is_not_fed_for_and_killed_in_the_end(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says once that it lives, then nothing: the feeding ends, then the child."""
    dog = Fed()
    monkeypatch.setattr(life, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(child, "HUNG_SECONDS", 2.0)
    began = time.monotonic()

    def work(_: Signals) -> child.Summary:
        life.beat()
        time.sleep(600)
        return {}

    ended = child.run(work, signals, Guard([dog], time.monotonic))
    assert ended.status == -signal.SIGKILL
    assert not ended.whole
    # A sign says whole seconds, rounded up: 0.3 becomes at most 2.
    assert dog.times[-1] - began < 2.5
    assert time.monotonic() - dog.times[-1] > 1.0


def test_d27_a_stopped_child_is_not_fed_for(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen in the middle of its work, as by a kernel that never answers."""
    dog = Fed()
    monkeypatch.setattr(life, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(child, "HUNG_SECONDS", 2.0)

    def work(_: Signals) -> child.Summary:
        for _step in range(10):
            time.sleep(0.05)
            life.beat()
        os.kill(os.getpid(), signal.SIGSTOP)
        return {}

    assert child.run(work, signals, Guard([dog], time.monotonic)).status == -9
    assert time.monotonic() - dog.times[-1] > 1.0


def test_a_child_that_works_for_long_is_fed_for_until_it_ends(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of work one after the other, and one long step that says so."""
    dog = Fed()
    monkeypatch.setattr(life, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(child, "HUNG_SECONDS", 0.5)

    def work(_: Signals) -> child.Summary:
        for _step in range(30):
            time.sleep(0.05)
            life.beat()
        with life.within(3.0):
            time.sleep(2.5)
        return {"done": True}

    ended = child.run(work, signals, Guard([dog], time.monotonic))
    assert ended.summary == {"done": True}
    gaps = [b - a for a, b in zip(dog.times, dog.times[1:], strict=False)]
    assert max(gaps) < 1.0


def test_the_parent_learns_of_trial_and_restart_from_its_child(
    signals: Signals,
) -> None:
    """What the child knows of the journal decides what its parent feeds."""
    for last, released in (("restarts", False), ("settled", True)):
        bench = Bench()
        guard = bench.guard()

        def work(_: Signals, last: str = last) -> child.Summary:
            life.trial(300.0)
            getattr(life, last)()
            return {}

        child.run(work, signals, guard)
        guard.end()
        assert bench.released is released


def test_a_parent_that_waits_feeds(signals: Signals) -> None:
    """Between two polls nobody works, and nothing hangs."""
    dog = Fed()
    life.listen(Guard([dog], time.monotonic))
    try:
        signals.wait(0.6)
    finally:
        life.listen(None)
    assert len(dog.times) >= 6


def test_a_wait_ends_with_a_stop_however_often_it_feeds(signals: Signals) -> None:
    """Feeding does not make the agent deaf."""
    life.listen(Guard([Fed(every=0.01)], time.monotonic))
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    try:
        signals.wait(60)
    finally:
        life.listen(None)
    assert signals.stopping
    assert time.monotonic() - began < 30
