"""What every secure store promises: several records change together or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift.agent.storage import Store, claim
from sealift.core.errors import StateError
from sealift.sim.flash import AFTER, BEFORE, INSIDE, Door, FlashStorage, PowerCut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.ports import Storage


@pytest.fixture(params=["files", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "memory":
        yield FlashStorage(Door())
        return
    directory = claim(str(tmp_path / "state"))
    yield Store(directory)
    os.close(directory)


def test_what_was_committed_is_read_back(storage: Storage) -> None:
    """Written, replaced, deleted, empty: bytes are bytes."""
    assert storage.read("a") is None
    storage.commit({"a": b"1", "b.json": b"", "c-%2f_": b"\x00" * 70_000})
    assert storage.read("a") == b"1"
    assert storage.read("b.json") == b""
    assert storage.read("c-%2f_") == b"\x00" * 70_000
    storage.commit({"a": b"2", "b.json": None})
    assert storage.read("a") == b"2"
    assert storage.read("b.json") is None


def test_names_are_sorted_and_filtered(storage: Storage) -> None:
    """Only names in use, by prefix, in order."""
    storage.commit({"report.2": b"x", "report.1": b"x", "root": b"x"})
    storage.commit({"root": None})
    assert list(storage.names("report.")) == ["report.1", "report.2"]
    assert list(storage.names()) == ["report.1", "report.2"]


@pytest.mark.parametrize("name", ["", "a/b", "../a", "A", "a b", "ä", "a\x00"])
def test_a_name_is_no_path(storage: Storage, name: str) -> None:
    """Flat names only; a commit with a wrong one changes nothing."""
    with pytest.raises(StateError):
        storage.commit({"good": b"1", name: b"2"})
    assert storage.read("good") is None
    assert list(storage.names()) == []


def test_deleting_what_is_not_there_is_fine(storage: Storage) -> None:
    """And an empty commit is none."""
    storage.commit({})
    storage.commit({"nothing": None})
    assert list(storage.names()) == []


def test_memory_no_change_is_no_write() -> None:
    """Records that would not change are not written."""
    door = Door()
    storage = FlashStorage(door)
    storage.commit({"a": b"1"})
    storage.commit({"a": b"1", "b": None})
    assert door.steps == 1


@pytest.mark.parametrize(
    "point", [step + part for step in (1, 2) for part in (0, 0.25, 0.5)]
)
def test_memory_a_cut_leaves_all_or_nothing(point: float) -> None:
    """The files' own version of this is in test_storage.py, call by call."""
    assert point % 1 in {BEFORE, INSIDE, AFTER}
    storage = FlashStorage(Door([point]))
    with pytest.raises(PowerCut):
        storage.commit({"a": b"1", "b": b"1"})
        storage.commit({"a": b"2", "b": None, "c": b"2"})
    found = {name: storage.read(name) for name in storage.names()}
    assert found in ({}, {"a": b"1", "b": b"1"}, {"a": b"2", "c": b"2"})
