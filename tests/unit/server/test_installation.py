"""The states of an installation: forward only, and success only by a report."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from sealift.agent import machine
from sealift.core.errors import ConflictError
from sealift.server.domain import installation
from sealift.server.domain.installation import (
    OPEN,
    Cause,
    Reported,
    State,
    cancellable,
    move,
    state_after_report,
)

ENDS = [state for state in State if state not in OPEN]
NEW, OLD = b"n" * 32, b"o" * 32


def legal(current: State, to: State, cause: Cause) -> bool:
    """The rule again, written as the sentence of the design page."""
    if current in ENDS:
        return False
    if to in OPEN:
        return OPEN.index(to) > OPEN.index(current)
    if to in {State.SUCCEEDED, State.FAILED, State.ROLLED_BACK}:
        return cause is Cause.REPORT
    before_switch = current not in {State.REBOOTING, State.CONFIRMING}
    return cause is Cause.OPERATOR and before_switch


def test_every_pair_of_states() -> None:
    """All 432 ways: the legal ones are taken, the others are conflicts."""
    for current, to, cause in itertools.product(State, State, Cause):
        if legal(current, to, cause):
            assert move(current, to, cause) is to
        else:
            with pytest.raises(ConflictError):
                move(current, to, cause)


def test_point_of_no_return() -> None:
    """Before the boot switch is written an order can be taken back, after it not."""
    assert [state for state in State if cancellable(state)] == list(OPEN[:5])


@pytest.mark.parametrize(
    ("sentence", "current", "said", "expected"),
    [
        ("runs the new image", State.OFFERED, Reported(NEW), State.SUCCEEDED),
        (
            "claims success, runs the old one",
            State.CONFIRMING,
            Reported(OLD, NEW, stage=None),
            State.CONFIRMING,
        ),
        (
            "failed before the switch",
            State.DOWNLOADING,
            Reported(OLD, NEW, State.FAILED),
            State.FAILED,
        ),
        (
            "came back",
            State.CONFIRMING,
            Reported(OLD, NEW, State.ROLLED_BACK),
            State.ROLLED_BACK,
        ),
        (
            "speaks of another order",
            State.OFFERED,
            Reported(OLD, b"x" * 32, State.FAILED),
            State.OFFERED,
        ),
        (
            "is further",
            State.OFFERED,
            Reported(OLD, NEW, stage=State.REBOOTING),
            State.REBOOTING,
        ),
        (
            "is not as far as we know",
            State.REBOOTING,
            Reported(OLD, NEW, stage=State.DOWNLOADING),
            State.REBOOTING,
        ),
        ("says nothing", State.OFFERED, Reported(OLD), State.OFFERED),
    ],
)
def test_what_a_report_makes_of_it(
    sentence: str, current: State, said: Reported, expected: State
) -> None:
    """A verified report moves an installation, and only as far as it proves."""
    assert state_after_report(current, NEW, said) is expected, sentence


def test_every_state_of_the_agent_has_a_meaning_here() -> None:
    """What an agent may call its state is known to the server, Idle apart."""
    names = {kind.__name__.lower() for kind in get_args(machine.State)}
    assert set(installation._STAGES) == names - {"idle"}
