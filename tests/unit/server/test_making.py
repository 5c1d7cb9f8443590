"""The maker's loop: leases, cancelling, stopping, and what becomes of a result."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sealift.core.errors import DeltaCancelledError, EngineError
from sealift.core.types import Container
from sealift.server import making
from sealift.server.making import Making
from sealift.server.ports import Delta, Made, Task
from sealift.server.services import deltas
from tests.unit.server.fleet import Fleet, full_length, two_releases
from tests.unit.server.world import OPERATOR, START, World

BODY = b"delta " * 20


@dataclass
class SetMaker:
    """A maker whose every delta is the same bytes, unless told to fail or to linger."""

    scratch: Path
    body: bytes = BODY
    error: Exception | None = None
    lingers: bool = False
    begun: threading.Event = field(default_factory=threading.Event)
    tasks: list[Task] = field(default_factory=list)

    def make(
        self,
        task: Task,
        *,
        progress: Callable[[str, int], None],
        cancelled: Callable[[], bool],
    ) -> Made:
        self.tasks.append(task)
        progress("comparing", 50)
        self.begun.set()
        while self.lingers:
            time.sleep(0.01)
            if cancelled():
                raise DeltaCancelledError("delta: cancelled")
        if self.error is not None:
            raise self.error
        file = self.scratch / f"{task.number}.delta"
        file.write_bytes(self.body)
        digest = hashlib.sha256(self.body).digest()
        base = task.base.artifact
        facts = Container(
            task.name, len(self.body), digest, 32, bytes(32), base.length, base.sha256
        )
        return Made(facts, file, 7)


@dataclass
class Scene:
    """A world with one wanted delta and a maker in its own hands."""

    world: World
    fleet: Fleet
    maker: SetMaker
    work: Making

    @property
    def row(self) -> Delta:
        (found,) = self.fleet.rows()
        return found

    async def until(self, ready: Callable[[], object]) -> None:
        """Let the loop run until something holds, at most ten seconds."""
        running = asyncio.create_task(self.work.run())
        deadline = time.monotonic() + 10
        while not ready() and not running.done():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert ready()


@pytest.fixture
def scene(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(making, "RENEW_SECONDS", 0.02)
    monkeypatch.setattr(making, "IDLE_SECONDS", 0.01)
    fleet, _ = two_releases(world)

    async def at_once(use_case: Callable[..., Any], *arguments: Any) -> Any:
        return use_case(*arguments)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    maker = SetMaker(scratch)
    return Scene(world, fleet, maker, Making(world.means, maker, at_once, "me"))


def test_made_stored_and_noted(scene: Scene) -> None:
    """The bytes are a blob, the row is ready, scratch is empty."""
    asyncio.run(scene.until(lambda: scene.row.state == "ready"))
    assert scene.row.cpu_ms == 7
    assert scene.row.container is not None
    digest = scene.row.container.sha256.hex()
    assert b"".join(scene.world.means.blobs.read(digest, 0, len(BODY))) == BODY
    assert list(scene.maker.scratch.iterdir()) == []
    assert len(scene.maker.tasks) == 1
    assert scene.world.leaves()[-1] == "delta.state"


def test_useless_ones_take_no_room(scene: Scene, tmp_path: Path) -> None:
    """A delta that saves too little is not stored at all."""
    scene.maker.body = b"x" * full_length("1.1.0")
    asyncio.run(scene.until(lambda: scene.row.state == "useless"))
    assert list((tmp_path / "server/blobs").iterdir()) == []
    assert list(scene.maker.scratch.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(EngineError("boom"), "delta.engine"), (ZeroDivisionError(), "delta.crashed")],
)
def test_a_crash_costs_the_delta_only(
    scene: Scene, error: Exception, code: str
) -> None:
    """Any error of the maker is the row's reason, and the loop goes on."""
    scene.maker.error = error
    asyncio.run(scene.until(lambda: scene.row.reason is not None))
    assert scene.row.state == "wanted"
    assert scene.row.reason is not None
    assert code in scene.row.reason
    scene.maker.error = None
    scene.world.clock.forward(minutes=1)
    asyncio.run(scene.until(lambda: scene.row.state == "ready"))


def test_the_lease_is_renewed(scene: Scene) -> None:
    """Work that takes longer than a lease keeps its row."""
    scene.maker.lingers = True
    world = scene.world

    def others_get_nothing() -> bool:
        if scene.row.state == "making":
            world.clock.forward(seconds=1)
            now = world.clock.now()
            with world.means.store.begin() as session:
                assert session.deltas.claim("other", now, now) is None
        return world.clock.now() > START + 2 * making.LEASE

    asyncio.run(scene.until(others_get_nothing))
    assert scene.work.progress == {}


def test_cancelled_by_an_operator(scene: Scene) -> None:
    """The maker is told within a renewal; the row stays as the operator left it."""
    scene.maker.lingers = True

    def stopped() -> bool:
        if scene.maker.begun.is_set() and scene.row.state == "making":
            assert scene.work.progress == {scene.row.number: ("comparing", 50)}
            deltas.cancel(scene.world.means, OPERATOR, scene.row.number)
        return scene.row.state == "cancelled" and not scene.work.progress

    asyncio.run(scene.until(stopped))
    assert scene.row.state == "cancelled"
    assert scene.row.reason == "by an operator"


def test_stopping_gives_the_row_back(scene: Scene) -> None:
    """A server that stops ends the work and counts it as not begun."""
    scene.maker.lingers = True
    asyncio.run(scene.until(scene.maker.begun.is_set))
    assert (scene.row.state, scene.row.attempts) == ("wanted", 0)
    scene.maker.lingers = False
    asyncio.run(scene.until(lambda: scene.row.state == "ready"))


def test_an_image_that_is_gone(scene: Scene) -> None:
    """A pair whose settings or images do not allow it fails and is not tried for ever."""
    with scene.world.means.store.begin() as session:
        session.deltas.add(Delta(**{**_fields(scene.row), "base_sha256": "ab" * 32}))
    rows = scene.fleet.rows

    def given_up() -> bool:
        scene.world.clock.forward(seconds=20)
        return rows()[1].state == "failed"

    asyncio.run(scene.until(given_up))
    assert rows()[0].state == "ready"


def _fields(row: Delta) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Delta.__slots__}
