"""What the server's unit tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.server.world import World, make_world


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[World]:
    """A server to which nothing was published."""
    world = make_world(tmp_path / "server")
    yield world
    world.means.store.close()


@pytest.fixture
def world(bare: World) -> World:
    """A server with both roots published."""
    bare.publish_roots()
    return bare
