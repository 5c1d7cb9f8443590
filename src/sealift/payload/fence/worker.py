"""Inside the fence: one delta made, or one checked, by a process that does only that.

The request comes by standard input, one line of JSON; progress and the result go out by
standard output, a line each. Before it does anything the process puts limits on itself
(address space, CPU time, file sizes, open files, no core files), becomes nice, and
arranges to be killed when its parent is gone. Its scratch files have no names: they
vanish with it. What is plain of a sealed image is in memory files only, if at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from sealift.core.container import open_head
from sealift.core.delta import Base
from sealift.core.errors import (
    DeltaCrashedError,
    DeltaMemoryError,
    DeltaWrongError,
    FormatError,
    LimitError,
    PayloadError,
    SealiftError,
    SpaceError,
)
from sealift.core.mcu import PATCH_MAX
from sealift.core.payload import check_frame, open_frame
from sealift.core.types import Artifact, Container, Patch
from sealift.payload import mcu
from sealift.payload.delta.make import make_delta
from sealift.payload.fence.job import THREADS, Job, SealWith, Source, report_to_json
from sealift.payload.fence.sources import open_images, plain_view, scratch_file
from sealift.payload.images import exactly, opened
from sealift.payload.sealing import seal_container

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.payload.delta.make import Report
    from sealift.payload.images import Image

    Request = Mapping[str, Any]

NICE: Final = 10
_FILES: Final = 64
_SCRATCH_PART: Final = 8
"""Of the memory, what each of two files may hold of a delta to a sealed image: frames,
and the container before it is sealed."""
_LINE_MAX: Final = 1 << 20


def main(command: str) -> int:
    """Do what the request says; the exit status, 0 also for an error that was told."""
    request = json.loads(sys.stdin.buffer.readline(_LINE_MAX))
    _fence(request["limits"])
    _die_with(sys.stdin.fileno())
    try:
        told = {"done": _COMMANDS[command](request)}
    except SealiftError as error:
        told = {"error": error.to_json()}
    except MemoryError:
        told = {"error": DeltaMemoryError("delta: out of memory").to_json()}
    except OSError as error:
        told = {"error": SpaceError(f"delta: {error.strerror or error}").to_json()}
    except Exception as error:  # noqa: BLE001 -- no traceback reaches a user
        kind = type(error).__name__
        told = {"error": DeltaCrashedError(f"delta: {kind}: {error}").to_json()}
    _tell(told)
    return 0


def _tell(line: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


# ── the fence ────────────────────────────────────────────────────────────────────────
def _fence(limits: Mapping[str, int]) -> None:
    """Limits from here on; what is over them fails, or ends the process."""
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory"]),
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(
            kind, (value, hard if kind == resource.RLIMIT_CPU else value)
        )
    os.nice(NICE)


def _die_with(life: int) -> None:
    """Ask the kernel for SIGKILL when the other end of ``life`` closes.

    Only the parent holds it, so it closes when the parent ends, however that happens.
    """
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([life], [], [], 0)[0]:  # it closed before this was said
        os.kill(os.getpid(), signal.SIGKILL)


# ── make ─────────────────────────────────────────────────────────────────────────────
def _make(request: Request) -> Mapping[str, object]:
    job = Job.from_json(request["job"])
    job.check()
    secret = bool(job.base.content_key or job.new.content_key)
    room = job.limits.memory // _SCRATCH_PART if secret else None
    with (
        open_images((job.base, job.new), job.limits.memory) as ((base, new), memory),
        scratch_file(room) as spool,
        Path(request["out"]).open("xb") as out,
        scratch_file(room) as plain,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        report = make_delta(
            base,
            new,
            out=plain if job.seal else out,
            spool=spool,
            limits=replace(job.limits, memory=memory - 2 * (room or 0)),
            quality=job.quality,
            segment_size=job.segment_size,
            apply=pool.map,
            progress=_Progress(),
        )
        if job.seal:
            report = _sealed(report, plain, out, job.seal)
        out.flush()
        os.fsync(out.fileno())
    return report_to_json(_measured(report))


def _sealed(report: Report, plain: BinaryIO, out: BinaryIO, seal: SealWith) -> Report:
    packed = report.packed
    plain.seek(0)
    sealed = seal_container(
        packed.container("delta"),
        plain,
        out,
        image_sha256=packed.image_sha256,
        content_key=seal.content_key,
        salt=seal.salt,
    )
    facts = replace(packed, length=sealed.length, sha256=sealed.sha256)
    return replace(report, packed=facts)


def _measured(report: Report) -> Report:
    cpu, memory = _cost()
    return replace(report, cpu_seconds=cpu, memory=memory)


def _cost() -> tuple[float, int]:
    """CPU seconds so far, and the peak of memory in bytes.

    ``getrusage`` tells the peak of whoever started this process, if that is higher.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    status = Path("/proc/self/status").read_text("ascii")
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return usage.ru_utime + usage.ru_stime, int(peak.split()[1]) << 10


class _Progress:
    """Tells of progress when a step begins, and with every percent of it."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def __call__(self, step: str, done: int, total: int) -> None:
        now = step, done * 100 // max(total, 1)
        if now != self._last:
            self._last = now
            _tell({"step": step, "done": done, "total": total})


# ── verify ───────────────────────────────────────────────────────────────────────────
def _verify(request: Request) -> Mapping[str, object]:
    """Rebuild the image as a device does, by the code a device has, and compare."""
    artifact = Artifact.from_json(request["artifact"])
    container = Container.from_json(request["container"])
    key = request["content_key"] and bytes.fromhex(request["content_key"])
    base = Source.from_json(request["base"])
    try:
        with (
            open_images((base,), request["limits"]["memory"]) as ((image,), _),
            opened(Path(request["delta"])) as file,
        ):
            facts, view = plain_view(file, container, key, artifact.sha256)
            _rebuild(artifact, facts, view, image)
    except (PayloadError, FormatError) as error:
        raise DeltaWrongError(f"delta: it does not decode: {error}") from error
    cpu, memory = _cost()
    return {"cpu_seconds": cpu, "memory": memory}


def _rebuild(
    artifact: Artifact, container: Container, delta: Image, image: Image
) -> None:
    base, whole, tell = (
        Base(image.read_at, container.base_length),
        sha256(),
        _Progress(),
    )
    head = open_head(delta.read_at, artifact, container)
    for segment in head.segments():
        raw = delta.read_at(segment.frame_offset, segment.frame_length)
        whole.update(open_frame(check_frame(segment, raw), base))
        tell("checking", segment.offset + segment.length, artifact.length)
    if whole.digest() != artifact.sha256 or delta.length != container.length:
        raise DeltaWrongError("delta: what it decodes to is not the image")


# ── patches for microcontrollers ─────────────────────────────────────────────────────
def _patch(request: Request) -> Mapping[str, object]:
    """Make a patch of two whole images; its facts."""
    recipe = mcu.Recipe.from_json(request["recipe"])
    base, new = _both(request)
    raw = mcu.make(base, new, recipe)
    with Path(request["out"]).open("xb") as out:
        out.write(raw)
        out.flush()
        os.fsync(out.fileno())
    return recipe.facts(request["name"], base, raw).to_json()


def _apply_patch(request: Request) -> Mapping[str, object]:
    """Apply it, by the library that made it and by the decoder gateways have."""
    base, new = _both(request)
    with opened(Path(request["out"])) as file:
        raw = _whole(file)
    mcu.check(base, raw, Patch.from_json(request["patch"]), new)
    return {}


def _both(request: Request) -> tuple[bytes, bytes]:
    sources = [Source.from_json(request[side]) for side in ("base", "new")]
    with open_images((sources[0], sources[1]), request["limits"]["memory"]) as (it, _):
        return _whole(it[0]), _whole(it[1])


def _whole(image: Image) -> bytes:
    if image.length > PATCH_MAX:
        raise LimitError("patch: an image is too large", length=image.length)
    return exactly(image, 0, image.length)


_COMMANDS: Final = {
    "make": _make,
    "verify": _verify,
    "patch": _patch,
    "apply-patch": _apply_patch,
}
