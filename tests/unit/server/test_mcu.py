"""Patches for microcontrollers: which types get them, and how they reach a device."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from sealift.core.errors import ForbiddenError, InvalidConfigError, NotFoundError
from sealift.core.packer import pack_full
from sealift.core.types import Patch, PatchKind
from sealift.payload.delta.make import Limits, Quality
from sealift.payload.mcu import Recipe, check
from sealift.server.adapters.maker import ProcessMaker
from sealift.server.config import load
from sealift.server.domain.chooser import Offer
from sealift.server.ports import Delta, PayloadPolicy, Side, Task
from sealift.server.services import deltas, director
from sealift.server.services.offers import Place
from tests.mcu_gateway import NEW, OLD
from tests.mcu_gateway import artifact as image
from tests.unit.server.fleet import MAKER, Fleet, made_delta, two_releases
from tests.unit.server.test_deltas import installation
from tests.unit.server.world import HARDWARE, OPERATOR, Sequence, World, artifact

SEQUENTIAL = Recipe(PatchKind.SEQUENTIAL)
IN_PLACE = Recipe(
    PatchKind.IN_PLACE, memory_size=8192, segment_size=512, minimum_shift=512
)


# ── settings ─────────────────────────────────────────────────────────────────────────
def settings(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "server.toml"
    path.write_text(text)
    return load(path).mcu


def test_each_type_of_microcontroller_has_its_recipe(tmp_path: Path) -> None:
    """A table per hardware id; what is not said is as most decoders are built."""
    text = """
        [mcu."radio-r1"]
        [mcu.motor]
        kind = "detools-in-place-heatshrink"
        memory_size = 8192
        segment_size = 512
        minimum_shift = 512
    """
    found = settings(tmp_path, text)
    assert found == {"radio-r1": SEQUENTIAL, "motor": IN_PLACE}
    assert settings(tmp_path, "") == {}


@pytest.mark.parametrize(
    "text",
    [
        "mcu = 3",
        "[mcu]\nradio = 1",
        '[mcu.radio]\nkind = "detools-lzma"',
        "[mcu.radio]\nwindow = 99",
        '[mcu.radio]\nwindow = "8"',
        "[mcu.radio]\nmemory_size = 4096",
        '[mcu.radio]\nkind = "detools-in-place-heatshrink"',
        "[mcu.radio]\nmemory = 4096",
    ],
)
def test_a_type_that_cannot_be_is_refused(tmp_path: Path, text: str) -> None:
    """config.invalid when the server starts, not when a patch is to be made."""
    with pytest.raises(InvalidConfigError):
        settings(tmp_path, text)


# ── from a delta's row to the device ─────────────────────────────────────────────────
def facts(row: Delta, recipe: Recipe = SEQUENTIAL, length: int = 40) -> Patch:
    """A patch between the images of a row."""
    found = recipe.facts(f"{row.number}.patch", b"?", b"p" * length)
    return dataclasses.replace(
        found, base_length=10, base_sha256=bytes.fromhex(row.base_sha256)
    )


def with_recipe(
    world: World, recipe: Recipe = SEQUENTIAL, hardware: str = HARDWARE
) -> tuple[Fleet, str]:
    """A deployment whose pair of images has a delta and a sequential patch."""
    fleet, release = two_releases(world)
    policy = PayloadPolicy(deltas=True, recipes={hardware: recipe})
    world.means = dataclasses.replace(world.means, payload=policy)
    deployment = world.deploy(release)
    row = fleet.claim()
    made, patch = made_delta(row), facts(row)
    deltas.finish(world.means, OPERATOR, row.number, MAKER, made, 5, patch)
    fleet.poll("dev-0001")
    return fleet, deployment


def ordered(world: World) -> dict[str, Any]:
    """The payload member of the one order."""
    record = world.means.store.reader.metadata.director("dev-0001")
    assert record is not None
    signed = json.loads(record.targets)["signed"]
    ((_, entry),) = signed["targets"].items()
    found: dict[str, Any] = entry["custom"]["ecus"]["dev-0001-main"]["payload"]
    return found


def test_a_device_of_the_type_is_ordered_the_patch_and_may_fetch_it(
    world: World,
) -> None:
    """Beside the delta of the same pair; what it costs is counted."""
    fleet, deployment = with_recipe(world)
    (row,) = fleet.rows()
    assert row.patch == facts(row)
    assert ordered(world)["mcu"] == row.patch.to_json()
    assert ordered(world)["delta"]["base_sha256"] == row.base_sha256
    offer = installation(world, deployment).offer
    assert offer is not None
    assert (offer.method, offer.bytes) == ("delta", 140)
    session, digest = world.means.store.reader, row.patch.sha256.hex()
    stored = director.ordered_container(session, "dev-0001", digest, row.patch.name)
    assert (stored.length, stored.sha256) == (40, digest)
    with pytest.raises((NotFoundError, ForbiddenError)):
        director.ordered_container(session, "dev-0002", digest, row.patch.name)


@pytest.mark.parametrize(
    ("recipe", "hardware"),
    [
        (SEQUENTIAL, "another-board"),
        (IN_PLACE, HARDWARE),
        (dataclasses.replace(SEQUENTIAL, window=9), HARDWARE),
    ],
    ids=["other hardware", "other kind", "other window"],
)
def test_a_device_that_cannot_decode_it_is_not(
    world: World, recipe: Recipe, hardware: str
) -> None:
    """Another type, or the type's settings changed since the patch was made."""
    with_recipe(world, recipe, hardware)
    assert "mcu" not in ordered(world)
    assert "delta" in ordered(world)


def test_a_patch_beyond_the_budget_is_left_out(world: World) -> None:
    """The container fits, both would not: the image is enough."""
    fleet, release = two_releases(world)
    policy = PayloadPolicy(deltas=True, recipes={HARDWARE: SEQUENTIAL})
    world.means = dataclasses.replace(world.means, payload=policy)
    row = fleet.claim()
    made, patch = made_delta(row), facts(row)
    deltas.finish(world.means, OPERATOR, row.number, MAKER, made, 5, patch)
    deployment = world.deploy(release)
    with world.means.store.begin() as session:
        found = session.deployments.find(deployment)
        device = session.devices.find("dev-0001")
        assert found is not None
        assert device is not None
        place = Place(
            session,
            policy,
            world.clock.now(),
            device,
            session.devices.ecus("dev-0001")[0],
            dataclasses.replace(found, bytes_max=139),
            release.items[0],
        )
        offer = place.offer(installation(world, deployment))
        assert isinstance(offer, Offer)
        assert place.patch(offer) is None
        enough = dataclasses.replace(found, bytes_max=140)
        assert dataclasses.replace(place, deployment=enough).patch(offer) == patch


def test_only_where_a_type_wants_it_a_task_has_a_recipe(world: World) -> None:
    """The maker is told by which; without a setting, deltas are all it makes."""
    fleet, _ = two_releases(world)
    (row,) = fleet.rows()
    for recipes in ({}, {HARDWARE: IN_PLACE}):
        policy = PayloadPolicy(deltas=True, recipes=recipes)
        session, content = world.means.store.reader, world.means.content
        task = deltas.task_of(session, policy, content, row)
        assert task.recipe == recipes.get(HARDWARE)
        assert task.new.artifact == artifact("1.1.0")


# ── made ─────────────────────────────────────────────────────────────────────────────
class Memory:
    """An image in memory."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def read_at(self, offset: int, length: int) -> bytes:
        return self._raw[offset : offset + length]


def side(blobs: Path, raw: bytes, version: str) -> Side:
    """An image as the server holds it."""
    out = BytesIO()
    packed = pack_full(Memory(raw).read_at, len(raw), spool=BytesIO(), out=out)
    container = packed.container(f"{version}.full")
    (blobs / container.sha256.hex()).write_bytes(out.getvalue())
    found = dataclasses.replace(
        image(raw, version, 1),
        segment_size=packed.segment_size,
        segment_root=packed.segment_root,
    )
    return Side(found, container)


def make(tmp_path: Path, recipe: Recipe | None) -> tuple[Path, Any]:
    blobs, scratch = tmp_path / "blobs", tmp_path / "scratch"
    blobs.mkdir()
    scratch.mkdir()
    limits = Limits(memory=1 << 30, seconds=60)
    maker = ProcessMaker(blobs, scratch, limits, Quality.QUICK, Sequence())
    task = Task(7, "x.delta", side(blobs, OLD, "1"), side(blobs, NEW, "2"), recipe)
    return scratch, maker.make(task, progress=lambda *_: None, cancelled=lambda: False)


@pytest.mark.parametrize("recipe", [SEQUENTIAL, IN_PLACE], ids=["two", "one slot"])
def test_the_maker_makes_both_from_stored_containers(
    tmp_path: Path, recipe: Recipe
) -> None:
    """A delta and a patch between the same images, each checked."""
    pytest.importorskip("detools", reason="needs the extra mcu")
    scratch, made = make(tmp_path, recipe)
    patch, file = made.patch
    raw = file.read_bytes()
    check(OLD, raw, patch, NEW)
    assert patch.sha256 == hashlib.sha256(raw).digest()
    assert sorted(scratch.iterdir()) == sorted([file, made.file])


@pytest.mark.parametrize(
    "recipe",
    [None, dataclasses.replace(IN_PLACE, memory_size=1024)],
    ids=["none wanted", "flash too small"],
)
def test_without_a_patch_there_is_still_the_delta(
    tmp_path: Path, recipe: Recipe | None
) -> None:
    """What goes wrong with a patch costs the patch."""
    scratch, made = make(tmp_path, recipe)
    assert made.patch is None
    assert list(scratch.iterdir()) == [made.file]
