"""The device asks the right files in the right order and keeps what verified."""

from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest

from sealift.agent.ports import Answer
from sealift.agent.trust import Checked, Provision, Verifier
from sealift.core.errors import (
    CounterError,
    ExpiredError,
    FailedTransferError,
    LimitError,
    MisdirectedError,
    MismatchError,
    NoTargetError,
    RollbackError,
    SealiftError,
    TrustAnchorError,
)
from tests.maker import DAY, HOUR, NOW, Body, Repository, key, time

DEVICE, ECU, BOARD = "dev-0001", "dev-0001-main", "board-r1"
PATH = "demo/rootfs-1.2.0.img"
SHA256 = hashlib.sha256(PATH.encode()).digest()
DONE: Mapping[str, list[bytes]] = {ECU: [SHA256]}
NOTHING: Mapping[str, list[bytes]] = {}


class Records:
    """Storage in memory; counts commits."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.commits: list[Mapping[str, bytes | None]] = []

    def read(self, name: str) -> bytes | None:
        return self.held.get(name)

    def commit(self, changes: Mapping[str, bytes | None]) -> None:
        self.commits.append(dict(changes))
        for name, raw in changes.items():
            if raw is None:
                self.held.pop(name, None)
            else:
                self.held[name] = raw

    def names(self, prefix: str = "") -> Sequence[str]:
        return sorted(name for name in self.held if name.startswith(prefix))


class Server:
    """Both repositories behind one Transport. ``fails`` maps paths to an error."""

    def __init__(self, **repositories: Repository) -> None:
        self.repositories = repositories
        self.paths: list[str] = []
        self.tags: list[str | None] = []
        self.fails: dict[str, SealiftError | Answer] = {}

    def get(self, path: str, *, limit: int, etag: str | None = None) -> Answer:
        self.paths.append(path)
        self.tags.append(etag)
        failure = self.fails.get(path)
        if isinstance(failure, Answer):
            return failure
        if failure is not None:
            raise failure
        name, _, file = path.split("/")
        version, _, role = file.removesuffix(".json").rpartition(".")
        files = self.repositories[name].files
        body = files.get((unquote(role), int(version) if version else None))
        if body is None:
            return Answer(404)
        if len(body) > limit:
            raise LimitError("too long")
        tag = hashlib.sha256(body).hexdigest()
        if etag == tag:
            return Answer(304, poll_seconds=300)
        return Answer(200, body, etag=tag, poll_seconds=300)

    def stream(
        self, path: str, *, start: int, stop: int, length: int, drop_max: int
    ) -> Iterator[bytes]:
        raise AssertionError("a check streams nothing")

    def put(self, path: str, body: bytes, *, limit: int) -> bytes:
        raise AssertionError("a check sends nothing")


class Watch:
    """A clock that stands where it is set."""

    def __init__(self) -> None:
        self.time = NOW
        self.asked = 0

    def now(self) -> datetime:
        self.asked += 1
        return self.time

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None: ...

    def boot_id(self) -> str:
        return "boot"


class World:
    """A vendor, a server and one device."""

    def __init__(self) -> None:
        self.director = Repository("director", device_id=DEVICE)
        self.image = Repository("image")
        self.server = Server(director=self.director, image=self.image)
        self.storage, self.clock = Records(), Watch()
        self.anchors = {"director": self.director.anchor, "image": self.image.anchor}
        self.floors: dict[str, int] = {}
        self.build_time = NOW - 100 * DAY
        self.restart()

    def restart(self) -> None:
        provision = Provision(DEVICE, {ECU: BOARD}, self.anchors, self.build_time)
        self.verifier = Verifier(self.server, self.storage, self.clock, provision)

    def order(self, counter: int = 3) -> Body:
        must_match = {"hardware_ids": [BOARD], "release_counter": counter}
        self.image.add_target(
            PATH,
            must_match=must_match,
            payload={"segment_size": 1 << 20, "segment_root": "44" * 32},
            release={"version": "1.2.0"},
        )
        full = {
            "name": "x",
            "length": 9,
            "sha256": "11" * 32,
            "head_length": 1,
            "head_sha256": "22" * 32,
        }
        unit = {"hardware_id": BOARD, "payload": {"full": full}}
        entry = self.director.add_target(
            PATH, must_match=copy.deepcopy(must_match), ecus={ECU: unit}
        )
        self.release()
        return entry

    def release(self) -> None:
        self.image.release()
        self.director.release()

    def check(self, settled: Mapping[str, list[bytes]] = NOTHING) -> Checked:
        self.server.paths.clear()
        self.server.tags.clear()
        self.storage.commits.clear()
        return self.verifier.check(self.floors, settled)

    def news(self, settled: Mapping[str, list[bytes]] = NOTHING) -> bool:
        self.server.paths.clear()
        self.server.tags.clear()
        self.storage.commits.clear()
        return self.verifier.poll(settled).news


@pytest.fixture
def world() -> World:
    return World()


def refused(world: World, error: type[SealiftError]) -> SealiftError:
    with pytest.raises(error) as caught:
        world.check()
    return caught.value


# ── a check ──────────────────────────────────────────────────────────────────────────
def test_a_check_asks_the_director_then_image_and_keeps_all_in_one_step(
    world: World,
) -> None:
    world.order()
    checked = world.check()
    assert [i.artifact.name for i in checked.instructions] == [PATH]
    assert world.server.paths == [
        "director/metadata/2.root.json",
        "director/metadata/timestamp.json",
        "director/metadata/2.snapshot.json",
        "director/metadata/2.targets.json",
        "image/metadata/2.root.json",
        "image/metadata/timestamp.json",
        "image/metadata/2.snapshot.json",
        "image/metadata/2.targets.json",
    ]
    assert len(world.storage.commits) == 1
    assert world.storage.names() == sorted(
        f"{name}.{role}.json"
        for name in ("director", "image")
        for role in ("timestamp", "snapshot", "targets")
    )
    assert (checked.poll_seconds, checked.quiet) == (300, False)


def test_without_news_a_check_writes_nothing_and_asks_four_files(world: World) -> None:
    world.order()
    world.check()
    checked = world.check(DONE)
    assert world.server.paths == [
        "director/metadata/2.root.json",
        "director/metadata/timestamp.json",
        "image/metadata/2.root.json",
    ]
    assert world.storage.commits == []
    assert checked.quiet
    assert checked.instructions == ()


def test_an_unsettled_order_is_verified_again_at_every_check(world: World) -> None:
    world.order()
    first = world.check()
    again = world.check()
    assert again.instructions == first.instructions
    assert world.storage.commits == []
    assert "image/metadata/timestamp.json" in world.server.paths


def test_a_changed_order_is_cross_checked_even_if_its_image_runs(world: World) -> None:
    entry = world.order()
    world.check()
    entry["custom"]["must_match"]["release_counter"] = 2**53 - 1
    world.director.release()
    refused(world, MismatchError)
    with pytest.raises(MismatchError):
        world.check(DONE)


def test_j_a_newer_image_root_is_taken_though_nothing_is_ordered(world: World) -> None:
    world.image.publish_root()
    assert world.check().quiet
    assert "image.root.2.json" in world.storage.names()
    assert "image/metadata/timestamp.json" not in world.server.paths


def test_roots_of_years_are_taken_in_one_step_and_kept_as_a_chain(world: World) -> None:
    for number in range(12):
        world.image.keys["root"] = [key(f"root {number}")]
        world.image.publish_root()
    world.order()
    world.check()
    assert len(world.storage.commits) == 1
    world.restart()
    world.check()
    assert world.server.paths[2] == "image/metadata/14.root.json"


def test_R1_more_roots_than_a_check_takes_come_with_the_next(world: World) -> None:
    for _ in range(300):
        world.director.publish_root()
    refused(world, LimitError)
    assert "director.root.257.json" in world.storage.names()
    assert world.check().quiet
    assert world.verifier.standing().versions["director"]["root"] == 301


def test_delegated_roles_are_brought_in_search_order_and_kept(world: World) -> None:
    world.order()
    entry = world.image.bodies["targets"]["targets"].pop(PATH)
    world.image.delegate("targets", "sup/plier", hardware_ids=[BOARD])
    world.image.bodies["sup/plier"]["targets"][PATH] = entry
    world.release()
    assert len(world.check().instructions) == 1
    assert world.server.paths[-1] == "image/metadata/1.sup%2Fplier.json"
    kept = [n for n in world.storage.names() if ".role." in n]
    assert kept == [f"image.role.{hashlib.sha256(b'sup/plier').hexdigest()}.json"]
    world.restart()
    world.check()
    assert "image/metadata/1.sup%2Fplier.json" not in world.server.paths


# ── what failed leaves no trace, what verified stays ─────────────────────────────────
def test_director_targets_are_kept_only_once_image_vouched(world: World) -> None:
    world.order()
    world.image.bodies["targets"]["targets"].clear()
    world.image.release()
    error = refused(world, NoTargetError)
    assert error.attack == "arbitrary-software"
    assert "director.targets.json" not in world.storage.names()
    assert "director.snapshot.json" in world.storage.names()
    assert "image.targets.json" in world.storage.names()
    world.order()
    assert len(world.check().instructions) == 1


def test_W4_a_counter_that_nobody_vouched_for_is_no_floor(world: World) -> None:
    world.order(3)
    world.check()
    entry = world.order(3)
    entry["custom"]["must_match"]["release_counter"] = 2**53 - 1  # stolen Director
    world.director.release()
    refused(world, MismatchError)
    world.order(4)
    assert world.check().instructions[0].artifact.release_counter == 4
    world.order(3)
    refused(world, CounterError)  # 4 was in force
    refused(world, CounterError)  # and still is


def test_W4_the_confirmed_release_is_a_floor(world: World) -> None:
    world.order(3)
    world.floors[ECU] = 4
    refused(world, CounterError)


def test_an_unreachable_image_repository_costs_nothing_but_time(world: World) -> None:
    world.order()
    path = "image/metadata/timestamp.json"
    world.server.fails[path] = FailedTransferError("cut")
    refused(world, FailedTransferError)
    world.server.fails.clear()
    assert len(world.check().instructions) == 1


def test_another_devices_files_change_nothing(world: World) -> None:
    world.check()
    held = dict(world.storage.held)
    world.server.repositories["director"] = Repository("director", device_id="dev-2")
    world.server.repositories["director"].publish("timestamp")
    refused(world, MisdirectedError)
    assert world.storage.held == held
    world.server.repositories["director"] = world.director
    assert world.check().quiet


@pytest.mark.parametrize("status", [304, 500])
def test_an_answer_nobody_asked_for_is_a_failed_transfer(
    world: World, status: int
) -> None:
    world.server.fails["director/metadata/timestamp.json"] = Answer(status)
    refused(world, FailedTransferError)


def test_what_went_wrong_with_kept_files_is_remarked(world: World) -> None:
    world.order()
    world.check()
    world.storage.held["director.timestamp.json"] = b"{"
    world.storage.held["director.targets.json"] = b"{"
    checked = world.check()
    assert checked.remarks == ("kept timestamp: format.malformed",)
    assert len(checked.instructions) == 1


def test_R5_recovery_in_the_director_is_one_step(world: World) -> None:
    world.director.bodies["timestamp"]["version"] = 10**9
    world.director.publish("timestamp")
    world.check()
    world.director.bodies["timestamp"]["version"] = 5
    world.director.publish("timestamp")
    refused(world, RollbackError)
    world.director.keys["timestamp"] = [key("fresh")]
    world.director.publish_root()
    world.director.publish("timestamp")
    world.check()
    (commit,) = world.storage.commits
    assert set(commit) == {
        "director.root.2.json",
        "director.timestamp.json",
        "director.snapshot.json",
    }


# ── trust anchors (B-14) ─────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["director", "image"])
@pytest.mark.parametrize("anchor", [None, b"", b"{}"])
def test_B14_without_a_trust_anchor_nothing_is_asked(
    world: World, name: str, anchor: bytes | None
) -> None:
    if anchor is None:
        del world.anchors[name]
    else:
        world.anchors[name] = anchor
    world.restart()
    refused(world, TrustAnchorError)
    assert world.server.paths == []


# ── time (1.4) ───────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("clock", "source"),
    [
        (NOW, "clock"),
        (NOW - 50 * 365 * DAY, "build"),
        (NOW + 50 * 365 * DAY, "build"),
    ],
)
def test_a_clock_that_is_not_sane_gives_way_to_the_build(
    world: World, clock: datetime, source: str
) -> None:
    world.clock.time = clock
    standing = world.verifier.standing()
    assert standing.time_source == source
    assert standing.now == (NOW if source == "clock" else world.build_time)
    assert standing.versions["director"] == {"root": 1}


def test_a_device_that_woke_in_1970_still_finds_expired_files_expired(
    world: World,
) -> None:
    world.check()
    world.director.bodies["timestamp"]["issued"] = time(NOW + 29 * DAY)
    world.director.bodies["timestamp"]["expires"] = time(NOW + 60 * DAY)
    world.director.publish("timestamp")
    world.check()
    world.clock.time = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    assert world.check().now == NOW + 29 * DAY
    standing = world.verifier.standing()
    assert (standing.time_source, standing.metadata_time) == (
        "metadata",
        NOW + 29 * DAY,
    )
    world.image.bodies["root"]["expires"] = time(NOW + 28 * DAY)
    world.image.publish_root()
    refused(world, ExpiredError)  # the Director's time judges Image files too


def test_the_images_time_judges_the_director(world: World) -> None:
    world.image.bodies["timestamp"]["issued"] = time(NOW + 40 * DAY)
    world.image.bodies["timestamp"]["expires"] = time(NOW + 60 * DAY)
    world.order()
    world.check()
    refused(world, ExpiredError)


def test_a_clock_far_ahead_does_no_lasting_harm(world: World) -> None:
    world.check()
    world.clock.time = NOW + 5 * 365 * DAY
    refused(world, ExpiredError)
    world.clock.time = NOW
    assert world.check().quiet


def test_k_the_clock_is_read_once_in_a_check(world: World) -> None:
    world.order()
    world.check()
    world.clock.asked = 0
    world.check()
    assert world.clock.asked == 1


# ── polling ──────────────────────────────────────────────────────────────────────────
def test_a_device_that_never_checked_has_news(world: World) -> None:
    assert world.news()
    assert world.server.paths == []


def test_a_poll_without_news_asks_three_files_and_writes_nothing(world: World) -> None:
    world.order()
    world.check()
    assert not world.news(DONE)
    assert world.server.paths == [
        "director/metadata/2.root.json",
        "image/metadata/2.root.json",
        "director/metadata/timestamp.json",
    ]
    assert world.server.tags[-1] is not None
    assert world.storage.commits == []
    world.restart()  # no ETag any more: the bytes are compared
    assert not world.news(DONE)
    assert world.server.tags == [None, None, None]
    assert not world.news(DONE)
    assert world.server.tags[-1] is not None


@pytest.mark.parametrize("what", ["order", "director root", "image root", "timestamp"])
def test_a_poll_sees_news(world: World, what: str) -> None:
    world.order()
    world.check()
    match what:
        case "director root":
            world.director.publish_root()
        case "image root":
            world.image.publish_root()
        case "timestamp":
            world.director.publish("timestamp")
    assert world.news(NOTHING if what == "order" else DONE)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_A06_a_poll_does_not_sleep_through_expiry(world: World, role: str) -> None:
    world.director.bodies[role]["expires"] = time(NOW + HOUR)
    world.order()
    world.check()
    world.clock.time = NOW + timedelta(minutes=59)
    assert not world.news(DONE)
    world.clock.time = NOW + HOUR
    assert world.news(DONE)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root.2"])
def test_a_poll_sees_damage(world: World, role: str) -> None:
    world.director.publish_root()
    world.order()
    world.check()
    world.storage.held[f"director.{role}.json"] = b"damaged"
    assert world.news(DONE)


def test_standing_lists_what_is_trusted(world: World) -> None:
    world.order()
    world.check()
    assert world.verifier.standing().versions == {
        "director": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
        "image": {"root": 1, "timestamp": 2, "snapshot": 2, "targets": 2},
    }


IDLE = """
import sys
from tests.unit.agent.test_trust import DONE, World
world = World()
world.order()
world.check()
import pickle
pickle.dump((world.storage.held, world.anchors), open(sys.argv[1], "wb"))
"""

POLL = """
import pickle, sys
held, anchors = pickle.load(open(sys.argv[1], "rb"))
from sealift.agent.ports import Answer
from sealift.agent.trust import Provision, Verifier
from datetime import datetime, timedelta, UTC
import hashlib
now = datetime(2030, 6, 1, 12, tzinfo=UTC)
class Clock:
    def now(self): return now
class Storage:
    def read(self, name): return held.get(name)
class Server:
    def get(self, path, *, limit, etag=None):
        if path.endswith("timestamp.json"):
            return Answer(200, held["director.timestamp.json"], etag="x")
        return Answer(404)
settled = {"dev-0001-main": [hashlib.sha256(b"demo/rootfs-1.2.0.img").digest()]}
provision = Provision("dev-0001", {"dev-0001-main": "board-r1"}, anchors, now)
verifier = Verifier(Server(), Storage(), Clock(), provision)
print(verifier.poll(settled).news, any(m.startswith("cryptography") for m in sys.modules))
"""


def test_a_poll_does_not_load_cryptography(tmp_path: object) -> None:
    file = f"{tmp_path}/state"
    for code in (IDLE, POLL):
        done = subprocess.run(
            [sys.executable, "-c", code, file],
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[3],
        )
    assert done.stdout.split() == ["False", "False"]
