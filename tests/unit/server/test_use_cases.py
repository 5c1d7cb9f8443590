"""Every use case that writes leaves exactly one event, or nothing at all happens.

The use cases are found by looking, not listed by hand: a new one without a row in
``CASES`` fails the first test.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from sealift.core.audit import Actor, ActorType, Kind
from sealift.core.errors import AuditUnavailableError, EngineError
from sealift.repo.entries import Listed
from sealift.server import services
from sealift.server.domain.permissions import Action
from sealift.server.ports import Token
from sealift.server.services import (
    accounts,
    audit,
    deltas,
    deployments,
    director,
    identity,
    metadata,
    releases,
    reports,
)
from tests.unit.server.fleet import MAKER, made_delta, two_releases
from tests.unit.server.test_reports import Voice
from tests.unit.server.world import (
    OPERATOR,
    START,
    TestDevice,
    World,
    artifact,
    container,
)

DEVICE = Actor(ActorType.DEVICE, "dev-0001")
Act = Callable[[], object]


def writing_use_cases() -> set[str]:
    """Public functions of the services that are given the means to write."""
    found = set()
    for info in pkgutil.iter_modules(services.__path__):
        module = importlib.import_module(f"{services.__name__}.{info.name}")
        for name, value in inspect.getmembers(module, inspect.isfunction):
            first = next(iter(inspect.signature(value).parameters.values()), None)
            mine = value.__module__ == module.__name__ and not name.startswith("_")
            if mine and first is not None and first.annotation == "Means":
                found.add(f"{info.name}.{name}")
    return found - {"audit.recorded"}


TOKEN = Token("operator", "ab" * 32, ("admin",), "server", START)


# ── a row per use case: make the world ready, then say what to do ────────────────────
def rotate_token(world: World) -> Act:
    return lambda: accounts.rotate_token(world.means, OPERATOR)


def create_token(world: World) -> Act:
    return lambda: accounts.create_token(world.means, OPERATOR, "ci", ["releaser"])


def revoke_token(world: World) -> Act:
    create_token(world)()
    return lambda: accounts.revoke_token(world.means, OPERATOR, "ci", "lost\x1b[2J")


def note_denied(world: World) -> Act:
    action = Action.DEVICE_REVOKE
    return lambda: accounts.note_denied(world.means, OPERATOR, action)


def publish_root(world: World) -> Act:
    raw = world.vendor.root("image", 2)
    return lambda: metadata.publish_root(world.means, OPERATOR, "image", raw)


def publish_targets(world: World) -> Act:
    raw = world.vendor.listing(Listed(artifact("1.0.0"), 1))
    return lambda: metadata.publish_targets(world.means, OPERATOR, raw)


def refresh_image(world: World) -> Act:
    publish_targets(world)()
    world.clock.forward(hours=13)
    return lambda: metadata.refresh_image(world.means, OPERATOR)


def add_container(world: World) -> Act:
    return lambda: releases.add_container(
        world.means, OPERATOR, "rootfs-1.full", 5, "ab" * 32
    )


def publish_release(world: World) -> Act:
    publish_targets(world)()
    facts, _ = container("1.0.0")
    releases.add_container(
        world.means, OPERATOR, facts.name, facts.length, facts.sha256.hex()
    )
    wanted = [releases.NewArtifact(artifact("1.0.0").name, facts)]
    return lambda: releases.publish_release(world.means, OPERATOR, wanted)


def enrol(world: World) -> Act:
    return lambda: world.device("dev-0001")


def revoke(world: World) -> Act:
    world.device()
    return lambda: identity.revoke(world.means, OPERATOR, "dev-0001", "lost\n\x1b[2J")


def renew(world: World) -> Act:
    device = world.device()
    (shown,) = world.means.store.reader.devices.certificates(device.id)
    wanted = TestDevice(device.id, {}).csr
    return lambda: identity.renew(world.means, DEVICE, shown.sha256, wanted)


def retire(world: World) -> Act:
    renew(world)()
    newest = world.means.store.reader.devices.certificates("dev-0001")[0]
    world.means.store.note_used({newest.sha256: world.means.clock.now()})
    world.clock.forward(days=2)
    return lambda: identity.retire(world.means, OPERATOR)


def create(world: World) -> Act:
    world.device()
    release = world.release("1.0.0", 1)
    return lambda: world.deploy(release)


def abort(world: World) -> Act:
    found = str(create(world)())
    return lambda: deployments.abort(world.means, OPERATOR, found, "no")


def issue_for(world: World) -> Act:
    create(world)()
    return lambda: director.issue_for(world.means, DEVICE, "dev-0001")


def start_download(world: World) -> Act:
    issue_for(world)()
    name = "rootfs-1.0.0.full"
    return lambda: director.start_download(world.means, DEVICE, "dev-0001", name)


def receive(world: World) -> Act:
    voice = Voice(world.device())
    raw = voice.report()
    return lambda: reports.receive(world.means, DEVICE, "dev-0001", raw)


def finish_delta(world: World) -> Act:
    fleet, _ = two_releases(world)
    row = fleet.claim()
    made = made_delta(row)
    return lambda: deltas.finish(world.means, OPERATOR, row.number, MAKER, made, 5)


def fail_delta(world: World) -> Act:
    fleet, _ = two_releases(world)
    row, error = fleet.claim(), EngineError("no\n\x1b[2J")
    return lambda: deltas.fail(world.means, OPERATOR, row.number, MAKER, error)


def cancel_delta(world: World) -> Act:
    fleet, _ = two_releases(world)
    number = fleet.rows()[0].number
    return lambda: deltas.cancel(world.means, OPERATOR, number)


def retry_delta(world: World) -> Act:
    cancel_delta(world)()
    return lambda: deltas.retry(world.means, OPERATOR, 1)


CASES: dict[str, Callable[[World], Act]] = {
    "accounts.create_token": create_token,
    "accounts.note_denied": note_denied,
    "accounts.revoke_token": revoke_token,
    "accounts.rotate_token": rotate_token,
    "deltas.cancel": cancel_delta,
    "deltas.fail": fail_delta,
    "deltas.finish": finish_delta,
    "deltas.retry": retry_delta,
    "deployments.abort": abort,
    "deployments.create": create,
    "director.issue_for": issue_for,
    "director.start_download": start_download,
    "identity.enrol": enrol,
    "identity.renew": renew,
    "identity.retire": retire,
    "identity.revoke": revoke,
    "metadata.publish_root": publish_root,
    "metadata.publish_targets": publish_targets,
    "metadata.refresh_image": refresh_image,
    "releases.add_container": add_container,
    "releases.publish_release": publish_release,
    "reports.receive": receive,
}


def test_every_writing_use_case_has_a_row() -> None:
    """A use case that is not tested here does not get in."""
    assert writing_use_cases() == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_one_event_per_use_case(world: World, name: str) -> None:
    """The change and exactly one event are committed together."""
    act = CASES[name](world)
    before = len(world.leaves())
    act()
    assert len(world.leaves()) == before + 1


@pytest.mark.parametrize("name", sorted(CASES))
def test_no_event_no_change(world: World, tmp_path: Path, name: str) -> None:
    """If the log cannot be written the use case fails and nothing changed."""
    act = CASES[name](world)
    database = tmp_path / "server" / "sealift.db"
    with sqlite3.connect(database) as other:
        other.execute(
            "CREATE TRIGGER full_log BEFORE INSERT ON audit_leaf "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    other.close()
    before = dump(database)
    with pytest.raises(AuditUnavailableError):
        act()
    assert dump(database) == before


def test_change_without_event_is_undone(world: World) -> None:
    """A use case that forgot its event cannot commit."""
    with (
        pytest.raises(AuditUnavailableError),
        audit.recorded(world.means, OPERATOR) as unit,
    ):
        unit.session.tokens.save(TOKEN)
    assert world.means.store.reader.tokens.find("operator") is None


def test_two_events_in_one_change_are_undone(world: World) -> None:
    """One change, one leaf: two are a defect and nothing of it stays."""
    before = world.leaves()
    with (
        pytest.raises(AuditUnavailableError),
        audit.recorded(world.means, OPERATOR) as unit,
    ):
        unit.session.tokens.save(TOKEN)
        unit.record(Kind.TOKEN_ROTATED, {})
        unit.event_id = "another"
        unit.record(Kind.TOKEN_ROTATED, {})
    assert world.leaves() == before


@pytest.mark.parametrize(
    "table", ["audit_leaf", "manifest", "metadata", "container", "release"]
)
@pytest.mark.parametrize("verb", ["UPDATE {} SET rowid = rowid", "DELETE FROM {}"])
def test_evidence_is_append_only(
    world: World, tmp_path: Path, table: str, verb: str
) -> None:
    """Not even the server's own connection can change or delete what was recorded."""
    create(world)()
    database = tmp_path / "server" / "sealift.db"
    other = sqlite3.connect(database)
    if table == "manifest":
        other.execute(
            "INSERT INTO manifest (device_id, sha256, received_at, verdict, body) "
            "VALUES ('dev-0001', 'ab', '', 'accepted', x'00')"
        )
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(verb.format(table))
    other.close()


def dump(database: Path) -> list[str]:
    """The whole content of a database as statements."""
    connection = sqlite3.connect(database)
    found = list(connection.iterdump())
    connection.close()
    return found
