"""The loop: what hinders, what waits, what ends an attempt, and what nobody sees half-done.

A rig is a simulated device whose shell is moved by hand, with the world's answers
(poll, report, gate, health, faults) set by the test.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from sealift.agent import gate as gates
from sealift.agent.journal import JOURNAL_BYTES, Journal
from sealift.agent.machine import (
    Arming,
    Idle,
    Rebooting,
    Reporting,
    Reverting,
    Staged,
    Staging,
    State,
    Trial,
    Verdict,
    installed,
)
from sealift.agent.ports import Armed, CheckResult, Feature, Moved, Probe, Running
from sealift.agent.record import Record
from sealift.agent.shell import AttemptResult, Component, Limits, Outside, Shell
from sealift.core.errors import (
    BootError,
    DigestError,
    FailedTransferError,
    NotFoundError,
    RefusedError,
    RevokedError,
    SealiftError,
    SlotError,
    SlotTooSmallError,
    SpaceError,
    StateError,
)
from sealift.core.types import Slot
from sealift.sim.device import ECU, NEW, OLD, Device, Kind, Restarted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sealift.agent.ports import Fill, Installer, SlotDevice
    from sealift.core.types import Artifact, Instruction

ORDER = NEW[Kind.GOOD].order()


class Broken:
    """Cells that refuse to be read or written when the test says so."""

    def __init__(self, device: Device, fails: Callable[[str], None]) -> None:
        self._cells = device.make_journal_cells()
        self._fails = fails
        self.broken = False

    def read(self, cell: int, limit: int) -> bytes | None:
        self._fails("read")
        return self._cells.read(cell, limit)

    def write(self, cell: int, data: bytes) -> None:
        if self.broken:
            raise SpaceError("no room")
        self._cells.write(cell, data)

    def flush(self, cell: int) -> None:
        self._cells.flush(cell)


class Faulty:
    """An installer whose verbs fail when the test says so."""

    features = Feature.NONE

    def __init__(self, real: Installer, fails: Callable[[str], None]) -> None:
        self._real = real
        self._fails = fails

    def stage(self, order: Instruction, slot: Slot, fill: Fill) -> None:
        self._fails("stage")
        self._real.stage(order, slot, fill)

    def arm(self, order: Instruction, slot: Slot) -> Armed | Running:
        self._fails("arm")
        return self._real.arm(order, slot)

    def probe(self) -> Probe:
        self._fails("probe")
        return self._real.probe()

    def confirm(self, order: Instruction, slot: Slot) -> None:
        self._fails("confirm")
        self._real.confirm(order, slot)

    def revert(self, home: Slot) -> bool:
        self._fails("revert")
        return self._real.revert(home)


class Rig:
    """A device with its agent's outside in the test's hand."""

    def __init__(self) -> None:
        self.device = Device()
        self.clock = self.device.clock
        self.cells = Broken(self.device, self.fails)
        self.orders: Sequence[Instruction] | None = [ORDER]
        self.errors: dict[str, BaseException] = {}
        self.gate: gates.Decision = gates.Open()
        self.polls = 0
        self.reports: list[AttemptResult] = []
        self.notices: list[str] = []
        self.healthy = True
        self.check_seconds = 0.0
        self.slow_restart = False
        self.events: list[str] = []
        self.device._start()
        self.shell = self.boot()

    def boot(self) -> Shell:
        """A new agent process on the same device."""
        [part] = self.device.make_components()
        faulty = Faulty(part.installer, self.fails)
        part = dataclasses.replace(
            part, installer=faulty, fill=self.fill, health=self, restart=self.reboot
        )
        self.part = part
        outside = Outside(
            poll=self.poll,
            report=self.report,
            gate=lambda _order: self.gate,
            interval=lambda: 300.0,
            notice=lambda _ecu, error: self.notices.append(error.code),
            changed=lambda _ecu, state: self.events.append(type(state).__name__),
            limits=Limits(
                fresh=900.0, retry=10.0, retry_max=80.0, restart_seconds=30.0
            ),
        )
        record = Record(self.cells, limit=JOURNAL_BYTES)
        floors = self.device.make_floors()
        self.shell = Shell([part], Journal(record), floors, self.clock, outside)
        return self.shell

    def restart(self) -> Shell:
        """The board restarts, and with it the agent."""
        self.device.flash.sync()
        self.device._start()
        return self.boot()

    def reboot(self) -> None:
        self.fails("restart")
        self.events.append("restart")
        if not self.slow_restart:
            raise Restarted

    def fails(self, where: str) -> None:
        if where in self.errors:
            raise self.errors[where]

    def poll(self) -> Sequence[Instruction] | None:
        self.polls += 1
        self.events.append("poll")
        self.fails("poll")
        return self.orders

    def report(self, result: AttemptResult) -> None:
        self.fails("report")
        self.events.append(f"floor {self.device.counter.value()}")
        self.reports.append(result)

    def fill(self, order: Instruction, base: Artifact | None) -> Fill:
        real = self.device._fill(order, base)

        def filling(into: SlotDevice, base: SlotDevice | None, /) -> None:
            self.fails("fill")
            real(into, base)

        return filling

    def check(self, order: Instruction) -> Sequence[CheckResult]:
        self.fails("health")
        self.clock.sleep(self.check_seconds)
        return [CheckResult("web", self.healthy, "port 80 is silent")]

    @property
    def state(self) -> State:
        return self.shell.states[ECU]

    def until_trial(self) -> None:
        """Let it stage, arm and restart into the new slot."""
        with pytest.raises(Restarted):
            self.shell.once()
        self.restart()
        assert self.device.running is Slot.B


@pytest.fixture
def rig() -> Rig:
    return Rig()


# ── the straight way ─────────────────────────────────────────────────────────────────
def test_a_good_update(rig: Rig) -> None:
    """Every state once, the confirm before any network, the floor before the report."""
    assert rig.state == Idle(OLD.artifact)
    rig.until_trial()
    rig.events.clear()
    rest = rig.shell.once()
    assert rig.events == [
        "Trial",
        "Confirming",
        "Reporting",
        "floor 2",
        "Idle",
        "poll",
    ]
    assert rest == 300.0
    [result] = rig.reports
    assert result.verdict is Verdict.SUCCEEDED
    assert result.installed == ORDER.artifact
    assert rig.state == Idle(ORDER.artifact)


def test_an_order_already_installed_is_no_order(rig: Rig) -> None:
    """The Director names what we run: nothing begins, and nothing is written."""
    rig.orders = [OLD.order()]
    steps = rig.device.door.steps
    assert rig.shell.once() == 300.0
    assert rig.state == Idle(OLD.artifact)
    assert rig.device.door.steps == steps


def test_a_poll_at_every_interval(rig: Rig) -> None:
    """Nothing to do: one poll, and a rest until the next is due."""
    rig.orders = []
    for polls in (1, 2, 3):
        assert rig.shell.once() == 300.0
        assert rig.polls == polls
        rig.clock.sleep(300.0)


# ── the first start ──────────────────────────────────────────────────────────────────
class Factory:
    """A new device whose factory image is what the test says; counts the looks."""

    def __init__(self, found: Artifact | None) -> None:
        self.device = Device()
        self.device._start()
        self.found = found
        self.error: SealiftError | None = None
        self.looks = 0
        self.notices: list[str] = []

    def look(self) -> Artifact | None:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.found

    def boot(self) -> Shell:
        """An agent process of that device, ordered to have the factory image."""
        [part] = self.device.make_components()
        part = dataclasses.replace(part, factory=self.look)
        outside = Outside(
            poll=lambda: [OLD.order()],
            report=self.device._report,
            notice=lambda _ecu, error: self.notices.append(error.code),
        )
        self.floors = self.device.make_floors()
        record = Record(self.device.make_journal_cells(), limit=JOURNAL_BYTES)
        clock = self.device.clock
        return Shell([part], Journal(record), self.floors, clock, outside)


@pytest.mark.parametrize("found", [OLD.artifact, None])
def test_the_factory_image_is_looked_at_once(found: Artifact | None) -> None:
    """The first start journals what it found; no later one looks again."""
    factory = Factory(found)
    for _ in range(3):
        assert factory.boot().states == {ECU: Idle(found)}
        assert factory.floors.floor(ECU) == (1 if found else 0)
    assert factory.looks == 1


def test_the_factory_image_is_not_installed_again() -> None:
    """An order to have what the device was made with begins nothing."""
    factory = Factory(OLD.artifact)
    shell = factory.boot()
    shell.once()
    assert shell.states == {ECU: Idle(OLD.artifact)}
    assert factory.device.reports() == []


def test_a_look_that_fails_is_repeated_at_the_next_start() -> None:
    """Unknown for now, with a notice; nothing is remembered of it."""
    factory = Factory(OLD.artifact)
    factory.error = SlotError("the medium gave an error")
    assert factory.boot().states == {ECU: Idle()}
    assert factory.notices == ["device.slot"]
    factory.error = None
    assert factory.boot().states == {ECU: Idle(OLD.artifact)}


# ── hindrances ───────────────────────────────────────────────────────────────────────
def test_a_poll_that_fails_is_a_notice(rig: Rig) -> None:
    """Known and unknown errors: told, and tried again after the interval."""
    for error in (FailedTransferError("no answer"), ValueError("a bug")):
        rig.errors["poll"] = error
        assert rig.shell.once() == 300.0
        rig.clock.sleep(300.0)
    assert rig.notices == ["transport.failed", "error"]
    assert isinstance(rig.state, Idle)
    rig.errors.clear()
    with pytest.raises(Restarted):
        rig.shell.once()


@pytest.mark.parametrize(
    "error",
    [FailedTransferError("cut"), RevokedError("no"), SpaceError("the disk is full")],
)
def test_a_transfer_that_stops_goes_on_later(rig: Rig, error: SealiftError) -> None:
    """Staging stays; the pauses double up to their limit; no attempt is used up."""
    rig.errors["fill"] = error
    rests = []
    for _ in range(5):
        rests.append(rig.shell.once())
        rig.clock.sleep(rests[-1])
    assert rests == [10.0, 20.0, 40.0, 80.0, 80.0]
    assert isinstance(rig.state, Staging)
    rig.errors.clear()
    with pytest.raises(Restarted):
        rig.shell.once()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DigestError("a lie"), "payload.digest"),
        (SlotTooSmallError("full"), "device.space"),
        (ZeroDivisionError("a bug"), "error"),
    ],
)
def test_what_will_not_get_better_ends_the_attempt(
    rig: Rig, error: Exception, code: str
) -> None:
    """Reported with its code, and not tried again for the same word of the Director."""
    rig.errors["fill"] = error
    rig.shell.once()
    rig.clock.sleep(300.0)
    rig.shell.once()
    [result] = rig.reports
    assert (result.verdict, result.code, result.stage) == ("failed", code, "staging")
    assert result.installed == OLD.artifact
    assert isinstance(rig.state, Idle)
    assert rig.polls == 2


def test_gone_content_is_asked_for_three_times_and_failed(rig: Rig) -> None:
    """404 and 410: a poll before each new try; then failed, with the code."""
    rig.errors["fill"] = NotFoundError("the server does not have this file")
    rests = []
    while not rig.reports:
        rests.append(rig.shell.once())
        rig.clock.sleep(rests[-1])
    assert rests[:3] == [10.0, 20.0, 40.0]
    assert rig.polls == 4
    [result] = rig.reports
    found = (result.verdict, result.code, result.stage)
    assert found == ("failed", "input.not_found", "staging")
    rig.shell.once()
    assert isinstance(rig.state, Idle)
    assert rig.state.refused is not None


def test_a_new_offer_brings_gone_content_back(rig: Rig) -> None:
    """The same image by another container: the attempt goes on with it, under its id."""
    rig.errors["fill"] = NotFoundError("the server does not have this file")
    rest = rig.shell.once()
    state = rig.state
    assert isinstance(state, Staging)
    rig.errors.clear()
    offer = dataclasses.replace(
        NEW[Kind.GOOD].order(director_version=8),
        full=dataclasses.replace(ORDER.full, name="other.full"),
    )
    rig.orders = [offer]
    rig.clock.sleep(rest)
    rig.until_trial()
    rig.shell.once()
    [result] = rig.reports
    assert (result.id, result.order) == (state.attempt.id, offer)
    assert result.verdict is Verdict.SUCCEEDED


def test_a_deferred_install_takes_a_larger_budget(rig: Rig) -> None:
    """``deferred(budget)`` ends when the Director allows more, not with a new image."""
    rig.errors["fill"] = RefusedError("too many bytes", reason="budget")
    assert rig.shell.once() == 10.0
    assert isinstance(rig.state, Staging)
    rig.errors.clear()
    raised = dataclasses.replace(ORDER, bytes_max=10**9, director_version=8)
    rig.orders = [raised]
    rig.clock.sleep(300.0)  # the next poll
    rig.until_trial()
    rig.shell.once()
    [result] = rig.reports
    assert (result.order, result.verdict) == (raised, Verdict.SUCCEEDED)


def test_how_the_image_came_is_told_before_it_is_forgotten(rig: Rig) -> None:
    """After confirm: report, then rest, then the work files go; at a start, too."""
    told = Moved("delta", 12_345, 2)
    rig.part = dataclasses.replace(
        rig.part,
        moved=lambda order: told if order == ORDER else None,
        clear=lambda: rig.events.append("clear"),
    )
    rig.shell._components[ECU] = rig.part
    rig.errors["fill"] = DigestError("a lie")
    rig.events.clear()
    rig.shell.once()
    assert [it.moved for it in rig.reports] == [told]
    assert rig.events.index("Idle") > rig.events.index("clear") > 0
    assert rig.events[: rig.events.index("clear")].count("floor 0") == 1


def test_work_files_that_cannot_be_removed_hinder_nothing(rig: Rig) -> None:
    """A notice; the component rests."""

    def fails() -> None:
        raise SlotError("read-only")

    rig.shell._components[ECU] = dataclasses.replace(rig.part, clear=fails)
    rig.errors["fill"] = DigestError("a lie")
    rig.shell.once()
    assert isinstance(rig.state, Idle)
    assert rig.notices == ["payload.digest", "device.slot"]


def test_a_restart_does_not_begin_to_count_anew(rig: Rig) -> None:
    """An agent that is killed after each 404 asks no more often than one that lives."""
    rig.errors["fill"] = NotFoundError("the server does not have this file")
    for _ in range(4):
        assert not rig.reports
        rig.boot().once()
    assert [it.code for it in rig.reports] == ["input.not_found"]


def test_a_report_that_is_not_stored_is_handed_over_again(rig: Rig) -> None:
    """The state stays Reporting, and the id is the same."""
    rig.errors = {"fill": DigestError("a lie"), "report": SpaceError("full")}
    rig.shell.once()
    state = rig.state
    assert isinstance(state, Reporting)
    rig.clock.sleep(10.0)
    rig.shell.once()
    assert rig.state == state
    rig.errors.clear()
    rig.boot().once()
    [result] = rig.reports
    assert result.id == state.attempt.id


def test_a_journal_that_cannot_be_written_stops_the_world(rig: Rig) -> None:
    """No state is believed that is not durable: nothing moves until it is."""
    rig.cells.broken = True
    assert rig.shell.once() == 10.0
    assert isinstance(rig.state, Idle)
    assert rig.notices == ["device.space"]
    rig.cells.broken = False
    rig.clock.sleep(10.0)
    with pytest.raises(Restarted):
        rig.shell.once()


def test_a_running_slot_nobody_can_tell_begins_nothing(rig: Rig) -> None:
    """Without ``running`` there is no home: a notice, and the order waits."""
    rig.errors["probe"] = BootError("running is missing")
    assert rig.shell.once() == 10.0
    assert rig.notices == ["device.boot"]
    assert isinstance(rig.state, Idle)
    rig.errors.clear()
    rig.clock.sleep(10.0)
    with pytest.raises(Restarted):
        rig.shell.once()


# ── gate and fresh word ──────────────────────────────────────────────────────────────
def test_the_gate_is_asked_until_it_opens(rig: Rig) -> None:
    """Closed: staged and waiting as long as it says. Open: on to the switch."""
    rig.gate = gates.Closed("window", 120.0)
    assert rig.shell.once() == 120.0
    assert isinstance(rig.state, Staged)
    rig.clock.sleep(120.0)
    rig.gate = gates.Open()
    with pytest.raises(Restarted):
        rig.shell.once()


def test_after_a_long_wait_the_director_is_asked_again(rig: Rig) -> None:
    """The last word is older than ``fresh``: a poll comes before the switch."""
    rig.gate = gates.Closed("window", 5000.0)
    rig.shell.once()
    rig.orders = []
    rig.gate = gates.Open()
    rig.clock.sleep(5000.0)
    rig.shell._next_poll = rig.clock.monotonic() + 1000.0  # no poll is due by itself
    rig.shell.once()
    assert rig.polls == 2
    [result] = rig.reports
    assert result.verdict is Verdict.SUPERSEDED


def test_being_offline_does_not_keep_a_staged_update(rig: Rig) -> None:
    """Asked and not answered is enough: an authorised install goes on (uptane 1.3)."""
    rig.gate = gates.Closed("window", 5000.0)
    rig.shell.once()
    rig.gate = gates.Open()
    rig.errors["poll"] = FailedTransferError("no network")
    rig.clock.sleep(5000.0)
    with pytest.raises(Restarted):
        rig.shell.once()


def test_a_newer_order_ends_the_staged_one_and_begins(rig: Rig) -> None:
    """Superseded is reported, and the newer one starts at once."""
    rig.gate = gates.Closed("window", 600.0)
    rig.shell.once()
    newer = NEW[Kind.UNHEALTHY]
    rig.device.images[newer.content] = newer
    rig.orders = [newer.order(director_version=8)]
    rig.clock.sleep(300.0)
    rig.shell.once()
    [result] = rig.reports
    assert result.verdict is Verdict.SUPERSEDED
    assert isinstance(rig.state, Staged)
    assert rig.state.attempt.order == newer.order(director_version=8)


def test_no_news_is_the_last_word(rig: Rig) -> None:
    """``None`` from poll: what was ordered before still is, also for a component that
    comes to rest later.
    """
    rig.errors["fill"] = FailedTransferError("cut")
    rig.shell.once()
    rig.errors.clear()
    rig.orders = None
    rig.clock.sleep(300.0)
    with pytest.raises(Restarted):
        rig.shell.once()


def test_no_news_before_any_news_is_silence(rig: Rig) -> None:
    """A process that was never told anything starts nothing and ends nothing."""
    rig.gate = gates.Closed("window", 60.0)
    rig.shell.once()
    rig.orders = None
    rig.boot().once()
    assert isinstance(rig.state, Staged)


# ── the trial ────────────────────────────────────────────────────────────────────────
def test_an_unhealthy_trial_goes_home(rig: Rig) -> None:
    """The failed check is named; the device restarts into home, and says so there."""
    rig.until_trial()
    rig.healthy = False
    with pytest.raises(Restarted):
        rig.shell.once()
    assert isinstance(rig.state, Reverting)
    rig.restart().once()
    [result] = rig.reports
    assert (result.verdict, result.code) == ("rolled_back", "device.boot")
    assert "web: port 80 is silent" in result.detail
    assert rig.device.running is Slot.A


@pytest.mark.parametrize("error", [BootError("sick"), KeyError("a bug")])
def test_a_health_check_that_breaks_is_no_health(rig: Rig, error: Exception) -> None:
    """Known or unknown: Reverting, with the code it has."""
    rig.until_trial()
    rig.errors["health"] = error
    with pytest.raises(Restarted):
        rig.shell.once()
    assert isinstance(rig.state, Reverting)


def test_the_trials_deadline_outlives_the_process(rig: Rig) -> None:
    """An agent that is restarted again and again gets no new deadline in one boot."""
    rig.until_trial()
    rig.errors["health"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        rig.shell.once()
    assert isinstance(rig.boot().states[ECU], Trial)
    rig.errors.clear()
    rig.clock.sleep(601.0)
    with pytest.raises(Restarted):
        rig.boot().once()
    state = rig.state
    assert isinstance(state, Reverting)
    assert "deadline" in state.result.detail


def test_health_shown_after_the_deadline_is_none(rig: Rig) -> None:
    """Checks that take longer than the trial may do not confirm, though they pass."""
    rig.until_trial()
    rig.check_seconds = 601.0
    with pytest.raises(Restarted):
        rig.shell.once()
    state = rig.state
    assert isinstance(state, Reverting)
    assert "deadline" in state.result.detail


def test_a_new_boot_of_the_trial_gets_a_new_deadline(rig: Rig) -> None:
    """The loader counts the boots; the clock counts within one."""
    rig.until_trial()
    rig.errors["health"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        rig.shell.once()
    rig.errors.clear()
    rig.clock.sleep(601.0)
    rig.restart().once()
    assert [it.verdict for it in rig.reports] == [Verdict.SUCCEEDED]


# ── floors ───────────────────────────────────────────────────────────────────────────
def test_W4_the_floor_is_looked_at_once_more_before_the_switch(rig: Rig) -> None:
    """It rose while the image waited: metadata.counter, and nothing is armed."""
    rig.gate = gates.Closed("window", 60.0)
    rig.shell.once()
    rig.device.counter.advance(3)
    rig.gate = gates.Open()
    rig.clock.sleep(60.0)
    rig.shell.once()
    [result] = rig.reports
    assert (result.code, result.stage) == ("metadata.counter", "arming")
    assert rig.device.store().read().next is Slot.A


def test_D04_a_fallback_below_the_floor_is_refused(rig: Rig) -> None:
    """Somebody burned the counter during the trial: no return, device.boot is told."""
    rig.until_trial()
    rig.device.counter.advance(2)
    rig.healthy = False
    rig.shell.once()
    [result] = rig.reports
    assert (result.verdict, result.code) == ("failed", "device.boot")
    assert "the way back is refused" in result.detail
    assert rig.device.running is Slot.B
    assert rig.device.store().read().default is Slot.A


# ── a restart that returns, a boot that never ends ───────────────────────────────────
def test_a_restart_under_way_is_waited_for(rig: Rig) -> None:
    """``restart`` returned: the state stays, and it is called again after a while."""
    rig.slow_restart = True
    assert rig.shell.once() == 30.0
    rig.clock.sleep(30.0)
    rig.shell.once()
    assert rig.events.count("restart") == 2
    assert isinstance(rig.state, Rebooting)


def test_a_restart_that_fails_is_tried_again(rig: Rig) -> None:
    """A notice and a pause; Rebooting has no failure of its own."""
    rig.errors["restart"] = BootError("reboot: permission denied")
    assert rig.shell.once() == 10.0
    assert isinstance(rig.state, Rebooting)
    assert rig.notices == ["device.boot"]


def test_a_confirm_that_fails_goes_home(rig: Rig) -> None:
    """The loader's store refuses: no confirm, and home is home."""
    rig.until_trial()
    rig.errors["confirm"] = BootError("the store refused")
    with pytest.raises(Restarted):
        rig.shell.once()
    rig.restart().once()
    assert [it.stage for it in rig.reports] == ["confirming"]
    assert rig.device.running is Slot.A


# ── lost journals ────────────────────────────────────────────────────────────────────
def test_a_lost_journal_is_told_and_nothing_is_begun_on_it(rig: Rig) -> None:
    """device.state as a notice; the device keeps what it runs."""
    rig.until_trial()
    for cell in ("journal.0", "journal.1"):
        rig.device.flash.make(cell, b"\x00" * 500)
    shell = rig.boot()
    assert rig.notices == [StateError.code, BootError.code]
    assert shell.states == {ECU: Idle()}, "on trial: what is confirmed is not told"
    shell.once()
    [result] = rig.reports
    assert result.code == "device.boot", "a trial never overwrites its way home"
    runs = [rig.device.running]
    for _ in range(3):
        rig.restart()
        runs.append(rig.device.running)
    assert runs == [Slot.B, Slot.B, Slot.B, Slot.A]


def test_a_journal_that_cannot_be_read_now_ends_the_process(rig: Rig) -> None:
    """device.state, and whoever starts the agent starts it again: nothing is lost."""
    rig.until_trial()
    rig.errors["read"] = StateError("input/output error")
    with pytest.raises(StateError):
        rig.boot()
    rig.errors.clear()
    rig.boot().once()
    assert [it.verdict for it in rig.reports] == [Verdict.SUCCEEDED]


# ── several components ───────────────────────────────────────────────────────────────
def test_a_restart_waits_until_the_others_rest(rig: Rig) -> None:
    """One restart takes all along, so it comes last."""
    other = Device()
    other._start()
    [second] = other.make_components()
    second = dataclasses.replace(second, ecu_id="dev-0001-second")
    order = dataclasses.replace(ORDER, ecu_id="dev-0001-second")
    seen: list[dict[str, State]] = []

    def restart() -> None:
        seen.append(dict(shell.states))
        raise Restarted

    parts: list[Component] = [
        dataclasses.replace(rig.part, restart=restart),
        dataclasses.replace(second, restart=restart),
    ]
    record = Record(rig.cells, limit=JOURNAL_BYTES)
    outside = Outside(poll=lambda: [ORDER, order], report=rig.report)
    floors = rig.device.make_floors()
    shell = Shell(parts, Journal(record), floors, rig.clock, outside)
    with pytest.raises(Restarted):
        shell.once()
    assert [type(it) for it in seen[0].values()] == [Rebooting, Rebooting]
    bases = {ecu: installed(state) for ecu, state in seen[0].items()}
    assert bases == {ECU: OLD.artifact, "dev-0001-second": OLD.artifact}


def test_an_order_for_a_component_we_lack_changes_nothing(rig: Rig) -> None:
    """Trust refuses it long before; the shell does not fall over it."""
    rig.orders = [dataclasses.replace(ORDER, ecu_id="somebody-else")]
    assert rig.shell.once() == 300.0
    assert rig.shell.states == {ECU: Idle(OLD.artifact)}


def test_states_of_the_shell_are_a_copy(rig: Rig) -> None:
    """Nobody outside moves a machine."""
    found = dict(rig.shell.states)
    found[ECU] = Arming(None)  # type: ignore[arg-type]
    assert isinstance(rig.state, Idle)


# ── what a duty finds instead ────────────────────────────────────────────────────────
def test_armed_before_the_cut_is_found_running(rig: Rig) -> None:
    """The device restarted into the slot before Rebooting was journaled."""
    rig.gate = gates.Closed("window", 60.0)
    rig.shell.once()
    rig.gate = gates.Open()
    rig.clock.sleep(60.0)
    rig.slow_restart = True
    rig.errors["arm"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        rig.shell.once()
    assert isinstance(rig.state, Arming)
    rig.part.installer._real.arm(ORDER, Slot.B)  # type: ignore[attr-defined]
    rig.errors.clear()
    rig.restart().once()
    assert [it.verdict for it in rig.reports] == [Verdict.SUCCEEDED]


def test_a_revert_that_fails_is_tried_until_it_is_done(rig: Rig) -> None:
    """The way home is never given up for an error of the store."""
    rig.until_trial()
    rig.healthy = False
    rig.errors["revert"] = BootError("the store refused")
    assert rig.shell.once() == 10.0
    assert isinstance(rig.state, Reverting)
    rig.errors.clear()
    rig.clock.sleep(10.0)
    with pytest.raises(Restarted):
        rig.shell.once()
    rig.restart().once()
    assert [it.verdict for it in rig.reports] == [Verdict.ROLLED_BACK]
