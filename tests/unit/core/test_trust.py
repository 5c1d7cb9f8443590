"""The TUF client workflow keeps every promise of the check list, R1 to X1."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sealift.core.errors import (
    DelegationError,
    ExpiredError,
    FailedTransferError,
    LimitError,
    MalformedError,
    MisdirectedError,
    MixedError,
    RollbackError,
    SealiftError,
    SignatureError,
    TrustAnchorError,
)
from sealift.core.metadata import IMAGE, Profile, Reader
from sealift.core.trust import accept, resume, wanted
from sealift.core.trusted import (
    Complete,
    Rules,
    Want,
    director_rules,
    foreign_rules,
    image_rules,
)
from tests.maker import DAY, HOUR, NOW, Client, Repository, key, signed, time

DEVICE = "dev-0001"


@pytest.fixture
def image() -> Client:
    return Client(Repository(), image_rules())


@pytest.fixture
def director() -> Client:
    return Client(Repository("director", device_id=DEVICE), director_rules(DEVICE))


def refused(client: Client, error: type[SealiftError], now: object = NOW) -> None:
    """A check must raise, and must leave the last good state in force."""
    with pytest.raises(error):
        client.refresh(now)  # type: ignore[arg-type]


# ── the way through ──────────────────────────────────────────────────────────────────
def test_a_first_check_asks_for_each_file_once_and_in_order(image: Client) -> None:
    complete = image.refresh()
    assert image.repository.asked == [
        ("root", 2),
        ("timestamp", None),
        ("snapshot", 1),
        ("targets", 1),
    ]
    assert complete.targets.body.version == 1
    assert set(image.kept) == {"timestamp", "snapshot", "targets"}


def test_without_news_only_root_and_timestamp_are_asked_and_nothing_is_kept(
    image: Client,
) -> None:
    image.refresh()
    before = dict(image.kept)
    image.repository.asked.clear()
    image.refresh()
    assert image.repository.asked == [("root", 2), ("timestamp", None)]
    assert image.kept == before


def test_bytes_are_kept_exactly_as_received(image: Client) -> None:
    image.refresh()
    assert image.kept["targets"] == image.repository.files["targets", 1]


# ── the anchor ───────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("anchor", [b"", b"{}", b"null"])
def test_an_anchor_that_is_no_root_is_refused(image: Client, anchor: bytes) -> None:
    image.anchor = anchor
    refused(image, TrustAnchorError)


def test_an_anchor_must_sign_itself(image: Client) -> None:
    image.anchor = signed(image.repository.bodies["root"], [key("stranger")])
    refused(image, TrustAnchorError)


def test_B11_an_anchor_with_a_demo_key_is_refused_unless_allowed(image: Client) -> None:
    body = image.repository.bodies["root"]
    for listed in body["keys"].values():
        listed["x-sealift-demo"] = True
    image.anchor = signed(body, image.repository.keys["root"])
    refused(image, TrustAnchorError)
    image.rules = image_rules(demo_keys=True)
    assert image.refresh().root.version == 1


# ── Root ─────────────────────────────────────────────────────────────────────────────
def test_R1_a_device_that_slept_for_years_follows_every_root(image: Client) -> None:
    for _ in range(25):
        image.repository.keys["root"] = [key(f"root {_}")]
        image.repository.publish_root()
    assert image.refresh().root.version == 26
    image.repository.asked.clear()
    image.refresh()
    assert image.repository.asked[0] == ("root", 27)


@pytest.mark.parametrize("rotations", [2, 3])
def test_R1_one_check_takes_so_many_roots_and_the_next_the_rest(rotations: int) -> None:
    limits = replace(IMAGE, root_rotations=3)
    client = Client(Repository(), image_rules(limits))
    for _ in range(rotations):
        client.repository.publish_root()
    if rotations < limits.root_rotations:
        assert client.refresh().root.version == 3
        return
    refused(client, LimitError)
    assert client.refresh().root.version == 4


def test_R1_an_absent_timestamp_is_no_answer(image: Client) -> None:
    del image.repository.files["timestamp", None]
    refused(image, FailedTransferError)


@pytest.mark.parametrize(
    ("who", "ok"),
    [
        (("old", "new"), True),
        (("old",), False),
        (("new",), False),
        (("stranger",), False),
        ((), False),
    ],
)
def test_R2_a_root_needs_the_old_keys_and_the_new(
    image: Client, who: tuple[str, ...], ok: bool
) -> None:
    image.repository.keys["root"] = [key("old")]
    image.repository.publish_root()
    image.repository.keys["root"] = [key("new")]
    image.repository.publish_root([key(label) for label in who])
    if ok:
        assert image.refresh().root.version == 3
    else:
        refused(image, SignatureError)
        assert 3 not in image.kept


@pytest.mark.parametrize("version", [1, 3, 2**53 - 1])
def test_R3_the_next_root_has_exactly_the_next_version(
    image: Client, version: int
) -> None:
    image.repository.bodies["root"]["version"] = version - 1
    image.repository.files["root", 2] = image.repository.publish_root()
    refused(image, RollbackError)


def test_R4_an_expired_root_on_the_way_is_followed(image: Client) -> None:
    image.repository.bodies["root"]["expires"] = time(NOW - DAY)
    image.repository.publish_root()
    image.repository.bodies["root"]["expires"] = time(NOW + DAY)
    image.repository.publish_root()
    assert image.refresh().root.version == 3


def test_R4_an_expired_final_root_is_kept_and_refused(image: Client) -> None:
    image.repository.bodies["root"]["expires"] = time(NOW)
    image.repository.publish_root()
    refused(image, ExpiredError)
    assert 2 in image.kept
    assert ("timestamp", None) not in image.repository.asked


def test_kept_roots_count_only_as_a_chain_from_the_anchor(image: Client) -> None:
    image.repository.publish_root()
    image.refresh()
    forged = Repository("thief")
    forged.keys["root"] = [key("thief")]
    image.kept[2] = forged.publish_root([key("thief")])
    complete = image.refresh()
    assert complete.root.version == 2
    assert complete.state.remarks == ("kept root: metadata.signature",)
    assert image.kept[2] == image.repository.files["root", 2]


# ── R5: recovery from fast-forward ───────────────────────────────────────────────────
def fast_forward(client: Client, role: str) -> None:
    """The repository reaches an absurd version of ``role``, and the client saw it."""
    client.repository.bodies[role]["version"] = 10**9
    client.repository.publish("targets", "snapshot", "timestamp")
    client.refresh()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("rotated", ["timestamp", "snapshot"])
def test_R5_rotating_a_timestamp_or_snapshot_key_takes_the_floors_back(
    image: Client, role: str, rotated: str
) -> None:
    fast_forward(image, role)
    image.repository.bodies[role]["version"] = 1
    image.repository.publish("targets", "snapshot", "timestamp")
    refused(image, RollbackError)
    image.repository.keys[rotated] = [key("fresh")]
    image.repository.publish_root()
    image.repository.publish("targets", "snapshot", "timestamp")
    complete = image.refresh()
    versions = [complete.timestamp.version, complete.snapshot.version]
    assert max(*versions, complete.targets.body.version) < 10


@pytest.mark.parametrize("role", ["root", "targets"])
def test_R5_rotating_other_keys_takes_nothing_back(image: Client, role: str) -> None:
    fast_forward(image, "timestamp")
    image.repository.keys[role] = [key("fresh")]
    image.repository.publish_root()
    image.repository.bodies["timestamp"]["version"] = 1
    image.repository.publish("targets", "snapshot", "timestamp")
    refused(image, RollbackError)


def test_R5_adding_a_key_takes_nothing_back(image: Client) -> None:
    fast_forward(image, "timestamp")
    image.repository.keys["timestamp"].append(key("one more"))
    image.repository.publish_root()
    image.repository.bodies["timestamp"]["version"] = 1
    image.repository.publish("timestamp")
    refused(image, RollbackError)


def test_R5_the_same_key_under_another_id_was_not_removed(image: Client) -> None:
    fast_forward(image, "timestamp")
    repository = image.repository
    same = key("image timestamp")
    repository.publish_root()
    body = repository.bodies["root"]
    listed = body["keys"].pop(same.id)
    body["keys"]["another id"] = listed
    body["roles"]["timestamp"]["keyids"] = ["another id"]
    repository.files["root", 2] = signed(body, repository.keys["root"])
    repository.bodies["timestamp"]["version"] = 1
    raw = json.loads(repository.sign("timestamp"))
    raw["signatures"][0]["keyid"] = "another id"
    repository.files["timestamp", None] = json.dumps(raw).encode()
    past = resume(image.rules, image.anchor, image.kept.get).past_timestamp
    assert past is not None
    # The kept file is signed under the old id, so of ours it lapsed, not its key.
    assert image.refresh().timestamp.version == 1


@pytest.mark.parametrize(("own", "kept"), [(True, False), (False, True)])
def test_R5_a_kept_file_below_a_new_threshold_counts_no_more(
    own: bool, kept: bool
) -> None:
    rules = image_rules() if own else foreign_rules()
    client = Client(Repository(own=own), rules)
    fast_forward(client, "snapshot")
    repository = client.repository
    repository.keys["snapshot"].append(key("second"))
    repository.rules["snapshot"] = {"threshold": 2}
    repository.publish_root()
    state = resume(client.rules, client.anchor, client.kept.get)
    want = wanted(state)
    assert isinstance(want, Want)
    state = accept(state, want, repository.fetch(want), NOW)
    assert state.past_snapshot is None
    # Of ours both go; of foreign ones only what fails, and nothing is deleted.
    assert (state.past_timestamp is not None) == kept
    assert ("snapshot" not in state.changes) == kept


def test_a_kept_file_is_a_floor_if_it_verifies_under_the_final_root() -> None:
    client = Client(Repository(own=False), foreign_rules())
    fast_forward(client, "snapshot")
    repository = client.repository
    repository.keys["snapshot"].append(key("second"))
    repository.rules["snapshot"] = {"threshold": 2}
    client.kept[2] = repository.publish_root()  # under this Root it lapsed
    repository.rules.clear()
    repository.publish_root()
    repository.bodies["snapshot"]["version"] = 1
    repository.publish("snapshot")
    del client.kept["timestamp"]
    repository.publish("timestamp")
    refused(client, RollbackError)


def test_R5_root_and_deletions_are_one_change(image: Client) -> None:
    fast_forward(image, "timestamp")
    image.repository.keys["timestamp"] = [key("fresh")]
    root = image.repository.publish_root()
    state = resume(image.rules, image.anchor, image.kept.get)
    want = wanted(state)
    assert isinstance(want, Want)
    grown = accept(state, want, root, NOW)
    assert grown.changes == {2: root, "timestamp": None, "snapshot": None}


def test_R5_a_crash_between_root_and_deletion_hides_nothing(image: Client) -> None:
    fast_forward(image, "timestamp")
    image.repository.keys["timestamp"] = [key("fresh")]
    image.kept[2] = image.repository.publish_root()  # the deletion was lost
    image.repository.bodies["timestamp"]["version"] = 4
    image.repository.publish("timestamp")
    assert image.refresh().timestamp.version == 5
    assert "kept timestamp: metadata.signature" in image.state.remarks


def test_R5_takes_a_poisoned_time_back_before_the_root_is_judged() -> None:
    client = Client(Repository(), image_rules())
    repository = client.repository
    repository.bodies["timestamp"]["issued"] = time(NOW + 300 * DAY)
    repository.bodies["timestamp"]["expires"] = time(NOW + 310 * DAY)
    repository.publish("timestamp")
    client.refresh()
    refused(client, ExpiredError)  # the floor lies after everything expires
    repository.keys["timestamp"] = [key("fresh")]
    repository.publish_root()
    repository.bodies["timestamp"]["issued"] = time(NOW)
    repository.publish("snapshot", "timestamp")
    assert client.refresh().root.version == 2


# ── Timestamp ────────────────────────────────────────────────────────────────────────
def test_T1_a_timestamp_above_its_cap_is_refused(image: Client) -> None:
    image.repository.bodies["timestamp"]["padding"] = "x" * 32_768
    image.repository.publish("timestamp")
    refused(image, LimitError)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_T2_S3_G3_each_role_needs_its_own_keys(image: Client, role: str) -> None:
    image.repository.keys[role] = [key("image root"), key("stranger")]  # B-03
    for name in ("targets", "snapshot", "timestamp"):
        image.repository.publish(name)
    refused(image, SignatureError)


def test_T3_an_older_timestamp_is_refused(image: Client) -> None:
    old = image.repository.files["timestamp", None]
    image.repository.publish("timestamp")
    image.refresh()
    image.repository.files["timestamp", None] = old
    refused(image, RollbackError)


def test_T3_an_equal_version_is_discarded_and_the_kept_one_goes_on(
    image: Client,
) -> None:
    image.refresh()
    kept = image.kept["timestamp"]
    image.repository.publish("snapshot")
    image.repository.sign("timestamp")  # same version, other content
    image.repository.asked.clear()
    complete = image.refresh()
    assert image.repository.asked == [("root", 2), ("timestamp", None)]
    assert image.kept["timestamp"] == kept
    assert complete.snapshot.version == 1
    assert any("discarded" in remark for remark in complete.state.remarks)


def test_T3_equal_versions_do_not_hide_a_missing_snapshot(image: Client) -> None:
    snapshot = image.repository.files.pop(("snapshot", 1))
    refused(image, FailedTransferError)
    assert set(image.kept) == {"timestamp"}
    image.repository.files["snapshot", 1] = snapshot
    assert image.refresh().snapshot.version == 1


def test_T3_a_timestamp_may_not_list_an_older_snapshot(image: Client) -> None:
    image.repository.publish("snapshot", "timestamp")
    image.refresh()
    image.repository.bodies["snapshot"]["version"] = 0
    image.repository.publish("snapshot", "timestamp")
    refused(image, RollbackError)


def test_T4_an_expired_timestamp_is_refused_and_the_kept_one_stays(
    image: Client,
) -> None:
    image.refresh()
    kept = image.kept["timestamp"]
    image.repository.bodies["timestamp"]["expires"] = time(NOW)
    image.repository.publish("timestamp")
    refused(image, ExpiredError)
    assert image.kept["timestamp"] == kept


def test_T4_a_kept_timestamp_that_is_the_answer_expires_too(image: Client) -> None:
    image.repository.bodies["timestamp"]["expires"] = time(NOW + HOUR)
    image.repository.publish("timestamp")
    image.refresh()
    before = dict(image.kept)
    refused(image, ExpiredError, NOW + HOUR)
    assert image.kept == before


def test_an_expired_kept_timestamp_is_a_floor_all_the_same(image: Client) -> None:
    old = image.repository.files["timestamp", None]
    image.repository.bodies["timestamp"]["expires"] = time(NOW + HOUR)
    image.repository.publish("timestamp")
    image.refresh()
    image.repository.files["timestamp", None] = old
    refused(image, RollbackError, NOW + DAY)


def test_time_never_is_earlier_than_the_newest_verified_file(image: Client) -> None:
    image.repository.bodies["timestamp"]["issued"] = time(NOW + 40 * DAY)
    image.repository.bodies["timestamp"]["expires"] = time(NOW + 41 * DAY)
    image.repository.publish("timestamp")
    image.refresh(NOW)  # one time for the whole check
    refused(image, ExpiredError, NOW - 30 * 365 * DAY)  # everything else has expired


# ── Snapshot ─────────────────────────────────────────────────────────────────────────
def other_listing(client: Client, parent: str, name: str, **changed: object) -> None:
    """The parent lists ``name`` with other facts than the file has."""
    client.repository.bodies[parent]["meta"][name] |= changed
    client.repository.publish(*(("snapshot",) if parent == "snapshot" else ()))
    client.repository.publish("timestamp")


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"length": 10}, LimitError),
        ({"length": 10**6}, MixedError),
        ({"hashes": {"sha256": "00" * 32}}, MixedError),
        ({"hashes": {"sha256": "00" * 32, "md5": "00" * 16}}, MixedError),
    ],
)
@pytest.mark.parametrize(
    ("parent", "name"),
    [("timestamp", "snapshot.json"), ("snapshot", "targets.json")],
)
def test_S1_S2_G1_G2_a_file_is_the_one_its_parent_lists(
    image: Client,
    parent: str,
    name: str,
    changed: dict[str, object],
    error: type[SealiftError],
) -> None:
    other_listing(image, parent, name, **changed)
    refused(image, error)


def test_S2_the_version_inside_is_the_listed_one() -> None:
    client = Client(Repository(own=False), foreign_rules())
    repository = client.repository
    repository.bodies["timestamp"]["meta"]["snapshot.json"]["version"] = 2
    repository.files["snapshot", 2] = repository.files["snapshot", 1]
    repository.publish("timestamp")
    refused(client, MixedError)


def test_G2_the_version_inside_is_the_listed_one() -> None:
    client = Client(Repository(own=False), foreign_rules())
    repository = client.repository
    repository.bodies["snapshot"]["meta"]["targets.json"]["version"] = 2
    repository.files["targets", 2] = repository.files["targets", 1]
    repository.publish("snapshot", "timestamp")
    refused(client, MixedError)


def test_S4_a_snapshot_below_the_kept_one_is_refused(image: Client) -> None:
    image.repository.publish("snapshot", "timestamp")
    image.refresh()
    del image.kept["timestamp"]
    image.repository.bodies["snapshot"]["version"] = 0
    image.repository.publish("snapshot", "timestamp")
    refused(image, RollbackError)


def test_S5_G4_no_targets_file_goes_below_the_kept_listing(image: Client) -> None:
    image.repository.publish("targets", "snapshot", "timestamp")
    image.refresh()
    image.repository.bodies["targets"]["version"] = 0
    image.repository.publish("targets", "snapshot", "timestamp")
    refused(image, RollbackError)


def test_S6_no_listed_file_disappears(image: Client) -> None:
    image.repository.delegate("targets", "supplier")
    image.repository.release()
    image.refresh()
    del image.repository.bodies["snapshot"]["meta"]["supplier.json"]
    image.repository.publish("snapshot", "timestamp")
    refused(image, RollbackError)


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_S7_G5_an_expired_file_is_refused(image: Client, role: str) -> None:
    image.repository.bodies[role]["expires"] = time(NOW)
    image.repository.publish("targets", "snapshot", "timestamp")
    refused(image, ExpiredError)
    assert role not in image.kept


def test_a_timestamp_is_kept_though_its_snapshot_failed(image: Client) -> None:
    image.refresh()
    image.repository.bodies["snapshot"]["expires"] = time(NOW)
    image.repository.publish("snapshot", "timestamp")
    refused(image, ExpiredError)
    assert image.kept["timestamp"] == image.repository.files["timestamp", None]
    image.repository.bodies["snapshot"]["expires"] = time(NOW + DAY)
    image.repository.publish("snapshot", "timestamp")
    assert image.refresh().snapshot.version == 3


def test_L6_targets_missing_in_snapshot_are_not_requested(image: Client) -> None:
    del image.repository.bodies["snapshot"]["meta"]["targets.json"]
    image.repository.publish("snapshot", "timestamp")
    refused(image, DelegationError)
    assert image.repository.asked[-1] == ("snapshot", 2)


# ── kept files ───────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("damage", [b"", b"{", b"{}"])
def test_a_damaged_kept_file_counts_as_absent(
    image: Client, role: str, damage: bytes
) -> None:
    image.refresh()
    good = image.kept[role]
    image.kept[role] = damage
    image.refresh()
    assert image.kept[role] == good


def test_kept_targets_that_are_listed_no_more_are_fetched(image: Client) -> None:
    image.refresh()
    image.repository.publish("targets", "snapshot", "timestamp")
    assert image.refresh().targets.body.version == 2


def test_kept_targets_by_a_removed_key_are_fetched_again() -> None:
    client = Client(Repository(own=False), foreign_rules())
    client.refresh()
    client.repository.keys["targets"] = [key("fresh")]
    client.repository.publish_root()
    client.repository.sign("targets")  # same version, and no hash is listed
    assert client.refresh().root.version == 2
    assert client.kept["targets"] == client.repository.files["targets", 1]


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_F4_a_kept_file_of_the_listed_version_but_another_hash_is_fetched(
    image: Client, role: str
) -> None:
    image.refresh()
    image.repository.bodies[role]["x-other"] = 1
    image.repository.sign(role)  # the same version again, listed by its new hash
    image.repository.publish(*(["snapshot"] * (role == "targets")), "timestamp")
    image.refresh()
    assert image.kept[role] == image.repository.sign(role)


def test_without_consistent_snapshot_names_have_no_version() -> None:
    repository = Repository(own=False)
    repository.bodies["root"]["consistent_snapshot"] = False
    repository.publish_root()
    for role in ("snapshot", "targets"):
        repository.files[role, None] = repository.files[role, 1]
    client = Client(repository, foreign_rules())
    client.refresh()
    assert ("targets", None) in repository.asked


def test_all_metadata_of_a_check_together_is_capped(image: Client) -> None:
    files = image.repository.files
    sizes = [len(files["timestamp", None]), len(files["snapshot", 1])]
    image.rules = image_rules(replace(IMAGE, check_bytes=sum(sizes)))
    refused(image, LimitError)
    image.rules = image_rules(
        replace(IMAGE, check_bytes=sum(sizes) + len(files["targets", 1]))
    )
    image.kept.clear()
    image.refresh()


def test_a_damaged_kept_file_is_remarked_once(image: Client) -> None:
    image.refresh()
    image.kept["timestamp"] = b"{"
    image.repository.publish_root()
    assert image.refresh().state.remarks == ("kept timestamp: format.malformed",)


def test_nothing_is_asked_for_once_the_cap_on_all_metadata_is_reached() -> None:
    repository = Repository()
    cap = IMAGE.check_bytes
    state = resume(image_rules(), repository.anchor, lambda _: None, spent=cap)
    root = wanted(state)
    assert isinstance(root, Want)
    state = accept(state, root, None, NOW)  # Roots are not counted
    with pytest.raises(LimitError):
        wanted(state)
    wanted(replace(state, spent=cap - 1))


# ── X1 and issued ────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("device", ["dev-0002", None])
def test_X1_files_for_another_device_are_refused_before_anything_is_kept(
    director: Client, role: str, device: str | None
) -> None:
    director.refresh()
    before = dict(director.kept)
    body = director.repository.bodies[role]
    if device is None:
        del body["device_id"]
    else:
        body["device_id"] = device
    body["version"] = 900  # far ahead of ours
    director.repository.publish("targets", "snapshot", "timestamp")
    refused(director, MisdirectedError)
    assert director.kept.get(role) == before[role]


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_the_director_must_say_when_it_issued(director: Client, role: str) -> None:
    del director.repository.bodies[role]["issued"]
    director.repository.publish("targets", "snapshot", "timestamp")
    refused(director, MalformedError)


def test_of_the_image_repository_only_the_timestamp_must_say_so(image: Client) -> None:
    for role in ("snapshot", "targets"):
        del image.repository.bodies[role]["issued"]
    image.repository.publish("targets", "snapshot", "timestamp")
    image.refresh()
    del image.repository.bodies["timestamp"]["issued"]
    image.repository.publish("timestamp")
    refused(image, MalformedError)


def test_B11_a_rotation_to_demo_keys_is_refused(image: Client) -> None:
    image.repository.publish_root()
    body = image.repository.bodies["root"]
    for listed in body["keys"].values():
        listed["x-sealift-demo"] = True
    raw = signed(body, image.repository.keys["root"])
    image.repository.files["root", 2] = raw
    refused(image, TrustAnchorError)
    assert 2 not in image.kept
    image.kept[2] = raw  # nor is a kept one believed
    del image.repository.files["root", 2]
    assert image.refresh().root.version == 1


def test_B11_demo_keys_are_refused_in_delegations(image: Client) -> None:
    image.repository.delegate("targets", "supplier")
    block = image.repository.bodies["targets"]["delegations"]
    for listed in block["keys"].values():
        listed["x-sealift-demo"] = True
    image.repository.release()
    refused(image, TrustAnchorError)


def test_an_answer_before_what_it_depends_on_is_a_bug_not_a_hole(image: Client) -> None:
    state = resume(image.rules, image.anchor, image.kept.get)
    raw = image.repository.files["snapshot", 1]
    with pytest.raises(MalformedError):
        accept(state, Want("snapshot", 1, 10**6), raw, NOW)


def test_a_complete_repository_says_what_is_trusted(image: Client) -> None:
    complete = image.refresh()
    assert isinstance(complete, Complete)
    assert complete.targets.raw == image.repository.files["targets", 1]


def test_a_rule_set_names_its_caps() -> None:
    rules = Rules(Reader(Profile.TUF, IMAGE))
    assert rules.limits is IMAGE
    assert rules.device_id is None
