"""Publishing what the offline keys signed, and nothing else."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from sealift.core.errors import (
    ConflictError,
    ExpiredError,
    MalformedError,
    RefusedError,
    RollbackError,
    SealiftError,
    SignatureError,
)
from sealift.repo.entries import Listed
from sealift.server.services import metadata
from tests.unit.server.world import OPERATOR, START, World, artifact, make_world


def publish(world: World, raw: bytes, repository: str = "image") -> int:
    return metadata.publish_root(world.means, OPERATOR, repository, raw)


def test_chain_of_roots(world: World) -> None:
    """Root 2 follows root 1; publishing either again changes nothing."""
    second = world.vendor.root("image", 2)
    assert publish(world, second) == 2
    before = world.leaves()
    assert publish(world, second) == 2
    assert world.leaves() == before


def test_another_root_of_a_published_version(world: World) -> None:
    """A published version is never replaced."""
    publish(world, world.vendor.root("image", 2))
    again = world.vendor.root("image", 2, lifetime=timedelta(days=7))
    with pytest.raises(ConflictError):
        publish(world, again)


def rows(world: World, other: World) -> list[tuple[str, bytes, type[SealiftError]]]:
    vendor = world.vendor
    one = vendor.signers["image root"][:1]
    return [
        ("a version is skipped", vendor.root("image", 3), RollbackError),
        ("one signature of two", vendor.root("image", 2, by=one), SignatureError),
        ("not signed at all", vendor.root("image", 2, by=[]), SignatureError),
        ("expired", vendor.root("image", 2, lifetime=timedelta(hours=1)), ExpiredError),
        ("somebody else's root", other.vendor.root("image", 2), SignatureError),
        ("other online keys, our root keys", foreign(world, other), ConflictError),
        ("not a root", b"{}", MalformedError),
        ("trailing bytes", vendor.root("image", 2) + b"x", MalformedError),
    ]


def foreign(world: World, other: World) -> bytes:
    """A root our keys sign that names another server's online keys."""
    mine = world.vendor.online
    world.vendor.online = other.vendor.online
    raw = world.vendor.root("image", 2)
    world.vendor.online = mine
    return raw


@pytest.mark.parametrize("row", range(8))
def test_bad_root_is_refused(world: World, tmp_path_factory, row: int) -> None:  # type: ignore[no-untyped-def]
    """R2, R3 and more: a root that may not follow changes nothing."""
    other = make_world(tmp_path_factory.mktemp("other") / "server")
    sentence, raw, error = rows(world, other)[row]
    other.means.store.close()
    world.clock.forward(hours=2)
    before = world.leaves()
    with pytest.raises(error):
        publish(world, raw)
    assert world.leaves() == before, sentence


def test_one_key_in_two_repositories(bare: World) -> None:
    """A key of the Image root may not come back in the Director root."""
    vendor = bare.vendor
    publish(bare, vendor.root("image"))
    vendor.signers["director root"] = vendor.signers["image root"]
    with pytest.raises(RefusedError):
        publish(bare, vendor.root("director"), "director")


def test_targets_bring_snapshot_and_timestamp(world: World) -> None:
    """I5: publishing Targets signs Snapshot over it and Timestamp over that."""
    raw = world.vendor.listing(Listed(artifact("1.0.0"), 1))
    found = metadata.publish_targets(world.means, OPERATOR, raw)
    assert (found.targets, found.snapshot, found.timestamp) == (1, 1, 1)
    reader = world.means.store.reader
    timestamp = reader.metadata.newest("image", "timestamp")
    snapshot = reader.metadata.find("image", "snapshot", 1)
    assert timestamp is not None
    assert snapshot is not None
    listed = json.loads(timestamp.body)["signed"]["meta"]["snapshot.json"]
    assert listed["hashes"]["sha256"] == snapshot.sha256
    assert not metadata.publish_targets(world.means, OPERATOR, raw).changed


def test_targets_need_threshold_and_order(world: World) -> None:
    """One signature, an older version or changed content of a name: refused."""
    first = world.vendor.listing(Listed(artifact("1.0.0"), 1))
    second = world.vendor.listing(Listed(artifact("1.1.0"), 2))
    document = json.loads(second)
    document["signatures"] = document["signatures"][:1]
    with pytest.raises(SignatureError):
        metadata.publish_targets(world.means, OPERATOR, json.dumps(document).encode())
    metadata.publish_targets(world.means, OPERATOR, second)
    with pytest.raises(RollbackError):
        metadata.publish_targets(world.means, OPERATOR, first)


def test_targets_without_a_root(bare: World) -> None:
    """Nothing can be verified before the roots are there."""
    raw = bare.vendor.listing(Listed(artifact("1.0.0"), 1))
    with pytest.raises(ConflictError):
        metadata.publish_targets(bare.means, OPERATOR, raw)


def test_D12_image_timestamp_is_refreshed(world: World) -> None:
    """The job signs anew at half of the life and has nothing to do before."""
    raw = world.vendor.listing(Listed(artifact("1.0.0"), 1))
    metadata.publish_targets(world.means, OPERATOR, raw)
    assert not metadata.refresh_image(world.means, OPERATOR)
    world.clock.forward(hours=13)
    assert metadata.refresh_image(world.means, OPERATOR)
    reader = world.means.store.reader
    newest = reader.metadata.newest("image", "timestamp")
    assert newest is not None
    assert newest.version == 2
    expires = json.loads(newest.body)["signed"]["expires"]
    assert expires == (START + timedelta(hours=37)).strftime("%Y-%m-%dT%H:%M:%SZ")
