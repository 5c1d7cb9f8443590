"""Rows A-30 and A-31: the device's clock, and the time that metadata vouches for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sealift.repo.repository import utc_text
from sealift.sim import network
from sealift.sim.attacks.forge import Change, Json
from sealift.sim.attacks.metadata import REPOSITORIES
from sealift.sim.attacks.world import THEN, Ground, Observed, Plan, Scene

if TYPE_CHECKING:
    from sealift.sim.network import Request, Response, Server

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WRONG = datetime(2040, 1, 1, tzinfo=UTC)
"""Within what is sane, and far from true."""
INSANE = datetime(2099, 1, 1, tzinfo=UTC)


def dated(issued: datetime, expires: datetime) -> Change:
    """Other times in a file."""

    def change(signed: Json) -> None:
        signed["issued"], signed["expires"] = utc_text(issued), utc_text(expires)

    return change


# ── A-30 ─────────────────────────────────────────────────────────────────────────────
def attack_a_30(ground: Ground) -> Observed:
    """1970 with files that have expired, a step back in a check, 2040, 2099."""
    return ground.observed(
        ground.each([_in_1970, _stepping_back, _in_2040]),
        ground.each([_in_2099, _after_2040]),
    )


def _in_1970(scene: Scene) -> str:
    """What metadata vouched for is the least that time can be."""
    scene.later(days=30)
    scene.vendor.refresh()
    scene.catch_up()
    past = scene.true_now() - timedelta(days=20)
    change = {"timestamp": dated(past, past + timedelta(days=1))}
    files = scene.forger("image").chain(change)
    with scene.clock_at(EPOCH):
        return scene.attempt(scene.serve("image", files, stolen=True))


def _stepping_back(scene: Scene) -> str:
    """The clock goes back while a check is under way; one time counts for all of it."""
    recorded = scene.served()
    scene.later(days=30)
    true = scene.clock.now()

    def attacker(server: Server, request: Request) -> Response:
        if request.path.endswith("timestamp.json"):
            scene.clock.set_system(true - timedelta(days=30))
        return network.replay(recorded)(server, request)

    with scene.clock_at(true):
        return scene.attempt(attacker)


def _in_2040(scene: Scene) -> str:
    with scene.clock_at(WRONG):
        return scene.attempt()


def _in_2099(scene: Scene) -> str:
    """A clock that cannot be right is not believed."""
    with scene.clock_at(INSANE):
        return scene.attempt()


def _after_2040(scene: Scene) -> str:
    """A clock that was wrong leaves nothing behind."""
    with scene.clock_at(WRONG):
        scene.attempt()
    return scene.attempt()


# ── A-31 ─────────────────────────────────────────────────────────────────────────────
def attack_a_31(ground: Ground) -> Observed:
    """Stolen Timestamp keys vouch for a time years ahead."""
    year = timedelta(days=365)

    def spanned(start: timedelta, end: timedelta) -> Plan:
        def act(scene: Scene) -> str:
            now = scene.true_now()
            change = {"timestamp": dated(now + start, now + end)}
            files = scene.forger("director").chain(change)
            return scene.attempt(scene.serve("director", files, stolen=True))

        return act

    spans = [(timedelta(), 2 * year), (5 * year, year), (year, year)]
    spans.append((timedelta(), timedelta(days=400, seconds=1)))
    return ground.observed(
        ground.together(spanned(*span) for span in spans),
        ground.each(_poisoned(name) for name in REPOSITORIES),
    )


def _poisoned(repository: str) -> Plan:
    """Years ahead, and short: taken, until Root has another key for Timestamp."""

    def act(scene: Scene) -> str:
        ahead = scene.true_now() + timedelta(days=5 * 365)
        change = {"timestamp": dated(ahead, ahead + timedelta(days=1))}
        files = scene.forger(repository).chain(change)
        scene.attempt(scene.serve(repository, files, stolen=True))
        scene.vendor.refresh(anew=True)
        scene.publish("1.4", 5)
        scene.waiting = True
        stuck = scene.attempt()
        scene.vendor.rotate(repository, "timestamp")
        return stuck + THEN + scene.attempt()

    return act
