"""Deltas of the fleet: which are wanted, what becomes of them, who is sent them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sealift.core.errors import (
    ConflictError,
    DeltaTimeError,
    EngineError,
    NotFoundError,
)
from sealift.core.reports import Result
from sealift.server.api import wire
from sealift.server.domain import deltas as rules
from sealift.server.domain.deltas import DeltaState
from sealift.server.ports import Delta, Done, Installation, PayloadPolicy
from sealift.server.services import deltas, deployments, director
from sealift.server.services.deployments import NewDeployment
from tests.unit.server.fleet import DELTAS, MAKER, Fleet, full_length, two_releases
from tests.unit.server.world import OPERATOR, World, artifact

WAITING = replace(DELTAS, wait_minutes=10)


def installation(world: World, deployment: str) -> Installation:
    (found,) = world.means.store.reader.deployments.installations(deployment)
    return found


def method(world: World, deployment: str) -> str | None:
    found = installation(world, deployment).offer
    assert found is not None
    return found.held or found.method


def ordered_names(world: World, fleet: Fleet, name: str = "dev-0001") -> list[str]:
    """Containers in the Director's Targets as the device gets them."""
    fleet.poll(name)
    record = world.means.store.reader.metadata.director(name)
    assert record is not None
    text = record.targets.decode()
    known = [f"rootfs-{v}.full" for v in ("1.0.0", "1.1.0")]
    known += [row.container.name for row in fleet.rows() if row.container is not None]
    return [name for name in known if f'"{name}"' in text]


# ── which ────────────────────────────────────────────────────────────────────────────
def test_wanted_from_what_devices_run(world: World) -> None:
    """A release wants a delta from each image devices run, most devices first."""
    fleet = Fleet(world)
    for number, version in enumerate(("1.0.0", "1.1.0", "1.2.0"), 1):
        world.release(version, number)
    fleet.running("1.1.0", "a", "b")
    fleet.running("1.0.0", "c")
    world.release("1.3.0", 4)
    rows = [(row.base_sha256, row.devices) for row in fleet.rows()]
    expected = [artifact(v).sha256.hex() for v in ("1.1.0", "1.0.0")]
    assert rows == [(expected[0], 2), (expected[1], 1)]
    assert fleet.claim().base_sha256 == expected[0]


def test_never_from_images_nobody_runs(world: World) -> None:
    """Nothing is wanted for other hardware, strangers' images, revoked devices."""
    fleet = Fleet(world)
    world.release("1.0.0", 1)
    fleet.running("9.9.9", "stranger")  # an image that was never published here
    other = world.device("other", "another-board")
    assert other.ecus
    world.release("1.1.0", 2)
    assert fleet.rows() == []


def test_each_pair_once(world: World) -> None:
    """A deployment wants what the release did not, and nothing twice."""
    fleet, release = two_releases(world)
    assert len(fleet.rows()) == 1
    world.deploy(release)
    assert len(fleet.rows()) == 1
    other = Fleet(world)
    third = world.release("1.2.0", 3)  # from 1.0.0
    other.running("1.1.0", "late")
    before = len(fleet.rows())
    world.deploy(third, "late")
    assert len(fleet.rows()) == before + 1


def test_as_many_as_are_kept(world: World) -> None:
    """No more deltas per new image than the settings keep."""
    fleet = Fleet(world)
    world.means = replace(world.means, payload=replace(DELTAS, bases=1))
    world.release("1.0.0", 1)
    world.release("1.1.0", 2)
    fleet.running("1.0.0", "a")
    fleet.running("1.1.0", "b", "c")
    world.release("1.2.0", 3)
    (row,) = [row for row in fleet.rows() if row.path.endswith("1.2.0.img")]
    assert row.base_sha256 == artifact("1.1.0").sha256.hex()


def test_none_when_switched_off(world: World) -> None:
    """``delta.enabled = false`` makes nothing wanted."""
    fleet = Fleet(world)
    world.means = replace(world.means, payload=PayloadPolicy())
    world.release("1.0.0", 1)
    fleet.running("1.0.0", "a")
    world.release("1.1.0", 2)
    assert fleet.rows() == []


# ── what becomes of them ─────────────────────────────────────────────────────────────
def test_ready_is_stored_and_offered(world: World) -> None:
    """A delta made after the deployment: who has not begun changes over."""
    fleet, release = two_releases(world)
    deployment = world.deploy(release)
    assert ordered_names(world, fleet) == ["rootfs-1.1.0.full"]
    assert method(world, deployment) == "full"
    made = fleet.make(100)
    assert (made.state, made.length, made.cpu_ms) == ("ready", 100, 5)
    assert made.container is not None
    assert ordered_names(world, fleet)[1:] == [made.container.name]
    offer = installation(world, deployment).offer
    assert offer is not None
    assert (offer.method, offer.bytes) == ("delta", 100)
    assert offer.base_sha256 == artifact("1.0.0").sha256.hex()


def test_only_those_it_bears_on_are_looked_at_again(world: World) -> None:
    """A delta from one image makes no work for devices on another."""
    fleet = Fleet(world)
    world.release("1.0.0", 1)
    world.release("1.1.0", 2)
    fleet.running("1.0.0", "a", "b")
    fleet.running("1.1.0", "c")
    world.deploy(world.release("1.2.0", 3))
    for name in fleet.voices:
        fleet.poll(name)
    fleet.make(100)  # from 1.0.0
    looked = world.means.store.reader.metadata
    found = {name: looked.director(name) for name in fleet.voices}
    again = [name for name, record in found.items() if record and not record.renew_at]
    assert again == ["a", "b"]


def test_who_has_begun_goes_on(world: World) -> None:
    """A device that began the full container is not sent another order midway."""
    fleet, release = two_releases(world)
    deployment = world.deploy(release)
    fleet.poll("dev-0001")
    actor = fleet.voices["dev-0001"].actor
    director.start_download(world.means, actor, "dev-0001", "rootfs-1.1.0.full")
    before = world.means.store.reader.metadata.director("dev-0001")
    fleet.make(100)
    assert ordered_names(world, fleet) == ["rootfs-1.1.0.full"]
    after = world.means.store.reader.metadata.director("dev-0001")
    assert before is not None
    assert after is not None
    assert after.targets == before.targets
    assert method(world, deployment) == "full"


def test_who_has_begun_a_delta_goes_on(world: World) -> None:
    """A device half through a delta keeps it, also when it reports another image."""
    fleet, release = two_releases(world)
    made = fleet.make(100)
    world.deploy(release)
    assert made.container is not None
    fleet.poll("dev-0001")
    actor = fleet.voices["dev-0001"].actor
    director.start_download(world.means, actor, "dev-0001", made.container.name)
    (row,) = world.means.store.reader.deployments.installations_on("dev-0001")
    assert row.state == "downloading"
    fleet.running("9.9.9", "dev-0001")
    assert ordered_names(world, fleet)[1:] == [made.container.name]


def test_useless_is_remembered_and_not_stored(world: World) -> None:
    """From 80 % of the full container on it is dropped, and not made again."""
    fleet, release = two_releases(world)
    full = full_length("1.1.0")
    made = fleet.make(full * 80 // 100 + 1)
    assert (made.state, made.container) == ("useless", None)
    assert made.length == full * 80 // 100 + 1
    deployment = world.deploy(release)
    assert len(fleet.rows()) == 1
    assert method(world, deployment) == "full"


@pytest.mark.parametrize(("length", "good"), [(79, True), (80, False), (200, False)])
def test_eighty_per_cent(length: int, good: bool) -> None:
    """The border itself is not worth it."""
    assert rules.useful(length, 100) is good


def test_failures_are_tried_again_later(world: World) -> None:
    """Three times, 1 and 5 minutes apart; then it is failed and says why."""
    fleet, _ = two_releases(world)
    for minutes in (1, 5):
        row = fleet.claim()
        deltas.fail(world.means, OPERATOR, row.number, MAKER, EngineError("boom"))
        assert fleet.rows()[0].state == "wanted"
        world.clock.forward(minutes=minutes, seconds=-1)
        assert world_claims(world) is None
        world.clock.forward(seconds=1)
    row = fleet.claim()
    deltas.fail(world.means, OPERATOR, row.number, MAKER, EngineError("boom"))
    (row,) = fleet.rows()
    assert row.state == "failed"
    assert row.reason == "boom [delta.engine]"
    deltas.retry(world.means, OPERATOR, row.number)
    assert fleet.make().state == "ready"


def test_what_took_too_much_is_not_tried_again(world: World) -> None:
    """Memory and time are settings: the same delta would need them again."""
    fleet, _ = two_releases(world)
    row = fleet.claim()
    deltas.fail(world.means, OPERATOR, row.number, MAKER, DeltaTimeError("too slow"))
    (row,) = fleet.rows()
    assert (row.state, row.attempts) == ("failed", 1)


def world_claims(world: World) -> Delta | None:
    now = world.clock.now()
    with world.means.store.begin() as session:
        return session.deltas.claim("other", now, now)


def test_a_dead_maker_loses_its_row(world: World) -> None:
    """A lease that ran out lets another take the row; the first changes nothing."""
    fleet, _ = two_releases(world)
    row = fleet.claim()
    assert world_claims(world) is None
    world.clock.forward(minutes=1)
    assert world_claims(world) is not None
    before = world.leaves()
    deltas.fail(world.means, OPERATOR, row.number, MAKER, EngineError("late"))
    assert world.leaves() == before


def test_cancelled_stays_cancelled(world: World) -> None:
    """An operator stops one; what its maker says then changes nothing."""
    fleet, release = two_releases(world)
    row = fleet.claim()
    deltas.cancel(world.means, OPERATOR, row.number)
    deltas.fail(world.means, OPERATOR, row.number, MAKER, EngineError("cancelled"))
    assert fleet.rows()[0].state == "cancelled"
    assert method(world, world.deploy(release)) == "full"
    with pytest.raises(ConflictError):
        deltas.cancel(world.means, OPERATOR, row.number)
    with pytest.raises(NotFoundError):
        deltas.retry(world.means, OPERATOR, 99)


def test_ready_is_not_made_again(world: World) -> None:
    """Neither retry nor cancel touches a delta that is ready."""
    fleet, _ = two_releases(world)
    row = fleet.make()
    for use_case in (deltas.retry, deltas.cancel):
        with pytest.raises(ConflictError):
            use_case(world.means, OPERATOR, row.number)


# ── waiting and budgets ──────────────────────────────────────────────────────────────
def test_a_deployment_waits_for_deltas(world: World) -> None:
    """Held while the delta is made, ordered with it when it is there."""
    fleet, release = two_releases(world)
    world.means = replace(world.means, payload=WAITING)
    deployment = world.deploy(release)
    assert method(world, deployment) == "delta"  # held for it
    assert ordered_names(world, fleet) == []
    fleet.make(100)
    assert len(ordered_names(world, fleet)) == 2
    offer = installation(world, deployment).offer
    assert offer is not None
    assert (offer.method, offer.held) == ("delta", None)


def test_the_wait_ends(world: World) -> None:
    """After its minutes the deployment goes out in full, without anybody's doing."""
    fleet, release = two_releases(world)
    world.means = replace(world.means, payload=WAITING)
    world.deploy(release)
    assert ordered_names(world, fleet) == []
    record = world.means.store.reader.metadata.director("dev-0001")
    assert record is not None
    assert record.renew_at == int(world.clock.now().timestamp()) + 600
    world.clock.forward(minutes=10)
    assert ordered_names(world, fleet) == ["rootfs-1.1.0.full"]


@pytest.mark.parametrize("end", ["useless", "cancelled"])
def test_what_will_not_come_is_not_waited_for(world: World, end: str) -> None:
    """A useless or cancelled delta lets the full container go out at the next poll."""
    fleet, release = two_releases(world)
    world.means = replace(world.means, payload=WAITING)
    world.deploy(release)
    assert ordered_names(world, fleet) == []
    if end == "useless":
        fleet.make(full_length("1.1.0"))
    else:
        deltas.cancel(world.means, OPERATOR, fleet.rows()[0].number)
    caller = world.means.store.reader.metadata.director("dev-0001")
    assert caller is not None
    assert caller.renew_at == 0
    assert ordered_names(world, fleet) == ["rootfs-1.1.0.full"]


def test_a_failed_attempt_is_not_waited_for(world: World) -> None:
    """The deployment goes out in full after the first failure, retried or not."""
    fleet, release = two_releases(world)
    world.means = replace(world.means, payload=WAITING)
    world.deploy(release)
    row = fleet.claim()
    assert ordered_names(world, fleet) == []
    deltas.fail(world.means, OPERATOR, row.number, MAKER, EngineError("boom"))
    assert ordered_names(world, fleet) == ["rootfs-1.1.0.full"]


def test_never_full_beyond_the_budget(world: World) -> None:
    """Held with figures until a delta fits; the order carries the limit."""
    fleet, release = two_releases(world)
    wanted = NewDeployment(release.id, None, bytes_max=500)
    made = deployments.create(world.means, OPERATOR, wanted).deployment.id
    full = full_length("1.1.0")
    offer = installation(world, made).offer
    assert offer is not None
    assert (offer.held, offer.method, offer.bytes) == ("budget", None, full)
    assert offer.detail is not None
    assert str(full) in offer.detail
    assert ordered_names(world, fleet) == []
    assert installation(world, made).state == "waiting"
    fleet.make(100)
    assert len(ordered_names(world, fleet)) == 2
    record = world.means.store.reader.metadata.director("dev-0001")
    assert record is not None
    assert b'"bytes_max":500' in record.targets


def test_held_changes_leave_one_event(world: World) -> None:
    """A device that is held for another reason than before: one leaf, then none."""
    fleet, release = two_releases(world)
    world.means = replace(world.means, payload=WAITING)
    wanted = NewDeployment(release.id, None, bytes_max=500)
    made = deployments.create(world.means, OPERATOR, wanted).deployment.id
    fleet.poll("dev-0001")
    world.clock.forward(minutes=10)
    before = world.leaves()
    fleet.poll("dev-0001")
    assert world.leaves() == [*before, "installation.state"]
    assert method(world, made) == "budget"
    fleet.poll("dev-0001")
    assert len(world.leaves()) == len(before) + 1


def test_views_name_the_base(world: World) -> None:
    """An operator sees both images, figures and state of every delta."""
    fleet, _ = two_releases(world)
    fleet.make(100)
    (view,) = deltas.all_deltas(world.means.store.reader)
    assert view.base_path == "demo-board/rootfs-1.0.0.img"
    assert view.delta.state == DeltaState.READY
    assert view == deltas.show_delta(world.means.store.reader, view.delta.number)


# ── what it really took ──────────────────────────────────────────────────────────────
def result(world: World, deployment: str, verdict: str = "succeeded") -> Result:
    """How the attempt at 1.1.0 ended: a delta whose base had changed in two places."""
    assert world.means.store.reader.deployments.find(deployment)
    return Result(
        attempt="a-1",
        verdict=verdict,
        stage="reporting",
        sha256=artifact("1.1.0").sha256,
        director_version=1,
        from_version="1.0.0",
        to_version="1.1.0",
        deployment=deployment,
        transferred=150,
        method="delta",
        repaired=2,
    )


def under_way(world: World) -> tuple[Fleet, str]:
    """A device that was offered a delta."""
    fleet, release = two_releases(world)
    fleet.make(100)
    deployment = world.deploy(release)
    fleet.poll("dev-0001")
    return fleet, deployment


def test_a_repaired_base_is_evidence(world: World) -> None:
    """Method, bytes and repairs are kept with the installation and in the leaf."""
    fleet, deployment = under_way(world)
    fleet.voices["dev-0001"].runs = artifact("1.1.0")
    fleet.say("dev-0001", ecu={"results": (result(world, deployment),)})
    row = installation(world, deployment)
    assert row.state == "succeeded"
    assert row.done == Done("delta", 150, 2)
    assert row.offer is not None
    assert row.offer.bytes == 100
    leaf = world.means.store.reader.audit.page(0, 1000)[-1]
    (told,) = json.loads(leaf.body)["body"]["installations"]
    assert (told["method"], told["transferred"], told["repaired"]) == ("delta", 150, 2)


def test_a_result_may_come_late(world: World) -> None:
    """The image first, its result in a later report: kept, the end stays the end."""
    fleet, deployment = under_way(world)
    fleet.running("1.1.0", "dev-0001")
    ended = installation(world, deployment)
    assert (ended.state, ended.done) == ("succeeded", None)
    late = result(world, deployment, "failed")
    fleet.say("dev-0001", ecu={"results": (late,)}, abilities=("delta/1",))
    row = installation(world, deployment)
    assert (row.state, row.done) == ("succeeded", Done("delta", 150, 2))
    before = world.leaves()
    fleet.say("dev-0001", ecu={"results": (late,)}, abilities=("delta/1",))
    assert world.leaves() == [*before, "manifest.accepted"]


def test_a_result_of_another_deployment(world: World) -> None:
    """What another order of the same image took is not this one's."""
    fleet, deployment = under_way(world)
    other = replace(result(world, deployment), deployment="d-other")
    fleet.say("dev-0001", ecu={"results": (other,)})
    assert installation(world, deployment).done is None


def test_drift_adds_up(world: World) -> None:
    """A deployment's expected and real bytes, of those whose device told them."""
    fleet, deployment = under_way(world)
    fleet.voices["dev-0001"].runs = artifact("1.1.0")
    fleet.say("dev-0001", ecu={"results": (result(world, deployment),)})
    reader = world.means.store.reader
    found = wire.deployment_detail(deployments.show_deployment(reader, deployment))
    assert found.bytes == wire.BytesAnswer(1, expected=100, transferred=150, repaired=1)


# ── rules ────────────────────────────────────────────────────────────────────────────
def test_waiting_rules() -> None:
    """Only the first attempt is waited for, while it is due or under way."""
    assert rules.is_awaited(DeltaState.WANTED, 0)
    assert rules.is_awaited(DeltaState.MAKING, 1)
    assert not rules.is_awaited(DeltaState.WANTED, 1)
    assert not rules.is_awaited(DeltaState.MAKING, 2)
    assert not rules.is_awaited(DeltaState.READY, 1)
    assert not rules.is_awaited(DeltaState.FAILED, 0)
