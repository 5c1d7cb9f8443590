"""One device's record in one deployment: its states and the legal ways between them.

Product definition, section 5.1. ``waiting`` to ``confirming`` are open states in the
order a device passes them; a device reports coarsely, so states may be skipped, but
never walked back. Nothing leaves an end state (invariant 4), and only a signed report
of the confirmed new version leads to ``succeeded`` (invariant 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sealift.core.errors import ConflictError

if TYPE_CHECKING:
    from sealift.core.reports import EcuReport

__all__ = [
    "OPEN",
    "Cause",
    "Reported",
    "State",
    "cancellable",
    "move",
    "state_after_report",
    "statements",
]


class State(StrEnum):
    """Where one installation is."""

    WAITING = "waiting"
    OFFERED = "offered"
    DOWNLOADING = "downloading"
    DOWNLOADED = "downloaded"
    INSTALLING = "installing"
    REBOOTING = "rebooting"
    CONFIRMING = "confirming"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


class Cause(StrEnum):
    """Who may bring an installation into a state."""

    SERVER = "server"
    OPERATOR = "operator"
    REPORT = "report"


OPEN = (
    State.WAITING,
    State.OFFERED,
    State.DOWNLOADING,
    State.DOWNLOADED,
    State.INSTALLING,
    State.REBOOTING,
    State.CONFIRMING,
)
"""The states that are not an end, in order."""

_NO_RETURN = OPEN.index(State.REBOOTING)
_ENDS_BY: dict[State, Cause] = {
    State.SUCCEEDED: Cause.REPORT,
    State.FAILED: Cause.REPORT,
    State.ROLLED_BACK: Cause.REPORT,
    State.CANCELLED: Cause.OPERATOR,
    State.SUPERSEDED: Cause.OPERATOR,
}


def cancellable(state: State) -> bool:
    """Whether the server may still take the order back (boot switch not written)."""
    return state in OPEN and OPEN.index(state) < _NO_RETURN


def move(current: State, to: State, cause: Cause) -> State:
    """``to``, if the way there is legal.

    Raises:
        ConflictError: out of an end state, backwards, past the point of no return, or
            by somebody who may not cause it.
    """
    if current not in OPEN:
        raise _illegal(current, to, "it has ended")
    if to in OPEN:
        if OPEN.index(to) <= OPEN.index(current):
            raise _illegal(current, to, "states are not walked back")
        return to
    if _ENDS_BY[to] is not cause:
        raise _illegal(current, to, f"only {_ENDS_BY[to].value} may cause it")
    if cause is Cause.OPERATOR and not cancellable(current):
        raise _illegal(current, to, "the device has switched already")
    return to


@dataclass(frozen=True, slots=True)
class Reported:
    """What one verified report says of one component.

    ``sha256`` is the image it confirmed and runs. ``ordered`` is the image of the order
    it speaks about, ``result`` how that order failed, ``stage`` how far it is.
    """

    sha256: bytes
    ordered: bytes | None = None
    result: State | None = None
    stage: State | None = None


_STAGES = {
    "staging": State.DOWNLOADING,
    "staged": State.DOWNLOADED,
    "arming": State.INSTALLING,
    "rebooting": State.REBOOTING,
    "trial": State.CONFIRMING,
    "confirming": State.CONFIRMING,
    "reverting": State.CONFIRMING,
    "reporting": State.CONFIRMING,
}
"""States of the agent's machine as this server calls them; unknown ones say nothing."""
_RESULTS = {"failed": State.FAILED, "rolled_back": State.ROLLED_BACK}


def statements(report: EcuReport, deployment: str) -> list[tuple[Reported, str | None]]:
    """What a verified report says of its orders, the surest first, with error codes.

    Results that name another deployment are left out.
    """
    runs = report.installed.sha256 if report.installed else b""
    found: list[tuple[Reported, str | None]] = [(Reported(runs), None)]
    for result in report.results:
        about_it = result.deployment in {None, deployment}
        if result.verdict in _RESULTS and about_it:
            end = _RESULTS[result.verdict]
            found.append((Reported(runs, result.sha256, end), result.code))
    if report.pending is not None:
        stage = _STAGES.get(report.pending.stage)
        found.append((Reported(runs, report.pending.sha256, stage=stage), None))
    return found


def state_after_report(current: State, ordered: bytes, said: Reported) -> State:
    """Where an installation of image ``ordered`` stands after a verified report.

    A claim of success counts only together with the new image as the confirmed one.
    """
    if said.sha256 == ordered:
        return move(current, State.SUCCEEDED, Cause.REPORT)
    if said.ordered != ordered:
        return current
    if said.result is not None:
        return move(current, said.result, Cause.REPORT)
    if said.stage is not None and _rank(said.stage) > _rank(current):
        return move(current, said.stage, Cause.REPORT)
    return current


def _rank(state: State) -> int:
    """How far an installation is; every end is beyond every open state."""
    return OPEN.index(state) if state in OPEN else len(OPEN)


def _illegal(current: State, to: State, why: str) -> ConflictError:
    return ConflictError(
        f"an installation cannot go from {current.value} to {to.value}: {why}"
    )
