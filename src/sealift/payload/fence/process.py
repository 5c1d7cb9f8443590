"""Deltas made behind a fence: a crash there costs the delta and nothing else.

:func:`run` starts one process that makes the delta, and when that has ended a fresh one
that rebuilds the image from it with the decoder devices have. Then the delta appears
under its name. Both are limited (``worker``), get no environment, run isolated
(``python -I``) and are killed when they take too long, when nobody waits for them any
more, and when this process ends, however that happens.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sealift.core import errors
from sealift.core.errors import (
    DeltaCancelledError,
    DeltaCrashedError,
    DeltaMemoryError,
    DeltaTimeError,
    DigestError,
    InvalidConfigError,
    SealiftError,
)
from sealift.payload.delta.make import OVERHEAD, Limits, Quality, Report
from sealift.payload.fence.job import THREADS, Job, SealWith, Source, report_from_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import IO

    from sealift.payload.delta.match import Tick

__all__ = [
    "Child",
    "Job",
    "Limits",
    "Quality",
    "Report",
    "SealWith",
    "Source",
    "run",
]

_SCRATCH: Final = ".delta-"
_LINE_MAX: Final = 1 << 16
_ASKED_EVERY: Final = 0.2
"""Seconds between two looks at clock and ``cancel``."""
_LAST_SECONDS: Final = 60.0
_FILE_SPARE: Final = 16 << 20
_ENVIRONMENT: Final = {"MALLOC_ARENA_MAX": "1"}
"""Each arena of glibc takes 64 MiB of the address space that is limited."""

_CODES: Final[dict[str, type[SealiftError]]] = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SealiftError)
}


def run(
    job: Job,
    out: Path,
    *,
    progress: Tick = lambda _step, _done, _total: None,
    cancel: Callable[[], bool] = lambda: False,
) -> Report:
    """Make the delta ``out``, checked by the shipped decoder; the facts of that file.

    ``out`` appears whole or not at all, and replaces what was there; beside it is, as
    long as this runs, a directory for scratch (``.delta-…``), which holds nothing plain
    of a sealed image; it stays if this process is killed. ``progress`` also tells the
    step "checking". Of a sealed delta, length and digest in the report are those of the
    ciphertext. ``job.limits`` bounds each of both processes in memory, and both
    together in time.

    Raises:
        DeltaError: no delta came of it, and why.
        RefusedError: as :meth:`Job.check`.
        PayloadError, FormatError, ConfigError: a source is not what it should be.
        SpaceError: no room for scratch or result.
    """
    job.check()
    if job.limits.memory < OVERHEAD:
        raise DeltaMemoryError("delta: no process fits", memory=job.limits.memory)
    deadline = time.monotonic() + job.limits.seconds
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=out.parent) as name:
        scratch = Path(name)
        child = Child(job, scratch, deadline, progress, cancel)
        made = report_from_json(
            child.run("make", {"job": job.to_json(), "out": str(scratch / "delta")})
        )
        _check_base(job, made)
        cost = child.run("verify", _verify_request(job, made, scratch / "delta"))
        (scratch / "delta").replace(out)
    return replace(
        made,
        cpu_seconds=made.cpu_seconds + cost["cpu_seconds"],
        memory=max(made.memory, cost["memory"]),
    )


def _check_base(job: Job, made: Report) -> None:
    """A base that came as a container is the image its facts name, or it is refused."""
    signed = job.base.artifact
    if signed is not None and made.packed.base_sha256 != signed.sha256:
        raise DigestError("delta: the base is not the signed image")


def _verify_request(job: Job, made: Report, delta: Path) -> dict[str, object]:
    """What the fresh process compares with: signed facts, where the job has some."""
    packed = made.packed
    artifact = job.new.artifact or packed.artifact(
        "image", hardware_ids=("any",), release_counter=0, version="0"
    )
    return {
        "base": job.base.to_json(),
        "delta": str(delta),
        "artifact": artifact.to_json(),
        "container": packed.container("delta").to_json(),
        "content_key": job.seal.content_key.hex() if job.seal else None,
    }


# ── one process ──────────────────────────────────────────────────────────────────────
class Child:
    """Starts the processes of one job, one after the other, and listens to each."""

    def __init__(
        self,
        job: Job,
        scratch: Path,
        deadline: float,
        progress: Tick,
        cancel: Callable[[], bool],
    ) -> None:
        self._limits = {
            "memory": job.limits.memory,
            "cpu_seconds": THREADS * (int(job.limits.seconds) + 1),
            "file_bytes": _FILE_SPARE + max(map(_length, (job.base, job.new))),
        }
        self._scratch = scratch
        self._deadline = deadline
        self._progress = progress
        self._cancel = cancel

    def run(self, command: str, request: Mapping[str, object]) -> dict[str, Any]:
        """What the process has to say when it is done; nothing of it is left then.

        Raises:
            SealiftError: what it failed with, or how it ended.
        """
        asked = json.dumps({**request, "limits": self._limits}).encode() + b"\n"
        with _pipe() as (reader, told), _pipe() as (life, alive):
            process = subprocess.Popen(
                [sys.executable, "-IB", "-m", "sealift.payload.fence", command],
                stdin=life,
                stdout=told,
                stderr=subprocess.DEVNULL,
                cwd=self._scratch,
                env=_ENVIRONMENT,
                start_new_session=True,
            )
            with process:
                try:
                    life.close()
                    told.close()
                    return self._talk(process, asked, reader, alive)
                finally:
                    process.kill()

    def _talk(
        self,
        process: subprocess.Popen[bytes],
        request: bytes,
        reader: IO[bytes],
        alive: IO[bytes],
    ) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # how it ended tells why
            alive.write(request)
        for line in self._lines(reader):
            told = json.loads(line)
            if "done" in told and "step" not in told:
                return dict(told["done"])
            if "error" in told:
                raise _error(told["error"])
            self._progress(told["step"], told["done"], told["total"])
        raise _ended(process.wait(_LAST_SECONDS))

    def _lines(self, stdout: IO[bytes]) -> Iterator[bytes]:
        """Whole lines, until it closes its end.

        Raises:
            DeltaTimeError, DeltaCancelledError: meanwhile it is time to stop.
        """
        held = b""
        while piece := self._piece(stdout):
            *lines, held = (held + piece).split(b"\n")
            yield from lines
            if len(held) > _LINE_MAX:
                raise DeltaCrashedError("delta: the process talks nonsense")

    def _piece(self, stdout: IO[bytes]) -> bytes:
        while not select.select([stdout], [], [], _ASKED_EVERY)[0]:
            self._still_wanted()
        self._still_wanted()
        return os.read(stdout.fileno(), _LINE_MAX)

    def _still_wanted(self) -> None:
        if time.monotonic() > self._deadline:
            raise DeltaTimeError("delta: it took too long")
        if self._cancel():
            raise DeltaCancelledError("delta: cancelled")


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Both ends of a pipe, unbuffered; closed at the end if they still are not."""
    reader, writer = os.pipe()
    with open(reader, "rb", 0) as source, open(writer, "wb", 0) as sink:
        yield source, sink


def _length(source: Source) -> int:
    """Bytes of the image; 0 for a block device, which is not copied."""
    if source.artifact is not None:
        return source.artifact.length
    try:
        return source.path.stat().st_size
    except OSError as error:
        raise InvalidConfigError(
            f"{source.path} cannot be read: {error.strerror}"
        ) from error


def _error(told: Mapping[str, Any]) -> SealiftError:
    """An error as it was in the other process."""
    kind = _CODES.get(told["code"], DeltaCrashedError)
    return kind(told["message"], hint=told.get("hint"), **told.get("fields", {}))


def _ended(status: int) -> SealiftError:
    """What it means that a process ended without a word."""
    if status == -signal.SIGXCPU:
        return DeltaTimeError("delta: it took too much CPU time")
    if status < 0:
        name = signal.Signals(-status).name
        return DeltaCrashedError(f"delta: the process was ended by {name}", signal=name)
    return DeltaCrashedError("delta: the process gave up", status=status)
