"""Who may do what: the table, walked over every endpoint with every role's token."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sealift.core.errors import (
    AuthRequiredError,
    ConflictError,
    ForbiddenError,
    InvalidConfigError,
    InvalidInputError,
    NotFoundError,
)
from sealift.server.api.operations import OPERATIONS, PREFIX, Operation
from sealift.server.api.operator import DENIED_SECONDS, OperatorFace
from sealift.server.config import Config, load
from sealift.server.domain.permissions import ROLES, Action, check, custom_roles, table
from sealift.server.services import accounts
from tests.unit.server.test_faces import Answer, ask, at_once, guarded
from tests.unit.server.world import OPERATOR, World

# Who may do what, once more and by hand: this table is the promise, the code follows.
READS = {"status", "metadata", "container", "release", "device", "deployment", "delta"}
LOOK = {f"{what}.read" for what in READS}
PROMISED: Mapping[str, set[str]] = {
    "viewer": LOOK,
    "releaser": LOOK | {"targets.publish", "container.store", "release.publish"},
    "deployer": LOOK | {"deployment.create", "deployment.abort", "delta.steer"},
    "security": LOOK
    | {"root.publish", "device.revoke", "deployment.abort", "audit.read", "token.read"},
    "auditor": LOOK | {"audit.read", "token.read"},
    "factory": {"status.read", "device.enrol"},
    "admin": {str(action) for action in Action},
}


@pytest.fixture
def operator(world: World) -> OperatorFace:
    return OperatorFace(world.means, at_once, Config(), "1", {})


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Bearer " + token.encode())]


def request(face: OperatorFace, operation: Operation, token: str) -> Answer:
    """One request to an endpoint; what it asks for need not make sense."""
    path = PREFIX + operation.path
    for name in ("name", "id", "repository", "role"):
        path = path.replace(f"{{{name}}}", "1")
    return ask(guarded(face), operation.method, path, bearer(token), body=b"{}")


def token_of(world: World, role: str) -> str:
    secret, _ = accounts.create_token(world.means, OPERATOR, f"the-{role}", [role])
    return secret


def test_the_table_is_the_promise() -> None:
    """Each role allows what is written above, no more and no less."""
    assert {
        role: {str(action) for action in actions} for role, actions in ROLES.items()
    } == PROMISED


def test_the_manual_has_the_table() -> None:
    """docs/server.md shows who may do what, as the code has it."""
    manual = Path(__file__).resolve().parents[3] / "docs/server.md"
    assert table() in manual.read_text("utf-8")


def test_every_action_is_asked_for_somewhere() -> None:
    """No action that nothing needs, no endpoint that needs an unknown one."""
    asked = {operation.action for operation in OPERATIONS}
    assert asked - {None} == set(Action)
    free = {operation.handler for operation in OPERATIONS if operation.action is None}
    assert free == {"openapi", "who_am_i"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda found: found.handler)
@pytest.mark.parametrize("role", sorted(PROMISED))
def test_the_permission_walk(
    world: World, operator: OperatorFace, role: str, operation: Operation
) -> None:
    """Every endpoint with every role: refused exactly where the table says so."""
    answer = request(operator, operation, token_of(world, role))
    wanted = operation.action is None or str(operation.action) in PROMISED[role]
    assert answer.status != 401
    if wanted:
        told: Any = json.loads(answer.body)
        refused = answer.status == 403 and "action" in told.get("fields", {})
        assert not refused, told
    else:
        assert (answer.status, answer.code) == (403, "policy.forbidden")
        assert json.loads(answer.body)["fields"] == {"action": str(operation.action)}


def test_F14_what_is_refused_is_in_the_log_once_in_a_while(
    world: World, operator: OperatorFace
) -> None:
    """The first try of each thing, and again after a while: no way to fill the disk."""
    token = token_of(world, "viewer")
    enrol, revoke = (
        next(o for o in OPERATIONS if o.handler == h) for h in ("enrol", "revoke")
    )
    before = len(world.leaves())
    for _ in range(5):
        request(operator, enrol, token)
        request(operator, revoke, token)
    leaves = world.means.store.reader.audit.page(before)
    told = [json.loads(leaf.body) for leaf in leaves]
    assert [leaf["kind"] for leaf in told] == ["access.denied"] * 2
    actions = {leaf["body"]["action"] for leaf in told}
    assert actions == {"device.enrol", "device.revoke"}
    assert told[0]["actor"] == {"type": "token", "id": "the-viewer"}
    world.clock.forward(seconds=DENIED_SECONDS)
    request(operator, enrol, token)
    assert len(world.leaves()) == before + 3


# ── tokens ───────────────────────────────────────────────────────────────────────────
def let_in(world: World, token: str) -> accounts.Bearer:
    means = world.means
    return accounts.check_token(
        means.store.reader, means.roles, token, means.clock.now()
    )


def test_a_token_ends_when_it_says(world: World) -> None:
    """Good until its last second, refused from then on."""
    secret, made = accounts.create_token(world.means, OPERATOR, "ci", ["viewer"], 2)
    assert made.expires_at == world.means.clock.now() + timedelta(days=2)
    world.clock.forward(hours=47, minutes=59, seconds=59)
    assert let_in(world, secret).roles == ("viewer",)
    world.clock.forward(seconds=1)
    with pytest.raises(AuthRequiredError, match="expired"):
        let_in(world, secret)


def test_a_revoked_token_is_refused_at_once(world: World) -> None:
    """The next request with it; revoking twice is one event; others stay."""
    secret, _ = accounts.create_token(world.means, OPERATOR, "ci", ["viewer"])
    other, _ = accounts.create_token(world.means, OPERATOR, "cd", ["viewer"])
    let_in(world, secret)
    accounts.revoke_token(world.means, OPERATOR, "ci", "left the company")
    before = len(world.leaves())
    accounts.revoke_token(world.means, OPERATOR, "ci", "again")
    assert len(world.leaves()) == before
    with pytest.raises(AuthRequiredError, match="revoked"):
        let_in(world, secret)
    assert let_in(world, other).actor.id == "cd"


def test_a_name_is_given_once_for_ever(world: World) -> None:
    """Who reads the log in five years must not take two holders for one."""
    accounts.create_token(world.means, OPERATOR, "ci", ["viewer"])
    accounts.revoke_token(world.means, OPERATOR, "ci", "")
    for name in ("ci", "operator"):
        if name == "operator":
            accounts.rotate_token(world.means, OPERATOR)
        with pytest.raises(ConflictError):
            accounts.create_token(world.means, OPERATOR, name, ["admin"])


def test_the_first_token_is_never_missing(world: World) -> None:
    """It is replaced on the server's machine, not revoked from afar."""
    accounts.rotate_token(world.means, OPERATOR)
    with pytest.raises(ConflictError):
        accounts.revoke_token(world.means, OPERATOR, "operator", "")
    with pytest.raises(NotFoundError):
        accounts.revoke_token(world.means, OPERATOR, "nobody", "")


@pytest.mark.parametrize(
    ("name", "roles", "days"),
    [
        ("CI", ["viewer"], 1),
        ("../x", ["viewer"], 1),
        ("", ["viewer"], 1),
        ("x" * 65, ["viewer"], 1),
        ("ci", [], 1),
        ("ci", ["root"], 1),
        ("ci", ["viewer"], 0),
        ("ci", ["viewer"], 401),
    ],
)
def test_tokens_that_are_not_made(
    world: World, name: str, roles: list[str], days: int
) -> None:
    """A bad name, no role, an unknown one, no end or one too far: nothing happens."""
    before = world.leaves()
    with pytest.raises(InvalidInputError):
        accounts.create_token(world.means, OPERATOR, name, roles, days)
    assert world.leaves() == before


def test_no_secret_is_kept_or_logged(world: World) -> None:
    """Neither rows nor leaves hold a token, only digests."""
    secret, made = accounts.create_token(world.means, OPERATOR, "ci", ["viewer"])
    leaves = world.means.store.reader.audit.page(0, 1000)
    assert secret.encode() not in b"".join(leaf.body for leaf in leaves)
    assert secret not in repr(made)
    assert len(made.sha256) == 64


# ── roles of one's own ───────────────────────────────────────────────────────────────
def test_a_role_of_ones_own(world: World, tmp_path: Path) -> None:
    """[roles] names actions; a token with such a role may do just these."""
    path = tmp_path / "server.toml"
    path.write_text('[roles]\nnight-shift = ["deployment.abort", "device.read"]\n')
    roles = load(path).roles
    assert set(roles) == {*ROLES, "night-shift"}
    means = replace(world.means, roles=roles)
    secret, _ = accounts.create_token(means, OPERATOR, "night", ["night-shift"])
    found = accounts.check_token(means.store.reader, roles, secret, means.clock.now())
    assert found.allowed == {Action.DEPLOYMENT_ABORT, Action.DEVICE_READ}
    check(found.allowed, Action.DEVICE_READ)
    with pytest.raises(ForbiddenError):
        check(found.allowed, Action.DEVICE_ENROL)
    # Taken out of the settings, it allows nothing any more.
    gone = accounts.check_token(
        means.store.reader, dict(ROLES), secret, means.clock.now()
    )
    assert gone.allowed == frozenset()


@pytest.mark.parametrize(
    "roles",
    [
        {"admin": ["status.read"]},
        {"Night": ["status.read"]},
        {"": ["status.read"]},
        {"night": ["everything"]},
        {"night": ["status.read", "*"]},
    ],
)
def test_roles_that_cannot_be(roles: dict[str, list[str]]) -> None:
    """One of ours made weaker or stronger, a bad name, an unknown action."""
    with pytest.raises(InvalidConfigError):
        custom_roles(roles)


@pytest.mark.parametrize(
    "text",
    ["roles = 1", "[roles]\nnight = 1", "[roles]\nnight = []", "[roles.night]\na = 1"],
)
def test_roles_of_a_wrong_form(tmp_path: Path, text: str) -> None:
    """Settings are strict here, too."""
    path = tmp_path / "server.toml"
    path.write_text(text)
    with pytest.raises(InvalidConfigError):
        load(path)
