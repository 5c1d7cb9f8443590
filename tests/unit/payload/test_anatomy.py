"""Looking into containers: counts, maps and carriers agree with how they were made."""

from __future__ import annotations

import random
from io import BytesIO

import pytest

from sealift.core.container import Op
from sealift.core.errors import FormatError, PayloadError
from sealift.core.packer import pack_full
from sealift.payload.facts import FACTS_MAX, Facts, looks_sealed
from sealift.payload.look.anatomy import CELLS, Anatomy, Map, Tone, dissect
from sealift.payload.look.carriers import carriers
from sealift.payload.look.owners import Owners, Place
from sealift.payload.making import Quality, facts_of
from sealift.payload.rebuild import Source
from tests.unit.payload.filesystems import reader
from tests.unit.payload.images import code, delta, noise
from tests.unit.payload.vectors import Vector, vectors

MIB = 1 << 20


@pytest.fixture(scope="module")
def images() -> tuple[bytes, bytes]:
    """A base, and an image with a part copied, changed, new and zero, in this order."""
    old = code(1, 4 * MIB)
    changed = bytearray(old[MIB : 2 * MIB])
    for at in range(0, MIB, 64):
        changed[at] ^= 1
    fresh = noise(2, MIB)
    new = old[:MIB] + bytes(changed) + fresh + bytes(MIB) + old[2 * MIB : 2 * MIB + 99]
    return old, new


@pytest.fixture(scope="module")
def made(images: tuple[bytes, bytes]) -> tuple[bytes, Facts]:
    raw, report = delta(*images, quality=Quality.QUICK)
    return raw, facts_of(report.packed, "x.delta")


@pytest.fixture(scope="module")
def found(made: tuple[bytes, Facts]) -> Anatomy:
    raw, facts = made
    return dissect(reader(raw), facts)


def test_segments_and_frames_add_up(found: Anatomy, made: tuple[bytes, Facts]) -> None:
    """Every segment is counted once; frames and head are the container."""
    raw, facts = made
    shares = found.segments.values()
    assert sum(share.plain for share in shares) == facts.artifact.length
    frames = sum(share.frames for share in shares)
    assert frames + facts.container.head_length == len(raw)
    assert found.segments[Op.COPY].count == 1
    assert found.segments[Op.ZERO].count == 1
    assert found.biggest[0].offset == 2 * MIB


def test_the_map_shows_each_part(found: Anatomy) -> None:
    """Copied, changed, new, zero, each where it is."""
    cells = found.map.tones()
    parts = [cells[at * len(cells) // 4 + 8] for at in range(4)]
    assert parts == [Tone.COPIED, Tone.CHANGED, Tone.NEW, Tone.ZERO]
    assert found.map.total(Tone.ZERO) == MIB
    assert sum(found.map.total(tone) for tone in Tone) == found.map.length


def test_ops_fill_their_segments(found: Anatomy) -> None:
    """The ops of DELTA frames make up exactly the DELTA segments."""
    plain = sum(share.plain for share in found.ops.values())
    assert plain == found.segments[Op.DELTA].plain
    packed = sum(packed for _, packed in found.streams.by_name().values())
    assert 0 < packed < found.segments[Op.DELTA].frames


def test_carriers_are_who_changed(
    made: tuple[bytes, Facts], images: tuple[bytes, bytes]
) -> None:
    """New bytes cost most, changed ones some, copied ones nothing; all is shared out."""
    raw, facts = made
    names = ("copied", "changed", "new", "zero")
    owners = Owners(Place(at * MIB, MIB, name) for at, name in enumerate(names))
    shares = dict(carriers(Source(reader(raw), facts), owners))
    assert list(shares)[:2] == ["new", "changed"]
    assert shares["new"] >= MIB
    assert shares.get("copied", 0) < 100
    frames = facts.container.length - facts.container.head_length
    assert sum(shares.values()) == pytest.approx(frames, abs=200)


def test_without_owners_segments_are_named(made: tuple[bytes, Facts]) -> None:
    """By where they are."""
    raw, facts = made
    first, _ = carriers(Source(reader(raw), facts), Owners(()))[0]
    assert first == "the segment at 2.0 MiB"


# ── facts ────────────────────────────────────────────────────────────────────────────
def test_its_own_word_is_what_was_written(made: tuple[bytes, Facts]) -> None:
    """A sound container says of itself what its maker said; it is marked as hearsay."""
    raw, facts = made
    told = Facts.of_itself(reader(raw), len(raw))
    assert told.own_word
    assert told.artifact == facts.artifact
    assert told.to_json()["artifact"] == facts.to_json()["artifact"]


def test_facts_survive_their_file(made: tuple[bytes, Facts]) -> None:
    """What is written is what is read; anything else is refused."""
    from sealift.core.canonical import encode

    _, facts = made
    assert Facts.decode(encode(facts.to_json())) == facts
    for wrong in (b"", b"{}", b"[1]", b'{"schema":2}', b" " * (FACTS_MAX + 1)):
        with pytest.raises(FormatError):
            Facts.decode(wrong)


def test_other_facts_are_refused(made: tuple[bytes, Facts]) -> None:
    """A container of another image does not pass for this one."""
    raw, _ = made
    out = BytesIO()
    other = pack_full(reader(b"other"), 5, spool=BytesIO(), out=out)
    with pytest.raises((PayloadError, FormatError)):
        dissect(reader(raw), facts_of(other, "x"))


def test_only_what_may_be_sealed_looks_sealed(made: tuple[bytes, Facts]) -> None:
    """Not a plain container, and not a length that sealed files never have."""
    raw, _ = made
    assert not looks_sealed(reader(raw), len(raw))
    assert looks_sealed(reader(noise(9, 5000)), 5000)
    assert not looks_sealed(reader(noise(9, 40)), 40)


# ── lies ─────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector.name)
def test_published_containers_are_refused_or_looked_at(vector: Vector) -> None:
    """Sound ones are shown; of hostile ones either comes a picture or a PayloadError,
    against their facts and by their own word.
    """
    read_at = reader(vector.raw)
    for own_word in (False, True):
        try:
            facts = vector.facts
            if own_word:
                facts = Facts.of_itself(read_at, len(vector.raw))
            assert dissect(read_at, facts).map.length == facts.artifact.length
        except (PayloadError, FormatError):
            assert vector.error is not None


def test_five_hundred_broken_containers_are_errors(made: tuple[bytes, Facts]) -> None:
    """A flipped bit is found, wherever it is."""
    raw, facts = made
    chance = random.Random(4)
    for number in range(500):
        end = 4096 if number % 4 else len(raw)
        at, bit = chance.randrange(end), 1 << chance.randrange(8)

        def read_at(offset: int, length: int, at: int = at, bit: int = bit) -> bytes:
            found = bytearray(raw[offset : offset + length])
            if offset <= at < offset + length:
                found[at - offset] ^= bit
            return bytes(found)

        with pytest.raises((PayloadError, FormatError)):
            dissect(read_at, facts)


@pytest.mark.parametrize("length", [1, 512, 513, 1 << 20, (1 << 20) + 1, 1 << 36])
def test_a_map_has_few_cells_whatever_the_length(length: int) -> None:
    """And all of the image in them."""
    found = Map(length)
    assert len(found.cells) <= CELLS
    found.paint(0, length, Tone.NEW)
    assert found.total(Tone.NEW) == length
    assert set(found.tones(3)) == {Tone.NEW}


def test_a_byte_that_is_not_zero_shows() -> None:
    """Zero is drawn only where nothing else is."""
    found = Map(1 << 20)
    found.paint(0, 1 << 20, Tone.ZERO)
    assert set(found.tones()) == {Tone.ZERO}
    found.paint(5, 1, Tone.CHANGED)
    assert found.tones()[0] is Tone.CHANGED
