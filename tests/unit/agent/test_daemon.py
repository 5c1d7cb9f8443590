"""The light parent: polls without believing, sends children, survives what they do."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from sealift.agent import child
from sealift.agent.child import RESTART, Ended
from sealift.agent.daemon import FULL_CHECK_SECONDS, Daemon, Facts, Pace
from sealift.agent.signals import Signals
from sealift.agent.trust import Polled
from sealift.core.errors import FailedTransferError, RollbackError, SealiftError

EPOCH = datetime(2026, 6, 1, tzinfo=UTC).timestamp()


@dataclass
class World:
    """A clock that only waiting moves, a server that has news, children that are told."""

    now_s: float = 0.0
    news: bool = False
    down: bool = False
    retry_after: int | None = None
    poll_seconds: int | None = None
    asked: list[Mapping[str, list[bytes]]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    checks: list[float] = field(default_factory=list)
    ends: list[Ended] = field(default_factory=list)
    events: dict[int, Callable[[], None]] = field(default_factory=dict)
    stopping: bool = False
    hinted: bool = False

    # ── clock ──
    def now(self) -> datetime:
        return datetime.fromtimestamp(EPOCH + self.now_s, UTC)

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def boot_id(self) -> str:
        return "boot"

    # ── signals ──
    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds
        if event := self.events.pop(len(self.waits), None):
            event()

    def take_hint(self) -> bool:
        hinted, self.hinted = self.hinted, False
        return hinted

    # ── server ──
    def ask(self, settled: Mapping[str, list[bytes]]) -> Polled:
        self.asked.append(settled)
        if self.down:
            raise FailedTransferError("down", retry_after=self.retry_after)
        return Polled(self.news, self.poll_seconds)

    # ── children ──
    def work(self) -> Ended:
        self.checks.append(self.now_s)
        if not self.down and not self.ends:
            self.news = False
        return self.ends.pop(0) if self.ends else Ended(0, {})

    def run(self, waits: int, jitter: float = 0.0) -> int:
        """Run until ``waits`` waits are over."""

        def stop() -> None:
            self.stopping = True

        self.events[waits] = stop
        daemon = Daemon(
            self.ask,
            self.work,
            self,
            self,  # type: ignore[arg-type]  # the three members of Signals it uses
            Pace(900, jitter),
            lambda: 0.5,
        )
        return daemon.run()


@pytest.fixture
def world() -> World:
    return World()


# ── what wakes the verifier ──────────────────────────────────────────────────────────
def test_start_resumes_before_any_network(world: World) -> None:
    """The first thing after a boot is a child with the journal, not a request."""
    world.run(1)
    assert world.checks == [0.0]
    assert world.asked == []


def test_without_news_nobody_is_woken(world: World) -> None:
    """A quiet poll asks the cheap question and starts no child."""
    world.run(4)
    assert (len(world.checks), len(world.asked)) == (1, 3)


def test_news_wakes_the_verifier_once(world: World) -> None:
    """News starts one full check; afterwards it is no news."""
    world.events[2] = lambda: setattr(world, "news", True)
    world.run(6)
    assert len(world.checks) == 2


def test_reports_that_wait_are_taken_to_a_server_that_is_back(world: World) -> None:
    """M12: what an outage held up goes out with the next answer, not with the next news."""
    world.down = True
    world.ends = [Ended(0, {"error": "transport.failed", "waiting": 2})]
    world.events[3] = lambda: setattr(world, "down", False)
    world.run(5)
    assert world.checks == [0.0, sum(world.waits[:3])]
    assert [len(world.asked), world.waits[-1]] == [4, 900]


def test_refused_news_is_examined_ever_more_rarely(world: World) -> None:
    """A server that goes on lying costs one check per interval, no more."""
    world.news = True
    world.ends = [Ended(0, {"error": RollbackError.code}) for _ in range(30)]
    world.run(20)
    assert world.waits[0] < world.waits[1] < world.waits[2]
    assert world.waits[-1] > 600


def test_killed_child_is_started_again_without_asking_anybody(world: World) -> None:
    """SIGKILL in the middle: the next child resumes the journal, network or not."""
    world.down = True
    world.ends = [Ended(-9, {}), Ended(-9, {}), Ended(0, {})]
    world.run(3)
    assert len(world.checks) == 3
    assert world.asked == []
    assert world.waits[0] < world.waits[1]


def test_full_check_at_least_once_a_day(world: World) -> None:
    """A server that always says "nothing new" cannot switch verification off."""
    world.run(200)
    gaps = [b - a for a, b in zip(world.checks, world.checks[1:], strict=False)]
    assert gaps
    assert all(FULL_CHECK_SECONDS <= gap <= FULL_CHECK_SECONDS + 900 for gap in gaps)


def test_unfinished_step_is_taken_up_when_it_said(world: World) -> None:
    """A child that waits for its gate names the time; the parent comes back then."""
    world.ends = [Ended(0, {"rest": 60.0})]
    world.run(2)
    assert world.checks == [0.0, 60.0]


def test_parent_asks_with_what_the_child_settled(world: World) -> None:
    """What runs or failed already is no news."""
    world.ends = [Ended(0, {"settled": {"ecu": ["00ff"]}})]
    world.run(2)
    assert world.asked == [{"ecu": [b"\x00\xff"]}]


def test_hint_polls_at_once(world: World) -> None:
    """SIGUSR1 makes a full check now."""
    world.events[2] = lambda: setattr(world, "hinted", True)
    world.run(3)
    assert len(world.checks) == 2


def test_restart_wanted_ends_with_75(world: World) -> None:
    """The child armed the loader; the parent passes the wish on."""
    world.ends = [Ended(RESTART, {})]
    assert world.run(5) == 75
    assert world.waits == []


# ── pace ─────────────────────────────────────────────────────────────────────────────
def test_server_dictates_the_interval(world: World) -> None:
    """What the header says holds for the next waits."""
    world.poll_seconds = 300
    world.run(4)
    assert world.waits == [900, 300, 300, 300]


def test_outage_backs_off_to_the_interval(world: World) -> None:
    """Failures double the wait from seconds up to the interval."""
    world.events[1] = lambda: setattr(world, "down", True)
    world.run(12)
    assert world.waits[1:4] == [11.25, 22.5, 45.0]
    assert max(world.waits) <= 900


def test_retry_after_is_obeyed(world: World) -> None:
    """An overloaded server gets the pause it asks for."""

    def overload() -> None:
        world.down, world.retry_after = True, 400

    world.events[1] = overload
    world.run(3)
    assert world.waits[1] >= 400


def test_facts_for_status(world: World) -> None:
    """`status` learns of the next poll and the last error."""
    seen: list[tuple[float | None, str | None]] = []

    def note(facts: Facts) -> None:
        seen.append((facts.next_poll, facts.last_error))
        world.stopping = len(seen) == 3
        world.down = len(seen) > 1

    Daemon(
        world.ask,
        world.work,
        world,
        world,  # type: ignore[arg-type]
        Pace(900, 0.0),
        lambda: 0.5,
        note,
    ).run()
    assert seen == [
        (None, None),
        (EPOCH + 900, None),
        (EPOCH + 900 + 11.25, "transport.failed"),
    ]


# ── real children ────────────────────────────────────────────────────────────────────
@pytest.fixture
def signals() -> Iterator[Signals]:
    kept = {
        n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    }
    found = Signals()
    yield found
    signal.set_wakeup_fd(-1)
    for number, handler in kept.items():
        signal.signal(number, handler)
    found.close()


def test_child_tells_and_its_memory_is_its_own(signals: Signals) -> None:
    """What a child changes stays in the child; what it tells arrives."""
    own: list[int] = []

    def work(_: Signals) -> child.Summary:
        own.append(1)
        return {"told": "x" * 30_000}

    ended = child.run(work, signals)
    assert ended == Ended(0, {"told": "x" * 30_000})
    assert ended.whole
    assert own == []


def _raise(error: BaseException) -> Callable[[Signals], child.Summary]:
    def work(_: Signals) -> child.Summary:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SystemExit(75), 75),
        (SystemExit(), 0),
        (RollbackError("old"), 3),
        (ZeroDivisionError("bug"), 70),
        (KeyboardInterrupt(), 70),
    ],
)
def test_child_ends_with_a_status_and_no_traceback(
    signals: Signals,
    error: BaseException,
    status: int,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """However the work ends, the parent gets a status and stderr no traceback."""
    ended = child.run(_raise(error), signals)
    written = capfd.readouterr().err
    assert ended.status == status
    assert "Traceback" not in written
    if isinstance(error, SealiftError):
        assert ended.summary == {"error": error.code}
        assert f"code={error.code}" in written


def test_killed_child_is_told_from_a_finished_one(signals: Signals) -> None:
    """SIGKILL shows as such."""

    def work(_: Signals) -> child.Summary:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    ended = child.run(work, signals)
    assert ended.status == -signal.SIGKILL
    assert not ended.whole


def test_stop_is_passed_on_and_taken_between_steps(signals: Signals) -> None:
    """SIGTERM to the parent ends the child at its next step's end, not within one."""

    def work(own: Signals) -> child.Summary:
        for step in range(1000):
            time.sleep(0.01)
            if own.stopping:
                return {"step": step}
        return {}

    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    ended = child.run(work, signals)
    assert signals.stopping
    step = ended.summary["step"]
    assert isinstance(step, int)
    assert 0 < step < 900


def test_child_does_not_outlive_its_parent() -> None:
    """A killed agent leaves no stray child that would keep the lock."""
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:

        def work(_: Signals) -> child.Summary:
            os.write(writer, str(os.getpid()).encode())
            time.sleep(60)
            return {}

        child.run(work, Signals())
        os._exit(0)
    grandchild = int(os.read(reader, 20))
    os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    deadline = time.monotonic() + 5
    while _runs(grandchild) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(grandchild)
    os.close(reader)
    os.close(writer)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
