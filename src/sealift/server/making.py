"""Deltas made beside everything else: one at a time, in the order of their worth.

A row is taken with a lease that is renewed while the work runs. When it is not ours any
more (an operator cancelled it) or the server stops, the work is given up at once. The
work itself is done elsewhere, on no thread that answers a device.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sealift.core.errors import DeltaCrashedError, SealiftError
from sealift.server.domain.deltas import useful
from sealift.server.services import deltas
from sealift.server.services.audit import SYSTEM

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from sealift.core.types import Container, Patch
    from sealift.server.ports import Delta, DeltaMaker, Made, Means, Task

__all__ = ["Making"]

LEASE = timedelta(seconds=60)
"""How long a row is held without word of its maker."""
RENEW_SECONDS = 5.0
IDLE_SECONDS = 2.0
_PIECE = 256 * 1024
_log = logging.getLogger("sealift.server")


@dataclass(slots=True)
class Making:
    """Takes wanted deltas and has them made, for ever.

    ``write`` runs something on the writer and awaits it. ``progress`` is what is under
    way: its step and per cent, by number.
    """

    means: Means
    maker: DeltaMaker
    write: Callable[..., Awaitable[Any]]
    owner: str
    progress: dict[int, tuple[str, int]] = field(default_factory=dict)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                row = await self.write(self._claim)
                if row is not None:
                    await self._one(row)
                    continue
            except SealiftError as error:
                _log.error("deltas: %s [%s]", error, error.code)
            await asyncio.sleep(IDLE_SECONDS)

    async def _one(self, row: Delta) -> None:
        """One row to whatever its end is."""
        try:
            made = await self._made(row)
        except asyncio.CancelledError:
            await self.write(self._give_back, row)
            raise
        except SealiftError as error:
            await self._failed(row, error)
            return
        finally:
            self.progress.pop(row.number, None)
        try:
            await self._keep(row, made)
        except SealiftError as error:
            await self._failed(row, error)
        finally:
            _remove(made)

    async def _made(self, row: Delta) -> Made:
        """The delta; given up when the row is not ours any more, or we are cancelled.

        Raises:
            SealiftError: it was not made.
        """
        means, stop = self.means, threading.Event()
        task = deltas.task_of(means.store.reader, means.payload, means.content, row)
        work = asyncio.create_task(asyncio.to_thread(self._work, task, stop))
        try:
            while not (await asyncio.wait({work}, timeout=RENEW_SECONDS))[0]:
                if not await self.write(self._renew, row):
                    stop.set()
        except BaseException:
            stop.set()
            with contextlib.suppress(SealiftError):
                _remove(await work)
            raise
        return work.result()

    def _work(self, task: Task, stop: threading.Event) -> Made:
        """On a thread of its own; whatever goes wrong there costs the delta only."""

        def progress(step: str, percent: int) -> None:
            self.progress[task.number] = step, percent

        try:
            return self.maker.make(task, progress=progress, cancelled=stop.is_set)
        except SealiftError:
            raise
        except Exception as error:
            kind = type(error).__name__
            raise DeltaCrashedError(f"the maker failed: {kind}") from error

    async def _keep(self, row: Delta, made: Made) -> None:
        """Store it if it is worth that, and note it either way."""
        if useful(made.container.length, row.full_length):
            await self._put(made.container, made.file)
            if made.patch is not None:
                await self._put(*made.patch)
        await self.write(
            deltas.finish,
            self.means,
            SYSTEM,
            row.number,
            self.owner,
            made.container,
            made.cpu_ms,
            made.patch and made.patch[0],
        )

    async def _put(self, facts: Container | Patch, file: Path) -> None:
        digest = facts.sha256.hex()
        await self.means.blobs.put(
            digest, _pieces(file), length=facts.length, sha256=digest
        )

    async def _failed(self, row: Delta, error: SealiftError) -> None:
        _log.warning("delta %d: %s [%s]", row.number, error, error.code)
        await self.write(deltas.fail, self.means, SYSTEM, row.number, self.owner, error)

    # ── the timetable: no events ─────────────────────────────────────────────────────
    def _claim(self) -> Delta | None:
        now = self.means.clock.now()
        with self.means.store.begin() as session:
            return session.deltas.claim(self.owner, now, now + LEASE)

    def _renew(self, row: Delta) -> bool:
        until = self.means.clock.now() + LEASE
        with self.means.store.begin() as session:
            return session.deltas.renew(row.number, self.owner, until)

    def _give_back(self, row: Delta) -> None:
        with self.means.store.begin() as session:
            session.deltas.give_back(row.number, self.owner)


def _remove(made: Made) -> None:
    made.file.unlink(missing_ok=True)
    if made.patch is not None:
        made.patch[1].unlink(missing_ok=True)


async def _pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as stream:
        while piece := await asyncio.to_thread(stream.read, _PIECE):
            yield piece
