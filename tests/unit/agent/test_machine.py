"""The machine's table, pair by pair."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given

from sealift.agent.machine import (
    Arming,
    Confirming,
    Failed,
    Gone,
    Idle,
    Impossible,
    Offered,
    Outcome,
    Rebooting,
    Refused,
    Reporting,
    Result,
    Reverting,
    Staged,
    Staging,
    State,
    Superseded,
    Trial,
    Verdict,
    advance,
    name,
    offered,
    superseded,
    wants,
)
from sealift.core.types import Seal, Wrap
from sealift.sim.device import NEW, OLD, Kind
from tests.unit.agent.machines import (
    ATTEMPT,
    ORDER,
    OUTCOMES,
    RESULT,
    STATES,
    outcomes,
    states,
)

# The table of architecture.md, section 6. What is not in it is Impossible.
TABLE: list[tuple[type[State], str, type[State]]] = [
    (Idle, "Instructed", Staging),
    (Staging, "Done", Staged),
    (Staging, "Failed", Reporting),
    (Staging, "Superseded", Reporting),
    (Staging, "Gone", Staging),
    (Staging, "Offered", Staging),
    (Staged, "Done", Arming),
    (Staged, "Failed", Reporting),
    (Staged, "Superseded", Reporting),
    (Arming, "Armed", Rebooting),
    (Arming, "Booted(ours)", Trial),
    (Arming, "Booted(other)", Reverting),
    (Arming, "Failed", Reverting),
    (Rebooting, "Booted(ours)", Trial),
    (Rebooting, "Booted(other)", Reverting),
    (Trial, "Done", Confirming),
    (Trial, "Failed", Reverting),
    (Trial, "Booted(ours)", Trial),
    (Trial, "Booted(other)", Reverting),
    (Confirming, "Done", Reporting),
    (Confirming, "Booted(other)", Reverting),  # the bold row
    (Confirming, "Failed", Reverting),
    (Reverting, "Done", Reporting),
    (Reverting, "Failed", Reporting),
    (Reporting, "Done", Idle),
]
NEXT = {(before, outcome): after for before, outcome, after in TABLE}
PAIRS = [(kind, outcome) for kind in STATES for outcome in OUTCOMES]


@pytest.mark.parametrize(("kind", "outcome"), PAIRS)
def test_every_pair_is_in_the_table_or_impossible(
    kind: type[State], outcome: str
) -> None:
    """All pairs of state and outcome, the legal ones and the others."""
    expected = NEXT.get((kind, outcome))
    if expected is None:
        with pytest.raises(Impossible, match=kind.__name__.lower()):
            advance(STATES[kind], OUTCOMES[outcome])
        return
    assert type(advance(STATES[kind], OUTCOMES[outcome])) is expected


@given(states, outcomes)
def test_advance_is_total_and_keeps_the_attempt(state: State, outcome: Outcome) -> None:
    """Any state, any outcome: the next state with the same attempt, or Impossible."""
    try:
        after = advance(state, outcome)
    except Impossible:
        return
    if not isinstance(state, Idle) and not isinstance(after, Idle):
        order = state.attempt.order
        if isinstance(outcome, Offered):
            order = outcome.order
        assert after.attempt == dataclasses.replace(state.attempt, order=order)
    assert advance(state, outcome) == after, "pure"
    if isinstance(after, Reporting | Reverting):
        assert len(after.result.detail) <= 1000


@given(states)
def test_a_state_is_known_by_its_name(state: State) -> None:
    """In journal, status and report: nine names."""
    assert name(state) == type(state).__name__.lower()
    assert len({name(it) for it in STATES.values()}) == len(STATES) == 9


def result_after(kind: type[State], outcome: str) -> Result:
    after = advance(STATES[kind], OUTCOMES[outcome])
    assert isinstance(after, Reverting | Reporting)
    return after.result


@pytest.mark.parametrize(
    ("kind", "outcome", "verdict"),
    [
        (Staging, "Failed", Verdict.FAILED),
        (Arming, "Failed", Verdict.FAILED),
        (Staged, "Superseded", Verdict.SUPERSEDED),
        (Trial, "Failed", Verdict.ROLLED_BACK),
        (Rebooting, "Booted(other)", Verdict.ROLLED_BACK),
        (Confirming, "Booted(other)", Verdict.ROLLED_BACK),
        (Confirming, "Done", Verdict.SUCCEEDED),
    ],
)
def test_a_result_says_how_and_where_it_ended(
    kind: type[State], outcome: str, verdict: Verdict
) -> None:
    """Before the switch it failed, after the switch it was rolled back."""
    result = result_after(kind, outcome)
    assert result.verdict is verdict
    assert result.stage == kind.__name__.lower()


def test_gone_content_is_asked_for_anew_three_times() -> None:
    """Product rules 5.9: three more offers, whatever they name, then it failed."""
    state: State = Staging(ATTEMPT)
    newer = NEW[Kind.GOOD].order(director_version=8)
    for asked in (1, 2, 3):
        state = advance(state, Gone("input.not_found", "x" * 5000))
        assert state == Staging(ATTEMPT, asked)
    state = advance(state, Offered(newer))
    assert state == Staging(dataclasses.replace(ATTEMPT, order=newer), 3)
    state = advance(state, Gone("input.not_found", "x" * 5000))
    assert isinstance(state, Reporting)
    assert state.result == Result(
        Verdict.FAILED, "staging", "input.not_found", "x" * 1000
    )


def test_an_offer_is_taken_only_where_content_is_gone() -> None:
    """Another word for the same image does not disturb a transfer that goes well."""
    newer = NEW[Kind.GOOD].order(director_version=8)
    assert not offered(Staging(ATTEMPT), newer)
    assert not offered(Staging(ATTEMPT, 1), ORDER)
    assert offered(Staging(ATTEMPT, 1), newer)


OFFERS = [
    {"bytes_max": 10**9},
    {"delta": dataclasses.replace(ORDER.full, name="x.delta", base_sha256=bytes(32))},
    {"full": dataclasses.replace(ORDER.full, name="other.full")},
    {"sealed": Seal(Wrap("x25519", "0123456789abcdef", b"a"))},
]


@pytest.mark.parametrize("change", OFFERS, ids=lambda it: next(iter(it)))
def test_another_way_to_the_same_image_is_taken(change: dict[str, object]) -> None:
    """A delta that appears, a budget that is raised: an install waits for nothing old."""
    newer = dataclasses.replace(NEW[Kind.GOOD].order(director_version=8), **change)  # type: ignore[arg-type]
    assert offered(Staging(ATTEMPT), newer)


def test_a_wrap_made_anew_is_no_other_way() -> None:
    """The Director wraps for the same key with each version; the first one opens too."""
    first, second = (
        Seal(Wrap("x25519", "0123456789abcdef", it)) for it in (b"a", b"b")
    )
    attempt = dataclasses.replace(
        ATTEMPT, order=dataclasses.replace(ORDER, sealed=first)
    )
    newer = dataclasses.replace(ORDER, sealed=second, director_version=8)
    assert not offered(Staging(attempt), newer)


def test_a_strangers_text_is_cut() -> None:
    """The detail of a failure is bounded before it is journaled."""
    after = advance(Staging(ATTEMPT), Failed("device.slot", "x" * 5000))
    assert isinstance(after, Reporting)
    assert len(after.result.detail) == 1000


def test_success_is_installed_and_failure_is_refused() -> None:
    """Idle remembers what it runs, and what it will not try again."""
    good = Reporting(ATTEMPT, Result(Verdict.SUCCEEDED, "confirming"))
    bad = Reporting(ATTEMPT, RESULT)
    gone = advance(advance(Staged(ATTEMPT), Superseded()), OUTCOMES["Done"])
    refused = Refused(ORDER.artifact.sha256, ORDER.director_version)
    assert advance(good, OUTCOMES["Done"]) == Idle(ORDER.artifact)
    assert advance(bad, OUTCOMES["Done"]) == Idle(OLD.artifact, refused)
    assert gone == Idle(OLD.artifact)


def test_a_failed_image_is_wanted_again_only_by_a_newer_word() -> None:
    """Same digest, same or older Director version: no. Newer version: yes."""
    refused = Refused(ORDER.artifact.sha256, ORDER.director_version)
    idle = Idle(OLD.artifact, refused)
    newer = dataclasses.replace(ORDER, director_version=ORDER.director_version + 1)
    assert wants(Idle(), ORDER)
    assert wants(Idle(OLD.artifact), ORDER)
    assert not wants(Idle(ORDER.artifact), ORDER), "it runs already"
    assert not wants(idle, ORDER)
    assert wants(idle, newer)
    assert wants(idle, NEW[Kind.WEDGED].order()), "another image"


def test_another_word_of_the_director_supersedes() -> None:
    """Another image or silence does; the same image in newer metadata does not."""
    newer = dataclasses.replace(ORDER, director_version=99)
    for state in (Staging(ATTEMPT), Staged(ATTEMPT)):
        assert superseded(state, None)
        assert superseded(state, NEW[Kind.WEDGED].order())
        assert not superseded(state, ORDER)
        assert not superseded(state, newer)
