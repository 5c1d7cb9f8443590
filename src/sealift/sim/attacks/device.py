"""Rows D-01 to D-08: what a slot, a loader and a release can do to a device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sealift.agent import life, wiring
from sealift.agent.boot.file import open_store
from sealift.agent.payload import PayloadFill
from sealift.agent.ports import CheckResult
from sealift.agent.watchdog import Guard
from sealift.core.errors import FailedTransferError, SealiftError
from sealift.sim import device as simulated
from sealift.sim.attacks.boxes import ordered
from sealift.sim.attacks.containers import raw_of, waiting
from sealift.sim.attacks.outcome import broken, observe
from sealift.sim.attacks.payload import changed_order, interrupted
from sealift.sim.attacks.simulated import SLOT_BYTES
from sealift.sim.attacks.world import (
    Ground,
    Observed,
    Plan,
    Scene,
)
from sealift.sim.flash import Door, FlashCounter, Killed
from sealift.sim.loaders.table import WORLDS
from sealift.sim.network import Request, Response
from sealift.sim.powercut import cases, survey
from sealift.sim.vendor import make_release

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.agent.ports import Fill, SlotDevice, Transport, Workspace
    from sealift.core.types import Instruction, Slot

CUTS = 4000
"""Runs of the power-cut test; ``sealift sim powercut`` lives a hundred thousand."""
MOST_DEATHS = 12
POWER_CYCLES = 40


# ── acting at a step ─────────────────────────────────────────────────────────────────
def at(step: str, act: Callable[[], None], scene: Scene) -> None:
    """Have ``act`` happen once, when the device has journaled this state."""
    done: list[bool] = []

    def hear(line: str) -> None:
        if f"state={step}" in line and not done:
            done.append(True)
            act()

    scene.device.heard = hear


def other_slot(scene: Scene) -> Path:
    """The slot that does not run, as a file."""
    return scene.device.path(f"slots/{scene.device.running.other}")


def flip(path: Path, offset: int = 70_000) -> None:
    """Flip a byte of a file in its place."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@dataclass
class Says:
    """Health checks that say what they are told, after as long as they are told."""

    ok: Callable[[], bool]

    def check(self, order: Instruction) -> Sequence[CheckResult]:
        """One result."""
        del order
        return [CheckResult("said", ok=self.ok(), detail="as told")]


def sick(scene: Scene) -> None:
    """Every health check fails from now on."""
    scene.device.health = Says(lambda: False)


def well(scene: Scene) -> None:
    """Nothing is wrong with the device any more."""
    scene.device.health = None
    scene.device.boots = lambda _slot: True
    scene.device.heard = lambda _line: None


# ── D-01: the slot, after it was written ─────────────────────────────────────────────
def attack_d_01(ground: Ground) -> Observed:
    """A slot that changes behind the agent's back: before the switch, and after it."""
    early = [
        _tampered_before_reread,
        _tampered_when_staged(flip),
        _tampered_when_staged(_replaced),
        _tampered_when_staged(lambda slot: flip(slot, 0)),
    ]
    return ground.observed(ground.each(early), ground.play(_before_its_first_boot))


def _replaced(slot: Path) -> None:
    slot.rename(slot.with_suffix(".kept"))
    slot.write_bytes(b"evil".ljust(SLOT_BYTES, b"!"))


def _tampered_before_reread(scene: Scene) -> str:
    """The last verified segment is hardly written when somebody changes it."""
    slot = other_slot(scene)

    def filled(order: Instruction, way: Transport, work: Workspace, **how: Any) -> Fill:
        fill = PayloadFill(order, way, work, **how)

        def act(into: SlotDevice, base: SlotDevice | None, /) -> None:
            fill(into, base)
            flip(slot)

        return act

    shipped = scene.device.parts
    scene.device.parts = replace(shipped, fill=filled)
    outcome = scene.attempt()
    scene.device.parts = shipped
    return _told_anew(scene, outcome)


def _tampered_when_staged(harm: Callable[[Path], None]) -> Plan:
    def act(scene: Scene) -> str:
        slot = other_slot(scene)
        at("staged", lambda: harm(slot), scene)
        return _told_anew(scene, scene.attempt())

    return act


def _told_anew(scene: Scene, outcome: str) -> str:
    """The Director says it again, or what failed is not tried a second time."""
    well(scene)
    scene.vendor.refresh(anew=True)
    return outcome


def _before_its_first_boot(scene: Scene) -> str:
    """A board with verified boot: what is no released image does not start."""
    slot = other_slot(scene)

    def verified(started: Slot) -> bool:
        return scene.device.slot(started).startswith(tuple(scene.vendor.contents))

    scene.vendor.contents.add(scene.factory.content)
    scene.device.boots = verified
    at("rebooting", lambda: flip(slot), scene)
    return _told_anew(scene, scene.attempt())


# ── D-02: power ──────────────────────────────────────────────────────────────────────
def attack_d_02(ground: Ground) -> Observed:
    """Cuts at every durable step in memory; deaths at every change of a real store."""
    lived = survey(cases(CUTS))
    found = "old or new" if lived.clean else f"{lived.bricks} bricks, {lived.findings}"

    def killed(scene: Scene) -> str:
        scene.killed_at_every_step()
        return scene.settled()

    return ground.observed(found, ground.play(killed))


# ── D-03 to D-05: counters ───────────────────────────────────────────────────────────
def attack_d_03(ground: Ground) -> Observed:
    """Listed releases below the floor: one that ran, one that did not, no record."""

    def older(scene: Scene) -> str:
        old = scene.first
        scene.catch_up()
        return ordered(old)(scene)

    def unseen(scene: Scene) -> str:
        return ordered(scene.vendor.release(make_release("0.9", 1)))(scene)

    def forgotten(scene: Scene) -> str:
        for number in (0, 1):
            scene.device.path(f"state/floors.{number}").unlink(missing_ok=True)
        return unseen(scene)

    return ground.observed(ground.each([older, unseen, forgotten]))


def attack_d_04(ground: Ground) -> Observed:
    """A release that fails: home is as high as the floor, or the way is refused."""
    return ground.observed(ground.each([_home_at_the_floor, _home_below_the_floor]))


def _home_at_the_floor(scene: Scene) -> str:
    sick(scene)
    return _told_anew(scene, scene.attempt())


def _home_below_the_floor(scene: Scene) -> str:
    """Somebody burns the counter during the trial, to have an old slot come back."""
    ecu_id, floor = scene.device.ecu_id, scene.next.artifact.release_counter
    home = scene.device.running

    def burn() -> None:
        wiring.floors(scene.device.config()).raise_to(ecu_id, floor)

    sick(scene)
    at("trial", burn, scene)
    lived = scene.device.cycle()
    if "the way back is refused" not in str(lived.attempts):
        scene.faults.append("nobody refused the way back")
    if scene.device.running is home:
        scene.faults.append("the device runs below its floor")
    return _told_anew(scene, lived.outcome)


def attack_d_05(ground: Ground) -> Observed:
    """A high counter that fails: the floor stays, home runs on and is updated.

    What the Director has ordered once stays a floor for the Director (W4), so the next
    release has as high a counter, as a repaired release has.
    """

    def failing(scene: Scene) -> str:
        scene.publish("1.3", 90)
        sick(scene)
        return _told_anew(scene, scene.attempt())

    def repaired(scene: Scene) -> str:
        scene.require(failing(scene), "device.boot")
        scene.publish("1.4", 90)
        outcome = scene.attempt()
        scene.publish("1.5", 91)
        scene.waiting = True
        return outcome

    def in_hardware(scene: Scene) -> str:
        """The same with a counter that nobody could ever take back."""
        counter = scene.device.counter = FlashCounter(Door())
        scene.catch_up()
        before = counter.value()
        outcome = failing(scene)
        if counter.value() != before or not before:
            scene.faults.append(f"the hardware counter went to {counter.value()}")
        return outcome

    return ground.observed(ground.each([failing, in_hardware]), ground.play(repaired))


# ── D-06, D-07: dying, and being switched off ────────────────────────────────────────
def attack_d_06(ground: Ground) -> Observed:
    """Releases that die in every way there is; each time the device goes home."""
    ground.faults += _simulated_deaths()
    return ground.observed(
        ground.each(
            [
                *(_unbootable, _crashing, _unhealthy, _hanging, _offline, _wedged),
                *(_frozen, _busy_for_ever, _without_an_agent),
            ]
        )
    )


def _simulated_deaths() -> Iterator[str]:
    """Unhealthy, unbootable, hanging, wedged: with a watchdog, on every loader."""
    for kind in simulated.Kind:
        for loader in WORLDS:
            scene = simulated.Scene(kind, loader)
            for fault in simulated.Device(scene).settle().faults():
                yield f"{kind} on a {loader} loader: {fault}"


def _unbootable(scene: Scene) -> str:
    """No agent is ever reached; the loader has to come home within its tries."""
    home, starts = scene.device.running, []

    def boots(slot: Slot) -> bool:
        starts.append(slot)
        return slot is home

    scene.device.boots = boots
    outcome = scene.attempt()
    tries = scene.device.config().components[0].tries
    if starts.count(home.other) > tries:
        scene.faults.append(f"{starts.count(home.other)} starts of a dead slot")
    return _told_anew(scene, outcome)


def _crashing(scene: Scene) -> str:
    """The agent gets as far as its trial, and dies there each time."""
    return _told_anew(scene, _through_deaths(scene, "trial"))


def _unhealthy(scene: Scene) -> str:
    sick(scene)
    return _told_anew(scene, scene.attempt())


def _hanging(scene: Scene) -> str:
    """A check that takes an hour, and then has failed."""

    def slowly() -> bool:
        scene.clock.sleep(3600.0)
        return False

    scene.device.health = Says(slowly)
    return _told_anew(scene, scene.attempt())


class _Reset:
    """A watchdog in hardware: resets the board when it was not fed for two minutes."""

    every = 30.0
    seconds = 120.0

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._fed = now()

    def feed(self) -> None:
        """It waits for two minutes more."""
        self._fed = self._now()

    def release(self) -> None:
        """Nobody may call it off here."""
        raise AssertionError("the watchdog was called off on trial")

    def look(self) -> None:
        """Bite, if it is time."""
        if self._now() - self._fed > self.seconds:
            raise Killed


def _frozen(scene: Scene) -> str:
    """The agent stands still in the middle of its trial and says nothing any more."""
    return _watched(scene, lambda: None)


def _busy_for_ever(scene: Scene) -> str:
    """It shows life all the time, and its trial never ends."""
    return _watched(scene, life.beat)


def _watched(scene: Scene, sign: Callable[[], object]) -> str:
    """A trial without an end, on a board with a watchdog that the agent feeds."""
    clock = scene.clock
    dog = _Reset(clock.monotonic)
    guard = Guard([dog], clock.monotonic)
    most = 4 * scene.device.config().components[0].trial_seconds

    def never() -> bool:
        since = clock.monotonic()
        while clock.monotonic() - since < most:
            clock.sleep(1.0)
            sign()
            guard.tend()
            dog.look()
        scene.faults.append("nobody ended a trial that hangs")
        return False

    before = observe(scene.device)
    scene.device.health = Says(never)
    life.listen(guard)
    try:
        scene.device.cycle()
    except Killed:
        pass
    else:
        scene.faults.append("the watchdog did not bite")
    finally:
        life.listen(None)
    outcome = scene.device.cycle().outcome
    scene.faults += broken(before, observe(scene.device), scene.vendor.said)
    return _told_anew(scene, outcome)


def _without_an_agent(scene: Scene) -> str:
    """The slot starts and has no agent: nothing settles it, so the timer may act."""
    home, settled = scene.device.running, scene.device.path("settled")

    def boots(slot: Slot) -> bool:
        if slot is not home and settled.exists():
            scene.faults.append("a start without an agent counts as settled")
        return slot is home

    scene.device.boots = boots
    outcome = scene.attempt()
    if not settled.exists():
        scene.faults.append("home is not settled: its timer would restart it for ever")
    return _told_anew(scene, outcome)


def _offline(scene: Scene) -> str:
    """The release has no network; its check asks for the server and gets no answer."""

    def reaches() -> bool:
        try:
            scene.wire(Request("GET", "director/metadata/timestamp.json"))
        except SealiftError:
            return False
        return True

    def unplug() -> None:
        scene.wire.attackers = (_no_answer,)

    scene.device.health = Says(reaches)
    at("trial", unplug, scene)
    lived = scene.attempted()
    return _told_anew(scene, str(lived.attempts[-1]["code"]))


def _no_answer(_server: object, _request: Request) -> Response:
    raise FailedTransferError("no network")


def _wedged(scene: Scene) -> str:
    """The release sets the clock to 1970, where its check finds it."""
    year = 1970
    scene.device.health = Says(lambda: scene.clock.now().year != year)
    at("trial", lambda: scene.clock.set_system(datetime(year, 1, 1, tzinfo=UTC)), scene)
    outcome = scene.attempt()
    scene.clock.set_system(scene.true_now())
    return _told_anew(scene, outcome)


def _through_deaths(scene: Scene, step: str) -> str:
    """The power goes whenever this state is journaled; what came in the end."""
    before = observe(scene.device)

    def die(line: str) -> None:
        if f"state={step}" in line:
            raise Killed

    scene.device.heard = die
    for _ in range(MOST_DEATHS):
        try:
            lived = scene.device.cycle()
        except Killed:
            continue
        scene.faults += broken(before, observe(scene.device), scene.vendor.said)
        return lived.outcome
    return "it dies for ever"


def attack_d_07(ground: Ground) -> Observed:
    """The power goes again and again: in normal life, then in each trial."""
    return ground.observed(
        ground.each([_cycled_at_rest, _cycled_while_staging]),
        ground.each([_crashing, _cycled_on_trial]),
    )


def _cycled_at_rest(scene: Scene) -> str:
    """Nothing is counted while nothing is on trial."""
    store = open_store(str(scene.device.path("boot")))
    before = store.read()
    for _ in range(POWER_CYCLES):
        scene.device.load()
    if store.read() != before:
        scene.faults.append("power cycles changed the loader's store")
    outcome = scene.attempt()
    if not scene.device.path("settled").exists():
        scene.faults.append("no start is ever settled: a timer would restart it")
    return outcome


def _cycled_while_staging(scene: Scene) -> str:
    """An install that is cut short is begun again, however often."""
    home = scene.device.running
    for _ in range(POWER_CYCLES):
        interrupted(scene)
    if scene.device.running is not home:
        scene.faults.append("another slot runs")
    return scene.attempt()


def _die() -> None:
    raise Killed


def _cycled_on_trial(scene: Scene) -> str:
    """The tries are used up before the agent has a chance; the old slot runs."""
    before = observe(scene.device)
    at("rebooting", _die, scene)
    try:
        scene.device.cycle()
    except Killed:
        for _ in range(POWER_CYCLES):
            scene.device.load()
    well(scene)
    outcome = scene.device.cycle().outcome
    scene.faults += broken(before, observe(scene.device), scene.vendor.said)
    return _told_anew(scene, outcome)


# ── D-08: where to write ─────────────────────────────────────────────────────────────
def attack_d_08(ground: Ground) -> Observed:
    """Places in the reserved fields of a container, in its entries, in metadata."""
    release = waiting().release
    raw, length = release.packed, release.container.head_length
    entry = 144 + 32 * len(waiting().segments)
    places = [
        raw[:10] + b"\1\0" + raw[12:],
        raw[:140] + b"\1\0\0\0" + raw[144:],
        *(raw[:entry] + bytes([kind]) + raw[entry + 1 :] for kind in (1, 3, 4, 255)),
    ]
    named = [_places(value) for value in ("a", "b", "/dev/sda", "../slots/a", 0)]
    return ground.observed(
        ground.together(raw_of(release, it, length) for it in places),
        ground.each(named),
    )


def _places(value: object) -> Plan:
    """Every member in which some updater names a partition, set to this."""
    names = ("slot", "partition", "device", "target", "path", "offset", "install_to")

    def act(scene: Scene) -> str:
        home = scene.device.running
        before = scene.device.slot(home)
        change = changed_order(lambda ecu: ecu.update(dict.fromkeys(names, value)))
        outcome = change(scene)
        if scene.device.running is home or scene.device.slot(home) != before:
            scene.faults.append(f"{value} was taken for a place")
        return outcome

    return act
