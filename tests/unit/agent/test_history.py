"""The history: bounded, readable, never a reason to stop."""

from __future__ import annotations

from datetime import UTC, datetime

from sealift.agent import history
from sealift.agent.history import MOST_ENTRIES, Entry
from sealift.agent.storage import Store
from sealift.core.errors import ExpiredError, RollbackError, SealiftError
from tests.unit.agent.posix_disk import PosixDisk

AT = datetime(2026, 6, 1, 12, 30, tzinfo=UTC)


def added(*entries: Entry) -> list[Entry]:
    store = Store(7, PosixDisk())
    for entry in entries:
        store.commit({history.RECORD: history.with_entry(history.read(store), entry)})
    return history.read(store)


def install(number: int) -> Entry:
    return {"kind": "install", "id": str(number)}


def refused(error: SealiftError) -> Entry:
    return history.check(error, AT)


def test_newest_entries_stay() -> None:
    """The ring keeps the last ones, oldest first."""
    found = added(*map(install, range(MOST_ENTRIES + 7)))
    assert [entry["id"] for entry in found] == [
        str(number) for number in range(7, MOST_ENTRIES + 7)
    ]


def test_one_attempt_is_one_entry() -> None:
    """A result that is handed over twice after a cut is there once."""
    assert added(install(1), install(2), install(1)) == [install(1), install(2)]


def test_a_lie_told_for_a_week_is_one_entry() -> None:
    """Equal refusals in a row are counted; another code or an install ends the row."""
    old, late = RollbackError("v1"), ExpiredError("late")
    found = added(*[refused(old)] * 5, refused(late), install(1), refused(late))
    assert [(e.get("code"), e.get("times")) for e in found] == [
        ("metadata.rollback", 5),
        ("metadata.expired", None),
        (None, None),
        ("metadata.expired", None),
    ]


def test_texts_of_strangers_are_short() -> None:
    """A megabyte of detail is not kept."""
    entry = refused(RollbackError("x" * 1_000_000))
    assert len(str(entry["detail"])) <= history.TEXT_CHARACTERS + 3
    assert entry["at"] == "2026-06-01T12:30:00Z"


def test_damaged_history_is_begun_anew() -> None:
    """Nothing is decided by it, so nothing stops because of it."""
    for raw in (b"", b"{", b"{}", b"[1, 2]", b"[" * 5000):
        store = Store(7, PosixDisk())
        store.commit({history.RECORD: raw})
        assert history.read(store) == []
