"""The Director orders, the Image repository vouches: G6 to G8, W1 to W4, F10, C8."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from sealift.core.errors import (
    CounterError,
    DelegationError,
    DigestError,
    FormatError,
    HardwareError,
    LengthError,
    LimitError,
    MalformedError,
    MisdirectedError,
    MismatchError,
    NoTargetError,
    SealiftError,
    UnsafeNameError,
)
from sealift.core.trusted import director_rules, image_rules
from sealift.core.types import (
    Bootable,
    Container,
    Instruction,
    Patch,
    PatchKind,
    Seal,
    Wrap,
)
from sealift.core.uptane import admit, instruct
from tests.maker import Body, Client, Repository

DEVICE = "dev-0001"
ECU = "dev-0001-main"
BOARD = "board-r1"
PATH = "demo/rootfs-1.2.0.img"
UNITS = {ECU: BOARD}
FULL: Body = {
    "name": "rootfs-1.2.0.full",
    "length": 1000,
    "sha256": "11" * 32,
    "head_length": 200,
    "head_sha256": "22" * 32,
}
DELTA: Body = FULL | {"name": "x.delta", "base_length": 5, "base_sha256": "33" * 32}


class World:
    """One Director and one Image repository that agree on one order."""

    def __init__(self) -> None:
        self.director = Repository("director", device_id=DEVICE)
        self.image = Repository("image")
        must_match = {"hardware_ids": [BOARD], "release_counter": 3}
        self.vouched = self.image.add_target(
            PATH,
            must_match=must_match,
            payload={"segment_size": 1 << 20, "segment_root": "44" * 32},
            release={"version": "1.2.0", "sequence": 12},
        )
        self.ordered = self.director.add_target(
            PATH, must_match=copy.deepcopy(must_match), ecus={ECU: self.unit()}
        )
        self.before = None
        self.floors: dict[str, int] = {}

    @staticmethod
    def unit(**more: object) -> Body:
        return {"hardware_id": BOARD, "payload": {"full": dict(FULL)}} | more

    @property
    def order(self) -> Body:
        unit: Body = self.ordered["custom"]["ecus"][ECU]
        return unit

    def instructions(self) -> tuple[Instruction, ...]:
        self.director.release()
        self.image.release()
        director = Client(self.director, director_rules(DEVICE)).refresh()
        image = Client(self.image, image_rules())
        image.refresh()
        orders = admit(director.targets.body, self.before, UNITS)
        return tuple(
            instruct(director, order, image.find(order.path, BOARD), self.floors)
            for order in orders
        )


@pytest.fixture
def world() -> World:
    return World()


def refused(world: World, error: type[SealiftError]) -> None:
    with pytest.raises(error):
        world.instructions()


def test_F10_an_order_both_repositories_agree_on_becomes_an_instruction(
    world: World,
) -> None:
    world.order.update(bytes_max=500, deployment="d-7")
    world.order["payload"]["delta"] = DELTA
    world.vouched["hashes"]["sha512"] = "55" * 64
    world.ordered["hashes"]["sha512"] = "55" * 64
    (instruction,) = world.instructions()
    artifact = instruction.artifact
    assert (instruction.ecu_id, instruction.hardware_id) == (ECU, BOARD)
    assert (artifact.name, artifact.length) == (PATH, len(PATH))
    assert artifact.sha256.hex() == world.vouched["hashes"]["sha256"]
    assert artifact.sha512 == b"\x55" * 64
    assert (artifact.segment_size, artifact.segment_root) == (1 << 20, b"\x44" * 32)
    assert (artifact.release_counter, artifact.version) == (3, "1.2.0")
    assert artifact.hardware_ids == (BOARD,)
    assert instruction.full == Container.from_json(FULL)
    assert instruction.delta == Container.from_json(DELTA)
    assert (instruction.bytes_max, instruction.deployment) == (500, "d-7")
    assert instruction.director_version == world.director.bodies["targets"]["version"]
    assert Instruction.from_json(instruction.to_json()) == instruction


def test_a_director_that_orders_nothing_gives_no_instruction(world: World) -> None:
    world.director.bodies["targets"]["targets"].clear()
    assert world.instructions() == ()


# ── G6 to G8, W1, W2, C6, C8 ─────────────────────────────────────────────────────────
def test_G6_a_director_that_delegates_is_refused(world: World) -> None:
    world.director.delegate("targets", "supplier")
    refused(world, DelegationError)


def test_G7_an_ecu_named_in_two_entries_is_refused(world: World) -> None:
    world.director.add_target(
        "demo/other.img",
        must_match={"hardware_ids": [BOARD], "release_counter": 3},
        ecus={ECU: world.unit()},
    )
    refused(world, MisdirectedError)


def test_A23_an_ecu_named_twice_in_one_entry_is_no_json(world: World) -> None:
    world.director.release()
    name = ("targets", world.director.bodies["targets"]["version"])
    raw = world.director.files[name]
    client = Client(world.director, director_rules(DEVICE))
    twin = raw.replace(b'"ecus": {', b'"ecus": {"dev-0001-main": {}, ')
    with pytest.raises(MalformedError):
        client.rules.reader.targets(twin)
    upper = raw.replace(b'"ecus": {', b'"ecus": {"DEV-0001-MAIN": {}, ')
    with pytest.raises(MalformedError):
        client.rules.reader.targets(upper)


def test_G8_W1_an_ecu_this_device_does_not_have_is_refused(world: World) -> None:
    world.ordered["custom"]["ecus"] = {"dev-0002-main": world.unit()}
    refused(world, MisdirectedError)


def test_W2_an_order_for_other_hardware_than_the_ecu_has_is_refused(
    world: World,
) -> None:
    world.order["hardware_id"] = "board-r2"
    refused(world, HardwareError)


def test_W2_an_image_for_other_hardware_is_refused(world: World) -> None:
    for entry in (world.ordered, world.vouched):
        entry["custom"]["must_match"]["hardware_ids"] = ["board-r2"]
    refused(world, HardwareError)


def test_C6_an_entry_for_no_ecu_is_refused(world: World) -> None:
    world.ordered["custom"]["ecus"] = {}
    refused(world, MalformedError)


@pytest.mark.parametrize("entry", ["ordered", "vouched"])
@pytest.mark.parametrize("name", ["must_match", None])
def test_C8_both_entries_need_must_match(
    world: World, entry: str, name: str | None
) -> None:
    if name is None:
        del getattr(world, entry)["custom"]
    else:
        del getattr(world, entry)["custom"][name]
    refused(world, MalformedError)


# ── F10: the repositories disagree ────────────────────────────────────────────
def other_length(entry: Body) -> None:
    entry["length"] += 1


def other_hash(entry: Body) -> None:
    entry["hashes"]["sha256"] = "66" * 32


def another_hash(entry: Body) -> None:
    entry["hashes"]["sha512"] = "66" * 64


def other_counter(entry: Body) -> None:
    entry["custom"]["must_match"]["release_counter"] += 1


def more_hardware(entry: Body) -> None:
    entry["custom"]["must_match"]["hardware_ids"].append("board-r9")


@pytest.mark.parametrize(
    "change", [other_length, other_hash, another_hash, other_counter, more_hardware]
)
@pytest.mark.parametrize("entry", ["ordered", "vouched"])
def test_F10_any_difference_is_refused(world: World, change: Any, entry: str) -> None:
    change(getattr(world, entry))
    refused(world, MismatchError)


def test_F10_an_image_nobody_vouches_for_is_refused(world: World) -> None:
    world.image.bodies["targets"]["targets"].clear()
    refused(world, NoTargetError)


# ── W4: counters ─────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(("floor", "ok"), [(2, True), (3, True), (4, False)])
def test_W4_the_counter_may_not_go_below_the_confirmed_release(
    world: World, floor: int, ok: bool
) -> None:
    world.floors[ECU] = floor
    if ok:
        assert len(world.instructions()) == 1
    else:
        refused(world, CounterError)


@pytest.mark.parametrize(("before", "ok"), [(2, True), (3, True), (4, False)])
def test_W4_the_counter_may_not_go_below_the_order_in_force(
    world: World, before: int, ok: bool
) -> None:
    past = World()
    past.ordered["custom"]["must_match"]["release_counter"] = before
    past.director.release()
    client = Client(past.director, director_rules(DEVICE))
    world.before = client.refresh().targets.body  # type: ignore[assignment]
    if ok:
        assert len(world.instructions()) == 1
    else:
        refused(world, CounterError)


# ── C7: sealed payloads ──────────────────────────────────────────────────────────────
SEAL: Body = {
    "v": 1,
    "alg": "cobblestone-256",
    "wrap": {"v": 1, "kem": "x25519", "kid": "ab" * 8, "data": "AAAA"},
}


def seal(world: World, *, ordered: bool = True, vouched: bool = True) -> None:
    if ordered:
        world.order["payload"]["sealed"] = copy.deepcopy(SEAL)
    if vouched:
        world.vouched["custom"]["payload"]["sealed"] = True


def test_a_patch_for_a_microcontroller_comes_with_the_order(world: World) -> None:
    """As the Director said it; its result is the image the offline keys vouch for."""
    found = Patch(PatchKind.SEQUENTIAL, "p", 9, bytes(32), 8, bytes(32), 8, 7)
    world.order["payload"]["mcu"] = found.to_json()
    assert world.instructions()[0].patch == found


BOOT = {
    "v": 1,
    "kind": "uki",
    "offset": 40960,
    "length": 4096,
    "sha256": "66" * 32,
    "root_hash": "77" * 32,
    "salt": "88" * 32,
    "data_blocks": 8,
}


def bootable(world: World, **changes: object) -> None:
    world.vouched["length"] = world.ordered["length"] = 45056
    world.vouched["custom"]["boot"] = {**BOOT, **changes}


def test_how_it_boots_is_the_word_of_the_offline_keys(world: World) -> None:
    """Image Targets say it, the Director cannot; the journal keeps it."""
    world.ordered["custom"]["boot"] = {**BOOT, "root_hash": "00" * 32}
    bootable(world)
    (instruction,) = world.instructions()
    assert instruction.artifact.bootable == Bootable.from_json(BOOT)
    assert Instruction.from_json(instruction.to_json()) == instruction


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"kind": "elf"},
        {"offset": 36863},
        {"offset": 40961},
        {"length": 4097},
        {"length": 0},
        {"root_hash": "77" * 31},
        {"salt": ""},
        {"data_blocks": 0},
        {"data_blocks": 10},
    ],
)
def test_boot_facts_no_image_can_have_are_refused(
    world: World, changes: dict[str, object]
) -> None:
    """A form unknown here, or a boot file outside its place in the image."""
    bootable(world, **changes)
    refused(world, FormatError)


def test_C7_an_image_sealed_in_both_repositories_is_ordered_sealed(
    world: World,
) -> None:
    """The instruction carries the seal, and keeps it over the journal."""
    seal(world)
    (instruction,) = world.instructions()
    assert instruction.sealed == Seal(Wrap("x25519", "ab" * 8, bytes(3)))
    assert Instruction.from_json(instruction.to_json()) == instruction


@pytest.mark.parametrize("said", ["ordered", "vouched"])
def test_C7_sealed_in_one_repository_only_is_refused(world: World, said: str) -> None:
    """Nobody but the vendor's offline keys says whether an image is secret."""
    seal(world, ordered=said == "ordered", vouched=said == "vouched")
    refused(world, MismatchError)
    world.vouched["custom"]["payload"]["sealed"] = False
    if said == "vouched":
        assert world.instructions()[0].sealed is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"alg": "aes-ctr"}, MalformedError),
        ({"alg": None}, MalformedError),
        ({"v": 2}, LimitError),
        ({"wrap": None}, MalformedError),
        ({"wrap": SEAL["wrap"] | {"v": 2}}, LimitError),
        ({"wrap": SEAL["wrap"] | {"kid": "AB" * 8}}, MalformedError),
        ({"wrap": SEAL["wrap"] | {"kid": "ab"}}, MalformedError),
        ({"wrap": SEAL["wrap"] | {"data": ""}}, MalformedError),
        ({"wrap": SEAL["wrap"] | {"data": "AAA"}}, MalformedError),
        ({"wrap": SEAL["wrap"] | {"data": "AAAB" * 684}}, LimitError),
    ],
)
def test_C7_a_seal_is_described_strictly(
    world: World, change: Body, error: type[SealiftError]
) -> None:
    """One version, one algorithm: anything else is refused before it is tried."""
    seal(world)
    world.order["payload"]["sealed"] |= change
    refused(world, error)


def test_C7_an_unknown_algorithm_says_what_to_do(world: World) -> None:
    seal(world)
    world.order["payload"]["sealed"]["alg"] = "cobblestone-512"
    with pytest.raises(MalformedError) as caught:
        world.instructions()
    assert caught.value.hint is not None
    assert "update the agent" in caught.value.hint


@pytest.mark.parametrize("which", ["full", "delta"])
def test_C7_no_sealed_file_has_an_impossible_length(world: World, which: str) -> None:
    """Its last chunk would be shorter than a tag: nothing is fetched to find out."""
    seal(world)
    world.order["payload"]["delta"] = dict(DELTA)
    world.order["payload"][which] |= {"length": 56 + 16_400 + 15, "head_length": 180}
    refused(world, LengthError)


def test_C7_a_sealed_head_must_fit_the_plain_bytes(world: World) -> None:
    """A head as long as the file cannot be inside it."""
    seal(world)
    world.order["payload"]["full"] |= {"length": 1000, "head_length": 1000 - 72}
    assert len(world.instructions()) == 1
    world.order["payload"]["full"] |= {"head_length": 1000 - 71}
    refused(world, MalformedError)


@pytest.mark.parametrize("value", ["yes", 1, None, {}])
def test_C7_sealed_is_true_or_false(world: World, value: object) -> None:
    world.vouched["custom"]["payload"]["sealed"] = value
    refused(world, MalformedError)


# ── malformed ────────────────────────────────────────────────────────────────────────
def test_P4_an_unknown_hash_algorithm_is_refused(world: World) -> None:
    for entry in (world.ordered, world.vouched):
        entry["hashes"]["md5"] = "77" * 16
    refused(world, DigestError)


@pytest.mark.parametrize("name", ["payload", "release"])
def test_an_image_without_its_segments_or_version_is_refused(
    world: World, name: str
) -> None:
    del world.vouched["custom"][name]
    refused(world, MalformedError)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"name": "../x"}, UnsafeNameError),
        ({"name": ".."}, UnsafeNameError),
        ({"name": "x" * 241}, LimitError),
        ({"length": 0}, LimitError),
        ({"length": 2**37 + 1}, LimitError),
        ({"head_length": 1001}, MalformedError),
        ({"head_length": 0}, LimitError),
        ({"sha256": "11"}, MalformedError),
        ({"base_sha256": "11" * 32, "base_length": 1}, MalformedError),
    ],
)
def test_a_container_is_described_strictly(
    world: World, change: Body, error: type[SealiftError]
) -> None:
    world.order["payload"]["full"] |= change
    refused(world, error)


def test_a_delta_needs_a_base(world: World) -> None:
    world.order["payload"]["delta"] = FULL
    refused(world, MalformedError)


@pytest.mark.parametrize(
    ("member", "value", "error"),
    [
        ("segment_size", 1 << 15, LimitError),
        ("segment_size", (1 << 16) + 1, MalformedError),
        ("segment_size", 1 << 21, LimitError),
        ("segment_root", "44", MalformedError),
    ],
)
def test_segments_are_described_strictly(
    world: World, member: str, value: object, error: type[SealiftError]
) -> None:
    world.vouched["custom"]["payload"][member] = value
    refused(world, error)


@pytest.mark.parametrize(
    ("ids", "error"),
    [([], MalformedError), (["a", "a"], MalformedError), (["x"] * 65, LimitError)],
)
def test_hardware_ids_are_some_and_distinct(
    world: World, ids: list[str], error: type[SealiftError]
) -> None:
    world.vouched["custom"]["must_match"]["hardware_ids"] = ids
    refused(world, error)


@pytest.mark.parametrize(
    ("ecus", "error"), [(256, MisdirectedError), (257, LimitError)]
)
def test_a_device_has_at_most_256_ecus(
    world: World, ecus: int, error: type[SealiftError]
) -> None:
    units = {f"ecu-{number}": world.unit() for number in range(ecus)}
    world.ordered["custom"]["ecus"] = units
    refused(world, error)
