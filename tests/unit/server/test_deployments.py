"""Which devices a release goes to, and what they are then ordered."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sealift.core.audit import Actor, ActorType
from sealift.core.errors import ConflictError, InvalidInputError, NotFoundError
from sealift.repo import online
from sealift.server.services import deployments, director, metadata, releases
from tests.unit.server.world import OPERATOR, World, artifact, container

DEVICE = Actor(ActorType.DEVICE, "dev-0001")


def targets_of(world: World, device_id: str = "dev-0001") -> dict[str, object]:
    record = director.issue_for(world.means, DEVICE, device_id)
    found = json.loads(record.targets)["signed"]["targets"]
    assert isinstance(found, dict)
    return found


def states(world: World, deployment_id: str) -> dict[str, int]:
    view = deployments.show_deployment(world.means.store.reader, deployment_id)
    return dict(view.counts)


def test_device_is_ordered_what_was_deployed_to_it(world: World) -> None:
    """The Director orders exactly that image for exactly that component."""
    world.device()
    found = world.deploy(world.release("1.0.0", 1), "dev-0001")
    assert states(world, found) == {"waiting": 1}
    ordered = targets_of(world)
    assert list(ordered) == ["demo-board/rootfs-1.0.0.img"]
    assert states(world, found) == {"offered": 1}


def test_other_device_is_ordered_nothing(world: World) -> None:
    """D6: what one device is ordered is not in another's metadata, nor fetchable."""
    world.device()
    world.device("dev-0002")
    world.deploy(world.release("1.0.0", 1), "dev-0001")
    assert targets_of(world, "dev-0002") == {}
    targets_of(world, "dev-0001")
    facts, _ = container("1.0.0")
    reader = world.means.store.reader
    wanted = (facts.sha256.hex(), facts.name)
    assert director.ordered_container(reader, "dev-0001", *wanted).name == facts.name
    with pytest.raises(NotFoundError) as other:
        director.ordered_container(reader, "dev-0002", *wanted)
    with pytest.raises(NotFoundError) as unknown:
        director.ordered_container(reader, "dev-0002", "0" * 64, "nothing.full")
    assert str(other.value) == str(unknown.value)


def test_nothing_new_signs_nothing(world: World) -> None:
    """Two polls in a row give the same bytes, and no event."""
    world.device()
    first = director.issue_for(world.means, DEVICE, "dev-0001")
    before = world.leaves()
    assert director.issue_for(world.means, DEVICE, "dev-0001") == first
    assert world.leaves() == before


def test_D12_timestamp_is_renewed_at_half_of_its_life(world: World) -> None:
    """Under half of its life left, a poll gets a fresh Timestamp over the same files."""
    world.device()
    first = director.issue_for(world.means, DEVICE, "dev-0001")
    world.clock.forward(hours=12)
    second = director.issue_for(world.means, DEVICE, "dev-0001")
    assert second.targets == first.targets
    assert second.versions[2] == first.versions[2] + 1
    assert second.renew_at > first.renew_at


def test_new_online_keys_sign_at_the_next_poll(world: World, tmp_path: Path) -> None:
    """After a root named new online keys, nothing is served under the old ones."""
    world.device()
    first = director.issue_for(world.means, DEVICE, "dev-0001")
    (tmp_path / "fresh").mkdir()
    online.make(tmp_path / "fresh")
    fresh = online.load(tmp_path / "fresh").director
    means = replace(world.means, director=fresh)
    second = director.issue_for(means, DEVICE, "dev-0001")
    assert second.versions == tuple(version + 1 for version in first.versions)
    signed = json.loads(second.targets)["signatures"]
    assert [one["keyid"] for one in signed] == [fresh.targets.public_key.keyid]
    assert director.issue_for(means, DEVICE, "dev-0001") == second


@pytest.mark.parametrize(
    ("sentence", "hardware", "counter"),
    [
        ("an image for other hardware", "other-board", 5),
        ("an image below the counter the device reported", "demo-board-r1", 1),
    ],
)
def test_D10_is_not_ordered(
    world: World, sentence: str, hardware: str, counter: int
) -> None:
    """A named device that cannot take the release ends the deployment."""
    device = world.device(hardware=hardware)
    release = world.release("1.0.0", 1, counter)
    with world.means.store.begin() as session:
        (ecu,) = session.devices.ecus(device.id)
        session.devices.save_ecu(replace(ecu, release_counter=4))
    with pytest.raises(ConflictError):
        world.deploy(release, device.id)
    with pytest.raises(ConflictError):
        world.deploy(release)
    assert targets_of(world) == {}


def test_D10_withdrawn_image_is_ordered_no_more(world: World) -> None:
    """When the offline keys drop an image, the standing order for it is dropped too."""
    world.device()
    world.deploy(world.release("1.0.0", 1), "dev-0001")
    assert targets_of(world)
    raw = world.vendor.listing(remove=["demo-board/rootfs-1.0.0.img"])
    metadata.publish_targets(world.means, OPERATOR, raw)
    assert targets_of(world) == {}


def test_all_means_every_active_device_it_fits(world: World) -> None:
    """``--all`` skips other hardware and revoked devices."""
    from sealift.server.services import identity

    for name in ("dev-0001", "dev-0002", "dev-0003"):
        world.device(name)
    world.device("dev-0004", hardware="other-board")
    identity.revoke(world.means, OPERATOR, "dev-0003", "lost")
    found = world.deploy(world.release("1.0.0", 1))
    assert states(world, found) == {"waiting": 2}


def test_newer_deployment_supersedes(world: World) -> None:
    """One component has one open order; the older one gives way and is completed."""
    world.device()
    old = world.deploy(world.release("1.0.0", 1), "dev-0001")
    new = world.deploy(world.release("1.1.0", 2), "dev-0001")
    assert states(world, old) == {"superseded": 1}
    assert states(world, new) == {"waiting": 1}
    reader = world.means.store.reader
    assert deployments.show_deployment(reader, old).deployment.state == "completed"
    assert list(targets_of(world)) == ["demo-board/rootfs-1.1.0.img"]


def test_abort_takes_the_order_back(world: World) -> None:
    """After an abort the next poll orders nothing; a second abort is a conflict."""
    world.device()
    found = world.deploy(world.release("1.0.0", 1), "dev-0001")
    assert targets_of(world)
    deployments.abort(world.means, OPERATOR, found, "wrong one")
    assert targets_of(world) == {}
    assert states(world, found) == {"cancelled": 1}
    with pytest.raises(ConflictError):
        deployments.abort(world.means, OPERATOR, found, "again")


def test_download_is_noticed_once(world: World) -> None:
    """The first fetch moves the installation; later ranges leave no event."""
    world.device()
    found = world.deploy(world.release("1.0.0", 1), "dev-0001")
    targets_of(world)
    for _ in range(3):
        director.start_download(world.means, DEVICE, "dev-0001", "rootfs-1.0.0.full")
    assert states(world, found) == {"downloading": 1}
    assert world.leaves().count("installation.state") == 1


def test_release_needs_listing_and_bytes(world: World) -> None:
    """A release of an unlisted image or with a container nobody uploaded is refused."""
    facts, _ = container("1.0.0")
    wanted = [releases.NewArtifact(artifact("1.0.0").name, facts)]
    with pytest.raises(InvalidInputError, match="not listed"):
        releases.publish_release(world.means, OPERATOR, wanted)
    from sealift.repo.entries import Listed

    raw = world.vendor.listing(Listed(artifact("1.0.0"), 1))
    metadata.publish_targets(world.means, OPERATOR, raw)
    with pytest.raises(InvalidInputError, match="not uploaded"):
        releases.publish_release(world.means, OPERATOR, wanted)


def test_F12_published_name_keeps_its_bytes(world: World) -> None:
    """Other bytes under a published container name are a conflict."""
    world.release("1.0.0", 1)
    with pytest.raises(ConflictError):
        releases.add_container(world.means, OPERATOR, "rootfs-1.0.0.full", 3, "ab" * 32)
