"""The real agent on the reference board against a real TLS server: updates and cuts."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.core.types import Slot
from sealift.sim.vendor import Release, make_release
from tests.integration.agent_world import (
    DEVICE,
    ECU,
    World,
    private,
    wait_for,
    world,
)

IDLE = f"state component={ECU} state=idle"
LARGE = bytes(range(256)) * 3000 + os.urandom(64)  # 750 KiB, poorly packed by design


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


def large(text: bytes = b"") -> bytes:
    """An image whose container takes a while to come."""
    return text + os.urandom(700_000)


def test_good_update_is_installed_confirmed_and_reported(here: World) -> None:
    """Ordered, verified, written, tried, confirmed; the server learns of it."""
    release = here.publish("1.0.0", 1)
    here.device.start()
    here.device.wait(IDLE)
    assert here.device.confirmed is Slot.B
    assert here.device.slot(Slot.B).startswith(release.content)
    here.device.wait("info wait")
    status = here.device.json("status")
    assert status["components"][0]["installed"]["release"] == "1.0.0"
    assert status["components"][0]["release_floor"] == 1
    assert status["reports"]["waiting"] == 0
    assert status["agent"]["next_poll"] > time.time() - 5
    assert len(here.server.reports) >= 3


def factory(here: World, version: str, counter: int, content: bytes) -> Release:
    """A release, in slot a and in the file that says so."""
    release = make_release(version, counter, content=content)
    here.vendor.release(release)
    private(
        here.device.directory / "factory.json",
        json.dumps(release.artifact.to_json()).encode(),
    )
    with (here.device.directory / "slot-a.img").open("r+b") as slot:
        slot.write(content)
    here.device.configure(here.server.url, factory='"factory.json"')
    return release


def test_what_the_factory_put_there_is_known_and_not_installed_again(
    here: World,
) -> None:
    """Its release is reported, its counter is the floor, an order of it is no work."""
    made = factory(here, "1.0.0", 5, os.urandom(100_000))
    here.vendor.order(DEVICE, made.order(ECU))
    here.device.start()
    here.device.wait("info wait")
    [found] = here.device.json("status")["components"]
    assert found["installed"]["release"] == "1.0.0"
    assert found["release_floor"] == 5
    assert here.device.json("status")["remarks"] == []
    assert "state=staging" not in here.device.log
    told = here.server.reports[0]["payload"]["reports"][ECU]["payload"]
    assert told["installed"]["name"] == made.artifact.name
    here.publish("0.9.0", 4)
    here.device.wait("code=metadata.counter")
    here.publish("1.1.0", 6)
    here.device.wait(IDLE)
    assert (
        here.device.log.count("event=factory") + here.device.log.count(" factory ") == 1
    )


def test_a_factorys_word_that_anybody_can_change_is_not_believed(here: World) -> None:
    """config-check refuses it; a running agent says so, knows nothing, and updates."""
    factory(here, "1.0.0", 5, os.urandom(10_000))
    (here.device.directory / "factory.json").chmod(0o666)
    checked = here.device.run("config-check")
    assert checked.returncode == 5
    assert "[device.trust]" in checked.stderr
    assert "hint: chmod" in checked.stderr
    here.publish("1.0.1", 1)
    here.device.start()
    here.device.wait(IDLE)
    assert "code=device.trust" in here.device.log
    assert here.device.json("status")["components"][0]["installed"]["counter"] == 1


def test_a_factorys_word_that_is_not_so_is_not_repeated(here: World) -> None:
    """Other bytes run than the file names: unknown in status and report, and logged."""
    factory(here, "1.0.0", 5, os.urandom(100_000))
    with (here.device.directory / "slot-a.img").open("r+b") as slot:
        slot.write(b"other")
    here.device.start()
    here.device.wait("info wait")
    assert "error factory" in here.device.log
    status = here.device.json("status")
    assert status["components"][0]["installed"] is None
    assert status["components"][0]["release_floor"] == 0
    assert "factory.json" in status["remarks"][0]
    here.publish("1.0.1", 1)
    here.device.wait(IDLE)
    assert here.device.log.count("error factory") == 1


def test_next_release_is_found_by_the_light_poll(here: World) -> None:
    """Two releases after each other, into the two slots in turn."""
    here.device.start()
    here.device.wait("info poll news=no")
    for number, slot in ((1, Slot.B), (2, Slot.A)):
        here.publish(f"{number}.0.0", number)
        here.device.wait(IDLE, times=number)
        assert here.device.confirmed is slot
    verdicts = [entry["verdict"] for entry in here.device.json("history")]
    assert verdicts == ["succeeded", "succeeded"]


def test_unhealthy_release_returns_and_is_not_tried_again(here: World) -> None:
    """The check fails, the old slot runs again, the reason is kept and reported."""
    here.publish("6.6.6", 1, b"UNHEALTHY" + large())
    here.device.start()
    here.device.wait("verdict=rolled_back")
    here.device.wait("info poll news=no", times=2)
    assert here.device.confirmed is Slot.A
    assert here.device.log.count("state=staging") == 1
    entry = here.device.json("history")[-1]
    assert (entry["verdict"], entry["code"]) == ("rolled_back", "device.boot")
    assert "marker" in entry["detail"]
    assert here.device.json("status")["components"][0]["release_floor"] == 0


@pytest.mark.parametrize("who", ["child", "parent"])
def test_sigkill_in_the_middle_of_an_install_and_it_finishes(
    here: World, who: str
) -> None:
    """Whichever process is killed while the slot is written, the install completes."""
    here.server.pace = 0.02
    release = here.publish("1.0.0", 1, large())
    here.device.start()
    wait_for(lambda: any("targets/" in path for path in here.server.asked), "transfer")
    wait_for(lambda: any(here.device.slot(Slot.B)), "first bytes in the slot")
    parent, *children = here.device.agents()
    assert children, "the work is done in a child"
    os.kill(children[-1] if who == "child" else parent, signal.SIGKILL)
    here.server.pace = 0.0
    here.device.wait(IDLE)
    assert here.device.confirmed is Slot.B
    assert here.device.slot(Slot.B).startswith(release.content)
    assert len(here.device.json("history")) == 1


def test_repeated_kills_at_any_time_end_in_one_confirmed_update(here: World) -> None:
    """Kills every so often, through staging, arming, trial and confirm."""
    here.server.pace = 0.005
    release = here.publish("1.0.0", 1, large())
    here.device.start()
    for round_ in range(8):
        time.sleep(0.12 + 0.05 * round_)
        if IDLE in here.device.log:
            break
        if pids := here.device.agents():
            os.kill(pids[round_ % len(pids)], signal.SIGKILL)
    here.device.wait("info poll news=no")
    slot = here.device.confirmed
    entries = here.device.json("history")
    if slot is Slot.B:
        assert here.device.slot(Slot.B).startswith(release.content)
        assert [entry["verdict"] for entry in entries] == ["succeeded"]
    else:  # a kill during the trial used up its only start: home, and said so
        assert [entry["verdict"] for entry in entries] == ["rolled_back"]


def test_trial_is_confirmed_without_any_network(here: World) -> None:
    """After the restart the journal is resumed before anybody asks the server."""
    here.publish("1.0.0", 1)
    here.device.start()
    here.device.wait("state=rebooting")
    here.server.down = True
    here.device.wait(IDLE)
    assert here.device.confirmed is Slot.B
    here.device.wait("report code=transport.failed")
    here.server.down = False
    wait_for(lambda: here.device.json("status")["reports"]["waiting"] == 0, "reports")


def test_sigterm_stops_between_steps_and_the_next_start_goes_on(here: World) -> None:
    """A stop in the middle of a transfer ends soon, with status 0, and resumes later."""
    here.server.pace = 0.02
    release = here.publish("1.0.0", 1, large())
    board = here.device.start()
    wait_for(lambda: any(here.device.slot(Slot.B)), "first bytes in the slot")
    began = time.monotonic()
    board.send_signal(signal.SIGTERM)
    assert board.wait(20) == 0
    assert time.monotonic() - began < 10
    assert here.device.agents() == []
    assert here.device.json("status")["components"][0]["state"] == "staging"
    here.server.pace = 0.0
    here.device.start()
    here.device.wait(IDLE)
    assert here.device.slot(Slot.B).startswith(release.content)


def test_check_installs_in_the_foreground(here: World) -> None:
    """`check` says how far it is and ends with 75 when the board has to restart."""
    here.device.popen(["/bin/true"])
    (here.device.boot / "running").write_text("slot=a\nboot_id=1-aa\n")
    here.publish("1.0.0", 1)
    assert here.device.run("check", "--dry-run").stdout.count("1.0.0") == 2
    assert not here.device.state.exists(), "a dry run writes nothing"
    found = here.device.run("check")
    assert found.returncode == 75
    assert "install: 100 %" in found.stderr
    assert "rebooting" in found.stdout


def test_a20_reports_wait_for_the_server_and_arrive_in_order(here: World) -> None:
    """Offline for reports only: everything arrives later, oldest first, none lost."""
    here.server.report_status = 503
    here.publish("1.0.0", 1)
    here.device.start()
    here.device.wait(IDLE)
    wait_for(lambda: here.device.json("status")["reports"]["waiting"] >= 3, "queue")
    assert here.server.raw_reports == []
    here.server.report_status = 200
    here.publish("2.0.0", 2)
    here.device.wait(IDLE, times=2)
    wait_for(lambda: here.device.json("status")["reports"]["waiting"] == 0, "delivery")


def test_sigusr1_checks_at_once(here: World) -> None:
    """Nobody has to wait for the next poll."""
    here.device.configure(here.server.url, poll_seconds="3600")
    here.server.poll_seconds = 3600
    here.device.start()
    here.device.wait("info wait")
    here.publish("1.0.0", 1)
    os.kill(here.device.agents()[0], signal.SIGUSR1)
    here.device.wait(IDLE)
    assert here.device.confirmed is Slot.B
