"""Deltas behind the fence: what comes out is checked, what goes wrong costs a delta."""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from sealift.core.encryption import Opener, payload_context
from sealift.core.errors import (
    DecryptError,
    DeltaCancelledError,
    DeltaCrashedError,
    DeltaMemoryError,
    DeltaTimeError,
    DigestError,
    InvalidConfigError,
    RefusedError,
)
from sealift.core.packer import pack_full
from sealift.payload.delta.match import Strategy
from sealift.payload.fence.process import Job, Limits, SealWith, Source, run
from sealift.payload.fence.sources import open_images, scratch_file
from sealift.payload.images import FileImage
from sealift.payload.sealing import seal_container
from tests.unit.payload.images import Bytes, artifact_of, code, edited, noise, rebuilt

MIB = 1 << 20
KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
SALT = bytes(24)
LIMITS = Limits(memory=1 << 30, seconds=60)

OLD = code(1, 300_000)
NEW = edited(OLD, 1, 30)


def plain(directory: Path, name: str, image: bytes) -> Source:
    """An image as it is."""
    path = directory / name
    path.write_bytes(image)
    return Source(path)


def full(directory: Path, name: str, image: bytes, key: bytes | None = None) -> Source:
    """A full container of an image, sealed if there is a key."""
    out = io.BytesIO()
    packed = pack_full(Bytes(image).read_at, len(image), spool=io.BytesIO(), out=out)
    container, path = packed.container(name), directory / name
    with path.open("wb") as file:
        if key is None:
            file.write(out.getvalue())
        else:
            container = seal_container(
                container,
                io.BytesIO(out.getvalue()),
                file,
                image_sha256=packed.image_sha256,
                content_key=key,
                salt=SALT,
            )
    return Source(path, artifact_of(packed), container, key)


def job(tmp_path: Path, **changes: object) -> Job:
    """A job of two small images."""
    found = Job(plain(tmp_path, "old", OLD), plain(tmp_path, "new", NEW), LIMITS)
    return replace(found, **changes)  # type: ignore[arg-type]


def children() -> list[int]:
    """The processes of ours that run now."""
    tasks = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for path in tasks for pid in path.read_text().split()]
    return [
        pid
        for pid in pids
        if b"sealift.payload" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def only_sources(directory: Path) -> bool:
    """Whether nothing is left beside what a test put there."""
    return {path.name for path in directory.iterdir()} == {"old", "new"}


def test_delta_of_two_files(tmp_path: Path) -> None:
    """The file is the delta the report tells of, and the decoder rebuilds the image."""
    out = tmp_path / "new.delta"
    steps = set[str]()
    report = run(job(tmp_path), out, progress=lambda step, *_: steps.add(step))
    raw = out.read_bytes()
    assert rebuilt(raw, report.packed, OLD) == NEW
    assert report.packed.sha256 == sha256(raw).digest()
    assert report.packed.image_sha256 == sha256(NEW).digest()
    assert steps == {"reading", "matching", "packing", "checking"}
    assert 0 < report.cpu_seconds < 30
    assert 10 * MIB < report.memory < LIMITS.memory
    assert {path.name for path in tmp_path.iterdir()} == {"old", "new", "new.delta"}
    assert not children()


def test_delta_of_containers(tmp_path: Path) -> None:
    """Full containers serve as well as images: the same delta."""
    straight = run(job(tmp_path), tmp_path / "a.delta")
    sources = full(tmp_path, "old.full", OLD), full(tmp_path, "new.full", NEW)
    packed = run(Job(*sources, LIMITS), tmp_path / "b.delta")
    assert packed.packed == straight.packed
    assert (tmp_path / "a.delta").read_bytes() == (tmp_path / "b.delta").read_bytes()


def test_delta_of_sealed_containers(tmp_path: Path) -> None:
    """Sealed sources give a sealed delta: it opens with the key, for that image only."""
    old = full(tmp_path, "old", OLD, OTHER_KEY)
    new = full(tmp_path, "new", NEW, KEY)
    out = tmp_path / "x.delta.sealed"
    report = run(Job(old, new, LIMITS, seal=SealWith(KEY, b"\7" * 24)), out)
    raw, packed = out.read_bytes(), report.packed
    assert (len(raw), sha256(raw).digest()) == (packed.length, packed.sha256)
    context = payload_context(packed.image_sha256, packed.head_sha256)
    opened = Opener(KEY, context, raw[:56], len(raw)).open(0, raw[56:])
    assert rebuilt(opened, replace(packed, length=len(opened)), OLD) == NEW
    assert OLD[:4096] not in raw


@pytest.mark.parametrize("memory", [4 * len(OLD), len(OLD)])
def test_sealed_images_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    """Sealed images are unpacked into memory, or decoded as read; never onto a disk."""
    monkeypatch.chdir(tmp_path)
    sources = full(tmp_path, "old", OLD, KEY), full(tmp_path, "new", NEW, KEY)
    with open_images(sources, memory) as (images, left):
        assert [image.read_at(0, image.length) for image in images] == [OLD, NEW]
        assert [image.read_at(image.length - 1, 9) for image in images] == [
            OLD[-1:],
            NEW[-1:],
        ]
        assert images[1].read_at(70_000, 10) == NEW[70_000:70_010]
        held = sum(i.length for i in images if isinstance(i, FileImage))
        assert left == memory - held
        assert bool(held) is (memory > 2 * len(OLD))
        descriptors = Path("/proc/self/fd").iterdir()
        targets = {os.readlink(path) for path in descriptors if path.is_symlink()}  # noqa: PTH115 -- of a pipe it is no path
    here = {name for name in targets if name.startswith(str(tmp_path))}
    assert here == {str(source.path) for source in sources}


def test_secret_scratch_has_an_end() -> None:
    """Memory for what must not reach a disk is bounded, and says so."""
    with scratch_file(10) as file:
        file.write(b"12345678")
        file.seek(0)
        assert file.read() == b"12345678"
        with pytest.raises(DeltaMemoryError):
            file.write(b"345")
        file.write(b"90")


def test_plain_delta_of_a_sealed_base_is_refused(tmp_path: Path) -> None:
    """Its differences would show the base to everybody."""
    found = job(tmp_path, base=full(tmp_path, "old", OLD, KEY))
    with pytest.raises(RefusedError):
        run(found, tmp_path / "x.delta")


@pytest.mark.parametrize("which", ["base", "new"])
def test_wrong_key(tmp_path: Path, which: str) -> None:
    """A source that does not open is told apart from a delta that did not work out."""
    wrong = replace(full(tmp_path, "sealed", OLD, KEY), content_key=OTHER_KEY)
    found = job(tmp_path, seal=SealWith(KEY, SALT), **{which: wrong})
    with pytest.raises(DecryptError):
        run(found, tmp_path / "x.delta")
    assert not (tmp_path / "x.delta").exists()


def test_changed_container(tmp_path: Path) -> None:
    """A source that is not the signed one is refused by its frame digests."""
    source = full(tmp_path, "old.full", OLD)
    raw = bytearray(source.path.read_bytes())
    raw[-1] ^= 1
    source.path.write_bytes(raw)
    with pytest.raises(DigestError):
        run(job(tmp_path, base=source), tmp_path / "x.delta")


def test_missing_source(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(InvalidConfigError, match="absent"):
        run(job(tmp_path, base=Source(tmp_path / "absent")), tmp_path / "x.delta")


def test_new_image_is_not_the_signed_one(tmp_path: Path) -> None:
    """A delta is compared with what was signed, not with what it says of itself."""
    # The base's facts in place of the image's: a container read as another image.
    new = full(tmp_path, "new.full", NEW)
    lie = replace(new, path=full(tmp_path, "lie.full", OLD).path)
    with pytest.raises(DigestError):
        run(job(tmp_path, new=lie), tmp_path / "x.delta")


# ── what ends a process ──────────────────────────────────────────────────────────────
def slow(tmp_path: Path, limits: Limits = LIMITS, size: int = 4 * MIB) -> Job:
    """A job that takes a while."""
    old = code(2, size)
    return Job(
        plain(tmp_path, "old", old), plain(tmp_path, "new", edited(old, 3, 500)), limits
    )


def strike(act: Callable[[int], None], step: str) -> Callable[[str, int, int], None]:
    """Do something to the process when it tells of a step for the first time."""
    struck: list[str] = []

    def progress(now: str, _done: int, _total: int) -> None:
        if now == step and not struck:
            struck.append(now)
            for pid in children():
                act(pid)

    return progress


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
@pytest.mark.parametrize("step", ["matching", "packing"])
def test_killed(tmp_path: Path, number: signal.Signals, step: str) -> None:
    """A process that is killed or crashes costs the delta and leaves nothing."""
    found = slow(tmp_path)
    with pytest.raises(DeltaCrashedError, match=number.name):
        run(
            found,
            tmp_path / "x.delta",
            progress=strike(lambda pid: os.kill(pid, number), step),
        )
    assert only_sources(tmp_path)


def test_killed_while_checking(tmp_path: Path) -> None:
    """A delta that could not be checked is not published."""
    with pytest.raises(DeltaCrashedError):
        run(
            slow(tmp_path),
            tmp_path / "x.delta",
            progress=strike(lambda pid: os.kill(pid, signal.SIGKILL), "checking"),
        )
    assert only_sources(tmp_path)


def test_out_of_memory(tmp_path: Path) -> None:
    """Memory that ends in the engine is an error of its own, and no crash."""

    def starve(pid: int) -> None:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + 64 * MIB  # the engine alone is 37
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, limit))

    found = slow(tmp_path, size=16 * MIB)
    with pytest.raises(DeltaMemoryError):
        run(found, tmp_path / "x.delta", progress=strike(starve, "matching"))
    assert only_sources(tmp_path)


def test_out_of_cpu_time(tmp_path: Path) -> None:
    """A process at its limit of CPU time took too long."""

    def hurry(pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_CPU, (0, 5))

    with pytest.raises(DeltaTimeError):
        run(slow(tmp_path), tmp_path / "x.delta", progress=strike(hurry, "reading"))
    assert only_sources(tmp_path)


def test_too_long(tmp_path: Path) -> None:
    """Time is up: the process is gone at once."""
    begun = time.monotonic()
    with pytest.raises(DeltaTimeError):
        run(slow(tmp_path, replace(LIMITS, seconds=0.1)), tmp_path / "x.delta")
    assert time.monotonic() - begun < 20
    assert only_sources(tmp_path)
    assert not children()


def test_cancelled(tmp_path: Path) -> None:
    """Nobody waits any more: killed in the middle of a comparison."""
    seen: list[str] = []
    with pytest.raises(DeltaCancelledError):
        run(
            slow(tmp_path),
            tmp_path / "x.delta",
            progress=lambda step, *_: seen.append(step),
            cancel=lambda: "matching" in seen,
        )
    assert only_sources(tmp_path)
    assert not children()


def test_memory_of_large_images(tmp_path: Path) -> None:
    """Images far above the budget: the peak stays below it, and the delta is small."""
    moved = noise(1, 12 * MIB)
    for name, place in (("old", 0), ("new", 5)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 29)
            file.seek((300 << 20) + place)
            file.write(moved)
    limits = Limits(memory=240 * MIB, seconds=200)
    sources = Source(tmp_path / "old"), Source(tmp_path / "new")
    report = run(Job(*sources, limits), tmp_path / "x.delta")
    assert report.strategy is Strategy.WINDOWS
    assert report.memory < limits.memory
    assert report.packed.length < MIB


def test_no_memory_at_all(tmp_path: Path) -> None:
    """A budget no process fits into is said before one is started."""
    with pytest.raises(DeltaMemoryError):
        run(job(tmp_path, limits=Limits(memory=MIB)), tmp_path / "x.delta")


def test_dies_with_its_parent(tmp_path: Path) -> None:
    """A server that is killed leaves no process, and what it leaves can be swept."""
    slow(tmp_path)
    program = (
        "import sys; from pathlib import Path; from sealift.payload.fence.process import *;"
        "here = Path(sys.argv[1]);"
        "run(Job(Source(here / 'old'), Source(here / 'new')), here / 'x',"
        " progress=lambda step, *_: print(step, flush=True))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        while parent.stdout.readline() != b"matching\n":
            pass
        pid = int(
            Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
            .read_text()
            .split()[0]
        )
        parent.kill()
    until = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{pid}").exists()
    for left in tmp_path.glob(".delta-*"):
        shutil.rmtree(left)
    assert only_sources(tmp_path)


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """Keys are neither in what a job looks like nor in the command line."""
    found = job(tmp_path, seal=SealWith(KEY, SALT), new=full(tmp_path, "n", NEW, KEY))
    assert KEY.hex() not in repr(found)
    assert repr(KEY)[2:20] not in repr(found)
    lines: list[bytes] = []

    def look(pid: int) -> None:
        lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        lines.append(Path(f"/proc/{pid}/environ").read_bytes())

    run(found, tmp_path / "x.delta.sealed", progress=strike(look, "reading"))
    assert len(lines) == 2
    assert KEY.hex().encode() not in b"".join(lines)
    assert b"PATH=" not in lines[1]
