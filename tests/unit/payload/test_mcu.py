"""Patches for microcontrollers as the desk makes, checks and offers them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from benchmarks._delta_firmware import make_firmware
from sealift.cli.main import main
from sealift.core import mcu as bounds
from sealift.core.errors import (
    DeltaCancelledError,
    DeltaTimeError,
    DeltaWrongError,
    InvalidConfigError,
    LimitError,
    MissingToolError,
    PatchError,
    RefusedError,
)
from sealift.core.packer import pack_full
from sealift.core.types import Patch, PatchKind
from sealift.payload.delta.make import Limits
from sealift.payload.fence.job import Job, Source
from sealift.payload.fence.patching import make_patch
from sealift.payload.fence.process import run
from sealift.payload.mcu import WORTH, Recipe, check, choose, make, patch_name, worth
from tests.mcu_gateway import NEW, OLD, artifact, code

pytest.importorskip("detools", reason="needs the extra mcu")

SEQUENTIAL = Recipe(PatchKind.SEQUENTIAL)
IN_PLACE = Recipe(
    PatchKind.IN_PLACE, memory_size=8192, segment_size=512, minimum_shift=512
)
recipes = pytest.mark.parametrize(
    "recipe", [SEQUENTIAL, IN_PLACE], ids=["sequential", "in place"]
)


def made(recipe: Recipe, old: bytes = OLD, new: bytes = NEW) -> tuple[Patch, bytes]:
    raw = make(old, new, recipe)
    return recipe.facts("p", old, raw), raw


@recipes
@pytest.mark.parametrize("length", [1, 511, 512, 513, 5000, 7680])
def test_what_is_made_passes_both_decoders(recipe: Recipe, length: int) -> None:
    """Any base, lengths around a segment, as much as the flash holds."""
    for old in (OLD, code(length, "old"), b"x"):
        for new in (code(length, "new"), old[len(old) // 2 :] + old[: len(old) // 2]):
            facts, raw = made(recipe, old, new)
            check(old, raw, facts, new)


@recipes
@pytest.mark.parametrize(("window", "lookahead"), [(4, 3), (10, 5), (15, 14)])
def test_windows_are_those_of_the_recipe(
    recipe: Recipe, window: int, lookahead: int
) -> None:
    """What the loader was built for is what the patch is made with."""
    other = dataclasses.replace(recipe, window=window, lookahead=lookahead)
    facts, raw = made(other)
    assert (facts.window, facts.lookahead) == (window, lookahead)
    check(OLD, raw, facts, NEW)


@recipes
def test_a_patch_to_another_image_does_not_count(recipe: Recipe) -> None:
    """Neither do damaged bytes, nor a base that is another one: delta.wrong."""
    facts, raw = made(recipe)
    for base, bytes_, wanted in (
        (OLD, raw, NEW[:-1] + b"!"),
        (OLD, raw[:-1], NEW),
        (OLD[1:] + b"x", raw, NEW),
    ):
        with pytest.raises(DeltaWrongError):
            check(base, bytes_, facts, wanted)


def test_images_that_do_not_fit_the_flash_get_no_patch() -> None:
    """Refused before detools begins: format.limit or payload.patch."""
    with pytest.raises(PatchError):
        make(OLD, code(8193, "too large"), IN_PLACE)
    with pytest.raises(LimitError):
        make(b"", NEW, SEQUENTIAL)
    with pytest.raises(LimitError):
        make(OLD, bytes(bounds.PATCH_MAX + 1), SEQUENTIAL)


def test_a_full_flash_moves_by_the_minimum() -> None:
    """No room above the old image: what does not fit is not used as base."""
    old = code(8192, "full")
    facts, raw = made(IN_PLACE, old, code(8100, "full"))
    assert facts.shift_size == IN_PLACE.minimum_shift
    check(old, raw, facts, code(8100, "full"))


def test_without_the_library_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """config.missing, and what to install."""
    monkeypatch.setitem(sys.modules, "detools", None)
    with pytest.raises(MissingToolError) as caught:
        make(OLD, NEW, SEQUENTIAL)
    assert "sealift[mcu]" in str(caught.value.hint)


WRONG_RECIPES: list[dict[str, Any]] = [
    {"window": 16},
    {"lookahead": 8},
    {"lookahead": 2},
    {"memory_size": 4096},
    {"kind": PatchKind.IN_PLACE},
    {"kind": PatchKind.IN_PLACE, "memory_size": 4096, "segment_size": 4096},
    {
        "kind": PatchKind.IN_PLACE,
        "memory_size": 4096,
        "segment_size": 1000,
        "minimum_shift": 1000,
    },
    {
        "kind": PatchKind.IN_PLACE,
        "memory_size": 4096,
        "segment_size": 128,
        "minimum_shift": 128,
    },
]


@pytest.mark.parametrize("change", WRONG_RECIPES, ids=str)
def test_a_recipe_by_which_nothing_can_be_made_is_refused(
    change: dict[str, Any],
) -> None:
    """config.invalid, when the settings are read."""
    SEQUENTIAL.check()
    IN_PLACE.check()
    with pytest.raises(InvalidConfigError):
        dataclasses.replace(SEQUENTIAL, **change).check()


@recipes
def test_a_recipe_comes_back_from_json(recipe: Recipe) -> None:
    """As a process of its own gets it."""
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_the_patch_of_the_right_kind_and_base_is_offered() -> None:
    """Made by the recipe of the type, from what the component runs; else none."""
    base = hashlib.sha256(OLD).digest()
    offers = tuple(it.facts("p", OLD, b"raw") for it in (SEQUENTIAL, IN_PLACE))
    assert choose(offers, IN_PLACE, base) == offers[1]
    assert choose(offers, SEQUENTIAL, base) == offers[0]
    assert choose(offers, None, base) is None
    assert choose(offers, SEQUENTIAL, None) is None
    assert choose(offers, SEQUENTIAL, bytes(32)) is None
    assert choose(offers, dataclasses.replace(SEQUENTIAL, window=9), base) is None
    assert choose((), SEQUENTIAL, base) is None


def test_a_patch_nearly_as_long_as_the_image_is_not_worth_it() -> None:
    """Eighty of a hundred are, eighty-one are not."""
    facts = SEQUENTIAL.facts("p", OLD, bytes(80))
    assert worth(facts, 100)
    assert not worth(dataclasses.replace(facts, length=81), 100)


def test_names_tell_the_pair_and_the_kind() -> None:
    """Two kinds between the same images are two files."""
    names = {patch_name(b"\1" * 32, b"\2" * 32, kind) for kind in PatchKind}
    assert names == {f"{'01' * 32}-{'02' * 32}.{end}" for end in ("patch", "inplace")}


class Memory:
    """An image in memory."""

    def __init__(self, image: bytes) -> None:
        self._image = image
        self.length = len(image)

    def read_at(self, offset: int, length: int) -> bytes:
        return self._image[offset : offset + length]


# ── behind the fence ─────────────────────────────────────────────────────────────────
def job(place: Path, **more: Any) -> Job:
    (place / "old").write_bytes(OLD)
    (place / "new").write_bytes(NEW)
    limits = Limits(memory=1 << 30, seconds=60)
    return Job(Source(place / "old"), Source(place / "new"), limits=limits, **more)


@recipes
def test_a_patch_appears_checked_and_with_its_facts(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Made in one process, applied in another; nothing else is left."""
    found = make_patch(job(tmp_path), recipe, "radio.patch", tmp_path / "out")
    raw = (tmp_path / "out").read_bytes()
    assert found == recipe.facts("radio.patch", OLD, raw)
    check(OLD, raw, found, NEW)
    assert sorted(it.name for it in tmp_path.iterdir()) == ["new", "old", "out"]


def test_full_containers_are_images_too(tmp_path: Path) -> None:
    """As the server holds them."""
    wanted = job(tmp_path)
    sources = []
    for side, image in (("old", OLD), ("new", NEW)):
        file = tmp_path / f"{side}.full"
        read_at = Memory(image).read_at
        with file.open("wb") as out:
            packed = pack_full(read_at, len(image), spool=BytesIO(), out=out)
        facts = dataclasses.replace(
            artifact(image, "1", 1),
            segment_size=packed.segment_size,
            segment_root=packed.segment_root,
        )
        sources.append(Source(file, facts, packed.container("full")))
    boxed = dataclasses.replace(wanted, base=sources[0], new=sources[1])
    found = make_patch(boxed, SEQUENTIAL, "p", tmp_path / "out")
    assert found == make_patch(wanted, SEQUENTIAL, "p", tmp_path / "out")


def test_what_goes_wrong_leaves_no_file(tmp_path: Path) -> None:
    """Flash too small, no time, a sealed image: an error of ours and nothing else."""
    wanted, out = job(tmp_path), tmp_path / "out"
    small = dataclasses.replace(IN_PLACE, memory_size=1024)
    late = dataclasses.replace(wanted, limits=Limits(memory=1 << 30, seconds=0.0))
    secret = dataclasses.replace(wanted.new, content_key=bytes(32))
    for error, asked, recipe in (
        (PatchError, wanted, small),
        (DeltaTimeError, late, SEQUENTIAL),
        (RefusedError, dataclasses.replace(wanted, new=secret), SEQUENTIAL),
        (InvalidConfigError, wanted, dataclasses.replace(SEQUENTIAL, window=3)),
    ):
        with pytest.raises(error):
            make_patch(asked, recipe, "p", out)
    assert sorted(it.name for it in tmp_path.iterdir()) == ["new", "old"]


def test_cancelled_is_cancelled(tmp_path: Path) -> None:
    """Nobody waits any more."""
    with pytest.raises(DeltaCancelledError):
        make_patch(
            job(tmp_path), SEQUENTIAL, "p", tmp_path / "out", cancel=lambda: True
        )


# ── what it is for ───────────────────────────────────────────────────────────────────
def test_the_container_is_the_smallest_on_the_wire(tmp_path: Path) -> None:
    """Of a firmware with edits all over: container, sequential, in place, image."""
    old, new = (make_firmware(revision, 600) for revision in (1, 2))
    (tmp_path / "old").write_bytes(old)
    (tmp_path / "new").write_bytes(new)
    pair = Job(Source(tmp_path / "old"), Source(tmp_path / "new"))
    report = run(pair, tmp_path / "delta")
    flash = dataclasses.replace(IN_PLACE, memory_size=len(new) // 512 * 512 + 4096)
    lengths = [len(make(old, new, recipe)) for recipe in (SEQUENTIAL, flash)]
    assert report.packed.length < lengths[0] < lengths[1] < WORTH * len(new)


def test_a_patch_is_tried_on_the_desk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`sealift payload mcu-patch`: the file, its length, what decoding it takes."""
    job(tmp_path)
    words = ["payload", "mcu-patch", str(tmp_path / "new")]
    words += ["--base", str(tmp_path / "old"), "--out", str(tmp_path / "out")]
    in_place = ["--kind", "detools-in-place-heatshrink"]
    assert main([*words, *in_place]) == 2
    assert main([*words, "--kind", "zip"]) == 2
    in_place += ["--memory-size", "8192", "--segment-size", "512"]
    assert main([*words, *in_place, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    facts = Patch.from_json(told["patch"])
    assert facts == IN_PLACE.facts("out", OLD, (tmp_path / "out").read_bytes())
    assert told["image_length"] == len(NEW)
    (tmp_path / "out").unlink()
    assert main(words) == 0
    assert "1536 bytes of RAM" in capsys.readouterr().out
