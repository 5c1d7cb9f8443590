"""The composition root: adapters, faces and background work of one server process.

Reads run where they are asked for, on one read-only connection; writes run one after
the other on a thread of their own, so that a commit never holds up a poll.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from sealift.core.errors import SealiftError
from sealift.payload.delta.make import Limits, Quality
from sealift.server import jobs
from sealift.server.adapters.files import FileBlobs
from sealift.server.adapters.maker import ProcessMaker, emptied
from sealift.server.adapters.sqlite import SqliteStore
from sealift.server.api import est
from sealift.server.api.auth import RateLimiter
from sealift.server.api.device import DeviceFace
from sealift.server.api.est import EstFace
from sealift.server.api.operator import OperatorFace
from sealift.server.directory import making as directory_making
from sealift.server.directory import open_directory
from sealift.server.making import Making
from sealift.server.ports import Means, PayloadPolicy
from sealift.server.services import accounts
from sealift.server.services.audit import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.types import ASGIApp, Receive, Scope, Send

    from sealift.server.config import Config, Layout
    from sealift.server.directory import Opened
    from sealift.server.ports import Chance, Clock

__all__ = ["Server", "SystemChance", "SystemClock", "build", "create", "open_means"]

SEEN_SECONDS = 5
JOBS_SECONDS = 30

_log = logging.getLogger("sealift.server")
T = TypeVar("T")


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """UTC, whole seconds."""
        return datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 - a clock


class SystemChance:
    """The machine's source of unpredictable bytes."""

    def token_bytes(self, count: int) -> bytes:
        """``count`` bytes nobody can guess."""
        return secrets.token_bytes(count)


def create(root: Path, config: Config, clock: Clock, chance: Chance) -> str:
    """Make a new server directory; the operator token, which is kept nowhere.

    Raises:
        InvalidConfigError: something is there, or it cannot be written.
    """
    with directory_making(root, config, clock.now()) as layout:
        opened = open_directory(layout.root, clock.now())
        means = open_means(opened, clock, chance)
        token = accounts.rotate_token(means, SYSTEM)
        means.store.close()
    return token


def open_means(opened: Opened, clock: Clock, chance: Chance) -> Means:
    """Everything use cases need, over a checked directory.

    Raises:
        StateError: the database cannot be opened.
    """
    return Means(
        store=SqliteStore(opened.layout.database),
        blobs=FileBlobs(opened.layout.blobs),
        authority=opened.authority,
        clock=clock,
        chance=chance,
        director=opened.signers.director,
        image=opened.signers.image,
        content=opened.content,
        payload=_payload_policy(opened.config),
        roles=opened.config.roles,
        ecus_max=opened.config.limits.ecus,
        demo=opened.config.demo,
    )


def _payload_policy(config: Config) -> PayloadPolicy:
    return PayloadPolicy(
        deltas=config.delta.enabled,
        sealed_deltas=config.delta.sealed,
        bases=config.delta.keep,
        wait_minutes=config.delta.wait_minutes,
        must_seal=frozenset(config.payload.must_seal),
        recipes=config.mcu,
    )


@dataclass(frozen=True, slots=True)
class _Below:
    """Requests below a path go to one application, all others to another."""

    path: str
    below: ASGIApp
    others: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        mine = str(scope.get("path", "")).startswith(self.path)
        await (self.below if mine else self.others)(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Server:
    """The applications, ready to be listened on, and the work behind them."""

    means: Means
    config: Config
    layout: Layout
    device: ASGIApp
    operator: ASGIApp
    enrolment: ASGIApp
    face: DeviceFace
    writer: ThreadPoolExecutor
    making: Making
    owner: str

    async def background(self) -> None:
        """What goes on beside the faces, until cancelled."""
        async with asyncio.TaskGroup() as work:
            work.create_task(self._timetable())
            if self.config.delta.enabled:
                work.create_task(self.making.run())

    async def _timetable(self) -> None:
        """Flush what was heard of devices, and do the jobs that are due, for ever."""
        due = 0.0
        while True:
            await self._guarded(self._flush)
            if time.monotonic() >= due:
                await self._guarded(partial(jobs.run_due, self.means, self.owner))
                due = time.monotonic() + JOBS_SECONDS
            await asyncio.sleep(SEEN_SECONDS)

    def close(self) -> None:
        """Finish the last write and release everything."""
        self.writer.shutdown()
        self._flush()
        self.means.store.close()

    def _flush(self) -> None:
        seen, used = dict(self.face.seen), dict(self.face.used)
        if seen:
            self.means.store.note_seen(seen)
        if used:
            self.means.store.note_used(used)
        for sha256 in used:
            self.face.used.pop(sha256, None)
        for device_id, at in seen.items():
            if self.face.seen.get(device_id) == at:
                del self.face.seen[device_id]

    async def _guarded(self, work: Callable[[], object]) -> None:
        """Work that may fail without ending the server; it is tried again."""
        try:
            await asyncio.get_running_loop().run_in_executor(self.writer, work)
        except SealiftError as error:
            _log.error("background work failed: %s [%s]", error, error.code)


def build(opened: Opened, clock: Clock, chance: Chance) -> Server:
    """Wire everything over a checked directory.

    Raises:
        InvalidConfigError: the operator token is unset or well known. StateError: the
            database cannot be opened.
    """
    means = open_means(opened, clock, chance)
    accounts.check_stored_token(means.store.reader)
    limits, config = opened.config.limits, opened.config
    writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sealift-writer")

    async def write(use_case: Callable[..., T], *arguments: Any) -> T:
        loop = asyncio.get_running_loop()
        # Shielded: a client that goes away does not stop a change half way.
        return await asyncio.shield(loop.run_in_executor(writer, use_case, *arguments))

    owner = f"{os.getpid()}-{chance.token_bytes(8).hex()}"
    making = Making(means, _maker(opened, chance), write, owner)
    face = DeviceFace(means, write, config.poll_seconds, limits.manifest_bytes)
    operator = OperatorFace(
        means, write, config, version("sealift"), face.seen, making.progress
    )
    devices = face.app(
        RateLimiter(limits.device_rate, time.monotonic), limits.connections
    )
    enrolment = EstFace(means, write).app(
        RateLimiter(limits.enrolment_rate, time.monotonic), limits.connections
    )
    return Server(
        means=means,
        config=config,
        layout=opened.layout,
        device=_Below(est.PREFIX + "/", enrolment, devices),
        enrolment=enrolment,
        operator=operator.app(
            RateLimiter(limits.operator_rate, time.monotonic), limits.connections
        ),
        face=face,
        writer=writer,
        making=making,
        owner=owner,
    )


def _maker(opened: Opened, chance: Chance) -> ProcessMaker:
    settings, layout = opened.config.delta, opened.layout
    return ProcessMaker(
        blobs=layout.blobs,
        scratch=emptied(layout.scratch),
        limits=Limits(settings.memory_max, settings.seconds_max),
        quality=Quality(settings.quality),
        chance=chance,
    )
