"""The journal gives back every state it was given, or says that it cannot."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.agent.journal import (
    JOURNAL_BYTES,
    Floors,
    Journal,
    state_from_json,
    state_to_json,
)
from sealift.agent.machine import Idle, Staged, State
from sealift.agent.record import Record
from sealift.core.errors import MalformedError, StateError
from sealift.sim.flash import Door, Flash, FlashCells, FlashCounter
from tests.unit.agent.machines import ATTEMPT, STATES, states


def record(flash: Flash, name: str = "journal") -> Record:
    return Record(FlashCells(flash, name), limit=JOURNAL_BYTES)


@pytest.fixture
def flash() -> Flash:
    return Flash(Door())


@given(states)
def test_every_state_survives_its_json(state: State) -> None:
    """Through JSON text and back it is equal, whatever is in it."""
    assert state_from_json(json.loads(json.dumps(state_to_json(state)))) == state


@given(st.dictionaries(st.text(max_size=12), states, max_size=4))
def test_the_journal_gives_back_what_was_written(found: dict[str, State]) -> None:
    """Several components, opened anew: the same states."""
    memory = Flash(Door())
    journal = Journal(record(memory))
    for ecu_id, state in found.items():
        journal.write(ecu_id, state)
    assert Journal(record(memory)).read() == found


def test_a_new_journal_is_empty(flash: Flash) -> None:
    """Nothing was written yet: no states, and the count of records is zero."""
    journal = Journal(record(flash))
    assert journal.read() == {}
    assert journal.sequence == 0
    journal.write("ecu", Idle())
    assert journal.sequence == 1


def mutilated() -> list[dict[str, Any]]:
    """Every state with every member, at any depth, removed or of a wrong type."""

    def worse(found: dict[str, Any]) -> list[dict[str, Any]]:
        bad = []
        for key, value in found.items():
            without = {k: v for k, v in found.items() if k != key}
            optional = key in {"installed", "refused", "base", "code", "deployment"}
            optional |= key in {"delta", "bytes_max", "sha512", "base_sha256"}
            bad += [] if optional else [without]
            bad.append({**found, key: [1.5]})
            if isinstance(value, dict):
                bad += [{**found, key: it} for it in worse(value)]
        return bad

    samples: list[dict[str, Any]] = [state_to_json(it) for it in STATES.values()]
    samples.append(state_to_json(Idle(ATTEMPT.order.artifact)))
    return [bad for sample in samples for bad in worse(sample)]


def test_what_is_not_exactly_a_state_is_refused() -> None:
    """No member may be missing or of another type; nothing is guessed."""
    rows = mutilated()
    assert len(rows) > 300
    for row in rows:
        with pytest.raises(MalformedError):
            state_from_json(row)


@pytest.mark.parametrize(
    "changed",
    [
        {"state": "dancing"},
        {"state": "staged", "attempt": {"slot": "c"}},
        {"state": "staged", "attempt": {"slot": "a", "home": "a"}},
        {"state": "reporting", "result": {"verdict": "maybe"}},
        {"state": "idle", "refused": {"sha256": "AA" * 32, "director_version": 1}},
        {"state": "idle", "refused": {"sha256": "aa" * 32, "director_version": True}},
    ],
)
def test_values_out_of_range_are_refused(changed: dict[str, Any]) -> None:
    """A third slot, an attempt on its own home, an unknown verdict: no state."""
    kind = changed["state"]
    whole = next(
        (
            state_to_json(it)
            for it in STATES.values()
            if state_to_json(it)["state"] == kind
        ),
        state_to_json(Staged(ATTEMPT)),
    )
    for key, value in changed.items():
        old = whole.get(key)
        whole[key] = {**old, **value} if isinstance(old, dict) else value
    with pytest.raises(MalformedError):
        state_from_json(whole)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"schema":1,"readable_from":1}',
        b'{"schema":1,"readable_from":1,"components":{"e":[]}}',
        b'{"schema":1,"readable_from":true,"components":{}}',
        b"[" * 100_000,
    ],
)
def test_a_valid_copy_of_garbage_is_a_state_error(flash: Flash, raw: bytes) -> None:
    """A checksum says who tore it, not that it makes sense: device.state, no traceback."""
    record(flash).write(raw)
    with pytest.raises(StateError):
        Journal(record(flash)).read()


def test_the_oldest_reader_rule(flash: Flash) -> None:
    """A newer schema is read if it says we may; else it is refused with a hint."""
    found = {"schema": 7, "readable_from": 1, "more": 1, "components": {}}
    record(flash).write(json.dumps(found).encode())
    assert Journal(record(flash)).read() == {}
    record(flash).write(json.dumps(found | {"readable_from": 2}).encode())
    with pytest.raises(StateError) as refused:
        Journal(record(flash)).read()
    assert refused.value.hint


def test_a_journal_that_was_lost_can_be_written_again(flash: Flash) -> None:
    """Garbage in both copies is refused once, and replaced by the next write."""
    for cell in ("journal.0", "journal.1"):
        flash.make(cell, b"rotten")
    journal = Journal(record(flash))
    with pytest.raises(StateError) as refused:
        journal.read()
    assert refused.value.code == "device.state"
    assert refused.value.hint
    journal.write("ecu", Staged(ATTEMPT))
    assert Journal(record(flash)).read() == {"ecu": Staged(ATTEMPT)}


# ── floors ───────────────────────────────────────────────────────────────────────────
def test_the_floor_is_the_highest_any_memory_knows(flash: Flash) -> None:
    """Record, hardware counter and the installed image: none can lower another."""
    hardware = FlashCounter(flash.door)
    floors = Floors(record(flash, "floor"), {"ecu": hardware})
    assert floors.floor("ecu") == 0
    floors.known("ecu", 2)
    assert floors.floor("ecu") == 2
    floors.known("ecu", 1)
    assert floors.floor("ecu") == 2
    hardware.advance(9)
    assert floors.floor("ecu") == 9
    assert floors.floor("other") == 0


def test_the_floor_is_durable_and_rises_only(flash: Flash) -> None:
    """Opened anew it is still there; a lower value changes nothing anywhere."""
    hardware = FlashCounter(flash.door)
    floors = Floors(record(flash, "floor"), {"ecu": hardware})
    floors.raise_to("ecu", 5)
    floors.raise_to("ecu", 3)
    steps = flash.door.steps
    floors.raise_to("ecu", 5)
    assert flash.door.steps == steps, "no change, no write"
    assert hardware.value() == 5
    assert Floors(record(flash, "floor")).floor("ecu") == 5


@pytest.mark.parametrize("raw", [b"rotten", None])
def test_a_damaged_floor_record_is_no_floor_of_zero(
    flash: Flash, raw: bytes | None
) -> None:
    """What is installed and the hardware still hold it up, and it can rise again."""
    if raw is None:
        record(flash, "floor").write(b'{"floors": {"ecu": "many"}}')
    else:
        flash.make("floor.0", raw)
        flash.make("floor.1", raw)
    floors = Floors(record(flash, "floor"))
    floors.known("ecu", 4)
    assert floors.floor("ecu") == 4
    floors.raise_to("ecu", 6)
    assert Floors(record(flash, "floor")).floor("ecu") == 6
