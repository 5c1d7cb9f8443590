"""The head of a container: one form, every field against what was signed."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift.core.container import (
    IMAGE_MAX,
    Head,
    Header,
    Kind,
    Op,
    Segment,
    check_bounds,
    encode_head,
    open_head,
)
from sealift.core.errors import ContainerError, DigestError, LimitError, SealiftError
from sealift.core.merkle import tree_root
from sealift.core.types import Artifact, Container
from tests.containers import Case, signed
from tests.vectors.payload.generate import cases, mixed, small_delta, stored


def outcome(case: Case) -> str | None:
    """The code of the refusal; ``None`` when exactly the signed image came out."""
    try:
        image = case.read()
    except SealiftError as error:
        return error.code
    assert sha256(image).digest() == case.artifact.sha256
    return None


@pytest.mark.parametrize("case", stored(), ids=lambda case: case.name)
def test_a_published_container_reads_as_it_always_did(case: Case) -> None:
    """What was once published decodes for ever; what was refused stays refused."""
    assert outcome(case) == case.error


def test_the_vectors_are_those_of_their_generator() -> None:
    """The checked-in file and the program beside it tell of the same cases."""
    made = cases()
    assert [case.name for case in made] == [case.name for case in stored()]
    assert [outcome(case) for case in made] == [case.error for case in made]


@pytest.mark.parametrize("case", [mixed(), small_delta()], ids=["full", "delta"])
def test_every_flipped_bit_of_a_container_is_refused(case: Case) -> None:
    """C-05: there is no byte in a container that may change unnoticed."""
    for bit in range(8 * len(case.raw)):
        raw = bytearray(case.raw)
        raw[bit // 8] ^= 1 << bit % 8
        assert outcome(replace(case, raw=bytes(raw))) == "payload.digest"


@pytest.mark.parametrize("case", [mixed(), small_delta()], ids=["full", "delta"])
def test_every_flipped_bit_of_a_head_is_refused_even_if_signed(case: Case) -> None:
    """A stolen Director that signs a changed head gains nothing from any bit of it."""
    length = case.container.head_length
    for bit in range(8 * length):
        head = bytearray(case.raw[:length])
        head[bit // 8] ^= 1 << bit % 8
        assert outcome(signed(case, bytes(head), case.raw[length:])) is not None


@pytest.mark.parametrize("case", [mixed(), small_delta()], ids=["full", "delta"])
def test_every_truncation_of_a_container_is_refused(case: Case) -> None:
    """C-01, A-18: a container that ends early is refused wherever it ends."""
    for length in range(len(case.raw)):
        assert outcome(replace(case, raw=case.raw[:length])) is not None


@pytest.mark.parametrize(
    "case", [case for case in stored() if case.error is None],
    ids=lambda case: case.name,
)  # fmt: skip
def test_parse_and_write_again_gives_the_same_bytes(case: Case) -> None:
    """There is one form: full or delta, a head that parses is written back unchanged."""
    head = open_head(lambda at, n: case.raw[at : at + n], case.artifact, case.container)
    again = encode_head(head.header, head.segments())
    assert again == case.raw[: case.container.head_length]


def test_the_digest_is_checked_before_anything_is_parsed() -> None:
    """C-08: a head that is not the signed one fails by its digest, however malformed."""
    case = mixed()
    bad = replace(case, raw=b"\xff" * len(case.raw))
    with pytest.raises(DigestError):
        bad.read()


# ── bounds, before the first byte ────────────────────────────────────────────────────
FACTS: list[tuple[str, dict[str, Any], dict[str, Any], type[SealiftError]]] = [
    ("no image", {"length": 0}, {}, LimitError),
    ("image above 64 GiB", {"length": IMAGE_MAX + 1}, {}, LimitError),
    ("segments of 32 KiB", {"segment_size": 1 << 15}, {}, LimitError),
    ("segments of 2 MiB", {"segment_size": 1 << 21}, {}, LimitError),
    ("segments of an odd size", {"segment_size": 100_000}, {}, LimitError),
    ("65 537 segments", {"segment_size": 1 << 16, "length": (1 << 32) + 1}, {}, LimitError),
    ("head shorter than any", {}, {"head_length": 144 + 33 * 3 - 1}, LimitError),
    ("head longer than any", {}, {"head_length": 144 + 68 * 3 + 1}, LimitError),
    ("container shorter than its head", {}, {"length": 10}, ContainerError),
    ("frames longer than the image", {}, {"length": 1 << 40}, LimitError),
    ("base of no bytes", {}, {"base_sha256": bytes(32)}, LimitError),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "artifact", "container", "error"), FACTS)
def test_sizes_no_container_can_have_are_refused(
    sentence: str,
    artifact: dict[str, Any],
    container: dict[str, Any],
    error: type[SealiftError],
) -> None:
    """Nothing is fetched, and no memory taken, for sizes that cannot be true."""
    case = mixed()
    with pytest.raises(error):
        check_bounds(
            replace(case.artifact, **artifact), replace(case.container, **container)
        )


def test_a_sound_container_is_within_its_bounds() -> None:
    """The bounds refuse nothing a writer makes."""
    for case in stored():
        if case.error is None:
            check_bounds(case.artifact, case.container)


# ── size ─────────────────────────────────────────────────────────────────────────────
def test_memory_stays_flat_under_the_largest_head() -> None:
    """64 GiB in 65 536 segments: the 2 MiB head is read, never held (format, section 4)."""
    count, size = 65_536, 1 << 20
    digest = sha256(bytes(size)).digest()
    root = tree_root(digest for _ in range(count))
    header = Header(
        kind=Kind.FULL,
        segment_size=size,
        head_length=144 + 33 * count,
        image_length=IMAGE_MAX,
        base_length=0,
        frames_length=0,
        image_sha256=bytes(32),
        base_sha256=None,
        segment_root=root,
        count=count,
    )
    raw = header.encode() + digest * count + bytes(count)
    artifact = Artifact("x", IMAGE_MAX, bytes(32), None, size, root, (), 1, "1")
    head_sha256 = sha256(raw).digest()
    container = Container("x", len(raw), bytes(32), len(raw), head_sha256)
    tracemalloc.start()
    open_head(lambda at, n: raw[at : at + n], artifact, container)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 512 * 1024


@settings(deadline=None)
@given(st.integers(0, IMAGE_MAX), st.sampled_from([0, 1, 4095, 4096, 5000]))
def test_a_copy_from_anywhere_in_a_base_comes_back(base: int, index: int) -> None:
    """COPY reaches every place of a 64 GiB base, beyond 2^32 too."""
    size = 1 << 20
    segment = Segment(index, index * size, size, bytes(32), Op.COPY, base_offset=base)
    header = Header(
        kind=Kind.DELTA,
        segment_size=size,
        head_length=0,
        image_length=(index + 1) * size,
        base_length=IMAGE_MAX,
        frames_length=0,
        image_sha256=bytes(32),
        base_sha256=bytes(32),
        segment_root=bytes(32),
        count=index + 1,
    )
    zeros = bytes(index)
    entries = zeros + segment.entry()
    length = 144 + 32 * (index + 1) + len(entries)
    raw = header.encode() + bytes(32 * (index + 1)) + entries
    head = Head(replace(header, head_length=length), lambda at, n: raw[at : at + n])
    if base + size > IMAGE_MAX:
        with pytest.raises(ContainerError):
            list(head.segments())
    else:
        assert list(head.segments())[-1] == segment


def test_numbers_are_read_across_pieces() -> None:
    """Entries are read 64 KiB at a time; what is cut in two there is read as one."""
    count, size = 12_000, 1 << 16
    segments = [
        Segment(at, at * size, size, bytes(32), Op.COPY, base_offset=(1 << 35) + 7 * at)
        for at in range(count)
    ]
    header = Header(
        kind=Kind.DELTA,
        segment_size=size,
        head_length=144 + sum(32 + len(found.entry()) for found in segments),
        image_length=count * size,
        base_length=IMAGE_MAX,
        frames_length=0,
        image_sha256=bytes(32),
        base_sha256=bytes(32),
        segment_root=bytes(32),
        count=count,
    )
    raw = encode_head(header, segments)
    assert len(raw) == header.head_length > 144 + 32 * count + (1 << 16)
    assert list(Head(header, lambda at, n: raw[at : at + n]).segments()) == segments


@pytest.mark.parametrize("length", [0, 1, 143])
def test_a_header_cut_short_is_refused(length: int) -> None:
    """A-18: 143 bytes are no header."""
    with pytest.raises(ContainerError):
        Header.decode(mixed().raw[:length])
