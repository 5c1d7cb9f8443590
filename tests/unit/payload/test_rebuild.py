"""Images made of containers at the desk: verified, continued, healed, or refused."""

from __future__ import annotations

import errno
import fcntl
import random
from io import BytesIO
from pathlib import Path

import pytest

from sealift.core.container import segment_count
from sealift.core.errors import (
    BusyError,
    DigestError,
    FormatError,
    InvalidConfigError,
    PatchError,
    PayloadError,
    SpaceError,
)
from sealift.core.packer import pack_full
from sealift.payload.draft import Nowhere, draft, require_free, translated
from sealift.payload.making import facts_of
from sealift.payload.rebuild import Source, check_base, rebuild
from tests.unit.payload.filesystems import reader
from tests.unit.payload.images import Bytes, code, delta, edited, noise
from tests.unit.payload.vectors import Vector, vectors

MIB = 1 << 20
OLD = code(1, 3 * MIB + 99)
NEW = edited(OLD, 2, 30)
COUNT = segment_count(len(NEW), MIB)


def full_of(image: bytes) -> Source:
    out = BytesIO()
    packed = pack_full(reader(image), len(image), spool=BytesIO(), out=out, preset=1)
    return Source(reader(out.getvalue()), facts_of(packed, "x.full"))


@pytest.fixture(scope="module")
def made() -> Source:
    raw, report = delta(OLD, NEW)
    return Source(reader(raw), facts_of(report.packed, "x.delta"))


@pytest.fixture(scope="module")
def full() -> Source:
    return full_of(NEW)


def spoilt(base: bytes) -> bytes:
    """A base with one bit changed in every 256 KiB."""
    raw = bytearray(base)
    for at in range(1000, len(raw), 1 << 18):
        raw[at] ^= 1
    return bytes(raw)


def test_an_image_comes_out(made: Source, tmp_path: Path) -> None:
    """Delta and base make the new image, under its name, and no draft stays."""
    base = check_base(Bytes(OLD), made.facts)
    with draft(tmp_path / "new", len(NEW)) as target:
        done = rebuild(made, base, target)
        assert not (tmp_path / "new").exists()
        target.finish(tmp_path / "new")
    assert base.pristine
    assert (tmp_path / "new").read_bytes() == NEW
    assert (done.made, done.kept, done.repaired) == (COUNT, 0, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_run_that_was_stopped_goes_on(made: Source, tmp_path: Path) -> None:
    """What is there and right is kept, whoever wrote it; what is wrong is not."""
    (tmp_path / "new.part").write_bytes(NEW[: 2 * MIB] + b"garbage")
    base = check_base(Bytes(OLD), made.facts)
    with draft(tmp_path / "new", len(NEW)) as target:
        done = rebuild(made, base, target)
        target.finish(tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == NEW
    assert done.kept == 2
    assert done.made == COUNT - 2


def test_a_longer_base_serves(made: Source) -> None:
    """A partition is longer than the image in it; what is behind it is not read."""
    base = check_base(Bytes(OLD + b"tail"), made.facts)
    assert base.pristine
    rebuild(made, base, Nowhere())


def test_a_shorter_base_is_refused(made: Source) -> None:
    """It cannot be the one."""
    with pytest.raises(PatchError, match="delta starts from"):
        check_base(Bytes(OLD[:-1]), made.facts)


def test_a_modified_base_is_healed(made: Source, full: Source) -> None:
    """From the full container, and only what the change spoilt."""
    base = check_base(Bytes(spoilt(OLD)), made.facts)
    assert not base.pristine
    done = rebuild(made, base, Nowhere(), full)
    assert done.repaired > 0
    assert 0 < done.repair_bytes < full.facts.container.length


def test_a_modified_base_without_a_full_container_is_an_error(made: Source) -> None:
    """With the way out."""
    base = check_base(Bytes(spoilt(OLD)), made.facts)
    with pytest.raises(DigestError, match="does not come out") as caught:
        rebuild(made, base, Nowhere())
    assert "--full" in (caught.value.hint or "")


def test_only_the_full_container_of_this_image_heals(made: Source) -> None:
    """Not another image's, and not a delta."""
    base = check_base(Bytes(spoilt(OLD)), made.facts)
    with pytest.raises(DigestError, match="another image"):
        rebuild(made, base, Nowhere(), full_of(b"another image"))
    with pytest.raises(PatchError, match="is a delta"):
        rebuild(made, base, Nowhere(), made)


def test_a_broken_frame_is_not_blamed_on_the_base(made: Source, full: Source) -> None:
    """Its digest is wrong, so it is refused, and not healed in silence."""

    def broken(offset: int, length: int) -> bytes:
        found = bytearray(made.read_at(offset, length))
        end = made.facts.container.length - 1
        if offset <= end < offset + length:
            found[end - offset] ^= 1
        return bytes(found)

    base = check_base(Bytes(OLD), made.facts)
    with pytest.raises(DigestError, match="frame is not the signed one"):
        rebuild(Source(broken, made.facts), base, Nowhere(), full)


def test_a_full_container_needs_no_base(full: Source) -> None:
    """One op for each segment."""
    assert rebuild(full, None, Nowhere()).made == COUNT


def test_a_delta_without_base_is_an_error(made: Source) -> None:
    """Not a crash."""
    with pytest.raises(PatchError, match="needs a base"):
        rebuild(made, None, Nowhere())


SOUND = {vector.name: vector for vector in vectors() if vector.error is None}


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector.name)
def test_published_containers_end_as_published(vector: Vector) -> None:
    """Sound ones give their image, hostile ones the error that every reader gives."""
    base = None
    if vector.base:
        whole = SOUND[vector.base]
        keep = _Kept()
        rebuild(Source(reader(whole.raw), whole.facts), None, keep)
        base = check_base(Bytes(bytes(keep.raw)), vector.facts)
    source = Source(reader(vector.raw), vector.facts)
    if vector.error is None:
        rebuild(source, base, Nowhere())
        return
    with pytest.raises((PayloadError, FormatError)) as caught:
        rebuild(source, base, Nowhere())
    assert caught.value.code == vector.error


class _Kept(Nowhere):
    """An image that is taken in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.raw = bytearray()

    def write_at(self, offset: int, data: bytes) -> None:
        super().write_at(offset, data)
        self.raw += data


def test_what_is_written_is_read_back(full: Source, tmp_path: Path) -> None:
    """A disk that lies about what it wrote is found out."""
    with draft(tmp_path / "new", len(NEW)) as target:
        write = target.write_at

        def lying(offset: int, data: bytes) -> None:
            write(offset, data[:-1] + b"?" if offset == MIB else data)

        target.write_at = lying  # type: ignore[method-assign]
        with pytest.raises(DigestError, match="not the one of the container"):
            rebuild(full, None, target)
    assert not (tmp_path / "new").exists()


# ── drafts ───────────────────────────────────────────────────────────────────────────
def test_a_taken_name_is_refused(tmp_path: Path) -> None:
    """Also a dangling link; nothing is written through it."""
    (tmp_path / "new").symlink_to("nowhere")
    with pytest.raises(InvalidConfigError, match="exists already"):
        require_free(tmp_path / "new")
    with pytest.raises(InvalidConfigError), draft(tmp_path / "new", 1):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_draft_that_is_a_link_is_refused(tmp_path: Path) -> None:
    """What it leads to is not touched."""
    (tmp_path / "precious").write_bytes(b"keep")
    (tmp_path / "new.part").symlink_to("precious")
    with pytest.raises(InvalidConfigError), draft(tmp_path / "new", 1):
        pass
    assert (tmp_path / "precious").read_bytes() == b"keep"


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    """The second one is told, and harms nothing."""
    with (tmp_path / "new.part").open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(BusyError), draft(tmp_path / "new", 1):
            pass


def test_a_name_taken_meanwhile_is_kept(tmp_path: Path) -> None:
    """The file that came first stays as it is; so does the draft."""
    with (
        pytest.raises(InvalidConfigError, match="cannot be written"),
        draft(tmp_path / "new", 4) as target,
    ):
        (tmp_path / "new").write_bytes(b"first")
        target.finish(tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == b"first"
    assert (tmp_path / "new.part").exists()


def test_a_full_disk_is_a_matter_of_space() -> None:
    """So that a human knows what to do."""
    found = translated(Path("new"), OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(found, SpaceError)
    assert isinstance(
        translated(Path("x"), OSError(errno.EACCES, "no")), InvalidConfigError
    )


def test_random_starts_all_end_the_same(made: Source, tmp_path: Path) -> None:
    """Whatever lies in the draft: the image comes out."""
    chance = random.Random(6)
    base = check_base(Bytes(OLD), made.facts)
    for number in range(5):
        name = tmp_path / f"new-{number}"
        part = tmp_path / f"new-{number}.part"
        part.write_bytes(noise(number, chance.randrange(2 * len(NEW))))
        with draft(name, len(NEW)) as target:
            rebuild(made, base, target)
            target.finish(name)
        assert name.read_bytes() == NEW
