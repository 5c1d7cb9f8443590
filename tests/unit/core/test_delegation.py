"""Who may vouch for an image, and in which order roles are asked: L1 to L8."""

from __future__ import annotations

import hashlib

import pytest

from sealift.core.errors import (
    DelegationError,
    ExpiredError,
    LimitError,
    MalformedError,
    MixedError,
    NoTargetError,
    SignatureError,
)
from sealift.core.trusted import image_rules
from tests.maker import NOW, Client, Repository, key, time

PATH = "demo/rootfs-1.0.0.img"


def client(repository: Repository) -> Client:
    """A client that has the top-level roles."""
    repository.release()
    made = Client(repository, image_rules())
    made.refresh()
    repository.asked.clear()
    return made


def asked(repository: Repository) -> list[str]:
    return [role for role, _ in repository.asked]


Edge = tuple[str, str, bool]

GRAPHS: dict[str, tuple[list[Edge], list[str]]] = {
    "children come in list order": (
        [("targets", "a", False), ("targets", "b", False)],
        ["a", "b"],
    ),
    "a child's children come before its sibling": (
        [("targets", "a", False), ("targets", "b", False), ("a", "c", False)],
        ["a", "c", "b"],
    ),
    "a terminating role ends the search after its own subtree": (
        [
            ("targets", "a", False),
            ("targets", "b", False),
            ("a", "c", True),
            ("a", "d", False),
            ("c", "e", False),
        ],
        ["a", "c", "e"],
    ),
    "siblings before a terminating role are searched": (
        [("targets", "a", False), ("targets", "b", True), ("targets", "c", False)],
        ["a", "b"],
    ),
    "a cycle ends": (
        [("targets", "a", False), ("a", "b", False), ("b", "a", False)],
        ["a", "b"],
    ),
    "a role that delegates to itself ends": (
        [("targets", "a", False), ("a", "a", False)],
        ["a"],
    ),
    "a diamond is visited once": (
        [
            ("targets", "a", False),
            ("targets", "b", False),
            ("b", "c", False),
            ("a", "c", False),
        ],
        ["a", "c", "b"],
    ),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_L1_L4_L5_roles_are_asked_in_pre_order(name: str) -> None:
    edges, order = GRAPHS[name]
    repository = Repository()
    for parent, role, terminating in edges:
        repository.delegate(parent, role, terminating=terminating)
    with pytest.raises(NoTargetError):
        client(repository).find(PATH)
    assert asked(repository) == order


def test_L1_the_first_role_that_lists_the_image_wins() -> None:
    repository = Repository()
    for role in ("a", "b"):
        repository.delegate("targets", role)
        repository.add_target(PATH, role)
    found = client(repository).find(PATH)
    assert found.role == "a"
    assert asked(repository) == ["a"]


def test_a_role_found_for_one_image_is_not_fetched_for_the_next() -> None:
    repository = Repository()
    repository.delegate("targets", "a")
    repository.add_target(PATH, "a")
    repository.add_target("demo/other.img", "a")
    device = client(repository)
    device.find(PATH)
    device.find("demo/other.img")
    assert asked(repository) == ["a"]
    device.refresh()
    repository.asked.clear()
    device.find(PATH)  # kept from the check before
    assert asked(repository) == []


def test_L1_a_role_that_does_not_verify_ends_the_search() -> None:
    repository = Repository()
    for role in ("a", "b"):
        repository.delegate("targets", role)
    repository.add_target(PATH, "b")
    repository.keys["a"] = [key("stranger")]
    device = client(repository)
    with pytest.raises(SignatureError):
        device.find(PATH)
    assert asked(repository) == ["a"]


@pytest.mark.parametrize("check", ["expired", "version", "hash"])
def test_A28_delegated_roles_pass_every_check_of_targets(check: str) -> None:
    repository = Repository()
    repository.delegate("targets", "a")
    errors = {"expired": ExpiredError, "version": MixedError, "hash": MixedError}
    if check == "expired":
        repository.bodies["a"]["expires"] = time(NOW)
    repository.release()
    listed = repository.bodies["snapshot"]["meta"]["a.json"]
    if check == "version":
        listed["version"] = 2
        repository.files["a", 2] = repository.files["a", 1]
    if check == "hash":
        listed["hashes"]["sha256"] = "00" * 32
    repository.publish("snapshot", "timestamp")
    device = Client(repository, image_rules())
    device.refresh()
    with pytest.raises(errors[check]):
        device.find(PATH)


@pytest.mark.parametrize(
    ("wide", "asks"),
    [(["board-1", "board-2"], True), (["board-2"], False), ([], False)],
)
def test_L2_a_delegation_applies_only_to_its_hardware(
    wide: list[str], asks: bool
) -> None:
    repository = Repository()
    repository.delegate("targets", "a", hardware_ids=wide)
    device = client(repository)
    with pytest.raises(NoTargetError):
        device.find(PATH, "board-1")
    assert asked(repository) == (["a"] if asks else [])


def test_L2_every_role_in_the_chain_must_match() -> None:
    repository = Repository()
    repository.delegate("targets", "a", paths=["demo/*"])
    repository.delegate("a", "b", paths=["*/*"])
    repository.add_target("other/x.img", "b")
    with pytest.raises(NoTargetError):
        client(repository).find("other/x.img")


PATTERNS = [
    ("*", "demo", True),
    ("*", "demo/x", False),
    ("demo/*", "demo/x.img", True),
    ("demo/*", "demo/x/y", False),
    ("demo/*", "Demo/x", False),
    ("demo/?.img", "demo/x.img", True),
    ("demo/?.img", "demo/xy.img", False),
    ("demo/*.img", "demo/.img", True),
    ("*/*", "demo/x", True),
    ("demo/x", "demo/x", True),
    ("demo", "demo/", False),
]


@pytest.mark.parametrize(("pattern", "path", "matches"), PATTERNS)
def test_L3_wildcards_do_not_cross_a_slash(
    pattern: str, path: str, matches: bool
) -> None:
    repository = Repository()
    repository.delegate("targets", "a", paths=[pattern])
    with pytest.raises(NoTargetError):
        client(repository).find(path)
    assert asked(repository) == (["a"] if matches else [])


def test_hash_prefixes_choose_by_the_hash_of_the_name() -> None:
    repository = Repository()
    prefix = hashlib.sha256(PATH.encode()).hexdigest()[:4]
    repository.delegate("targets", "no", path_hash_prefixes=["zz"])
    repository.delegate("targets", "yes", path_hash_prefixes=["zz", prefix])
    repository.add_target(PATH, "yes")
    assert client(repository).find(PATH).role == "yes"
    assert asked(repository) == ["yes"]


@pytest.mark.parametrize("roles", [31, 32, 33])
def test_L4_a_search_visits_at_most_32_delegated_roles(roles: int) -> None:
    repository = Repository()
    for number in range(roles):
        repository.delegate("targets", f"r{number}")
    with pytest.raises(LimitError if roles > 32 else NoTargetError):
        client(repository).find(PATH)
    assert len(repository.asked) == min(roles, 32)


def test_L6_a_role_missing_in_snapshot_is_not_requested() -> None:
    repository = Repository()
    repository.delegate("targets", "a")
    repository.publish("targets", "snapshot", "timestamp")
    device = Client(repository, image_rules())
    device.refresh()
    repository.asked.clear()
    with pytest.raises(DelegationError):
        device.find(PATH)
    assert asked(repository) == []


@pytest.mark.parametrize("vouched", [True, False])
def test_L7_a_role_reached_twice_is_judged_by_each_delegator(vouched: bool) -> None:
    repository = Repository()
    repository.delegate("targets", "a", paths=["demo/*"])
    repository.delegate("targets", "b", paths=["other/*"])
    for parent in ("a", "b"):
        repository.delegate(parent, "c")
    block = repository.bodies["b"]["delegations"]
    block["roles"][0]["paths"] = ["*/*"]
    repository.bodies["a"]["delegations"]["roles"][0]["paths"] = ["*/*"]
    if not vouched:
        stranger = key("stranger")
        block["keys"] = {stranger.id: stranger.public.to_json()}
        block["roles"][0]["keyids"] = [stranger.id]
    repository.add_target("demo/x", "c")
    repository.add_target("other/x", "c")
    device = client(repository)
    assert device.find("demo/x").role == "c"
    if vouched:
        assert device.find("other/x").role == "c"
    else:
        with pytest.raises(SignatureError):
            device.find("other/x")
    assert asked(repository) == ["a", "c", "b"]


def test_L8_a_multi_role_delegation_is_refused_not_half_read() -> None:
    repository = Repository()
    repository.delegate("targets", "a", min_roles_in_agreement=2)
    repository.release()
    with pytest.raises(MalformedError, match="TAP 3"):
        Client(repository, image_rules()).refresh()


@pytest.mark.parametrize("name", ["../x", "/x", "?", "#", "%2e%2e", "ü"])
def test_A26_a_role_name_may_look_like_a_path(name: str) -> None:
    repository = Repository()
    repository.delegate("targets", name)
    repository.add_target(PATH, name)
    assert client(repository).find(PATH).role == name
