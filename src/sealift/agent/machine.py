"""The agent's machine: nine states, one duty each, and what an outcome makes of them.

Pure and total. Nothing here touches a disk or a loader; ``agent.shell`` performs the
duties, ``agent.journal`` keeps the states. Every duty can be repeated after a cut.

```
state       its duty                      outcome → next
Idle        poll                          Instructed → Staging
Staging     stage into the other slot     Done → Staged · Failed, Superseded → Reporting
                                          Gone → Staging, at last Reporting
                                          Offered → Staging
Staged      wait for the gate             Done → Arming · Failed, Superseded → Reporting
Arming      tell the loader to try it     Armed → Rebooting · Booted(ours) → Trial
                                          Booted(other), Failed → Reverting
Rebooting   restart, if still same boot   Booted(ours) → Trial
                                          Booted(other) → Reverting
Trial       health checks                 Done → Confirming · Booted(ours) → Trial
                                          Booted(other), Failed → Reverting
Confirming  mark good                     Done → Reporting
                                          Booted(other), Failed → Reverting
Reverting   back to home                  Done, Failed → Reporting
Reporting   raise the floor, hand it out  Done → Idle
```

``Confirming · Booted(other)`` is the row that keeps devices alive: when cuts use up the
trial's attempts, the old slot runs with Confirming in the journal, and without the row
it would confirm a slot it is not running.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias, assert_never

from sealift.core.types import Artifact, Instruction, Slot

DETAIL_CHARACTERS = 1000
"""The longest detail a result carries; it may be text from a stranger."""

OFFERS_MAX = 3
"""How often the Director is asked anew for content that the server does not have."""


# ── values ───────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one instruction: what every state but Idle carries.

    ``slot`` is written; ``home`` ran and was confirmed when the attempt began, and
    ``base`` is what home holds (``None``: unknown, as the factory left it). ``id`` is
    the one name under which its result is reported, however often.
    """

    id: str
    order: Instruction
    slot: Slot
    home: Slot
    base: Artifact | None


class Verdict(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"


@dataclass(frozen=True, slots=True)
class Result:
    """The end of an attempt; ``stage`` is the state in which it was decided."""

    verdict: Verdict
    stage: str
    code: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The last failure: not tried again until the Director speaks anew."""

    sha256: bytes
    director_version: int


# ── states ───────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to do; ``installed`` is what the confirmed slot holds, if known."""

    installed: Artifact | None = None
    refused: Refused | None = None


@dataclass(frozen=True, slots=True)
class Staging:
    """The other slot is being written.

    ``gone`` counts how often the server said that it does not have the content; it is
    journaled, so no restart begins to count anew.
    """

    attempt: Attempt
    gone: int = 0


@dataclass(frozen=True, slots=True)
class Staged:
    """The image lies whole in the other slot and waits for the gate."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Arming:
    """The point of no return: the loader is being told to try the slot."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Rebooting:
    """The loader knows; ``boot_id`` names the boot that has to end."""

    attempt: Attempt
    boot_id: str


@dataclass(frozen=True, slots=True)
class Trial:
    """The new slot runs on trial, in boot ``boot_id``.

    ``since`` is ``Clock.monotonic`` of that boot when the trial began, in seconds. An
    agent that is restarted within one boot does not get a new deadline.
    """

    attempt: Attempt
    boot_id: str
    since: float


@dataclass(frozen=True, slots=True)
class Confirming:
    """Health was shown; the slot is being marked good."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Reverting:
    """On the way back to ``home``, for the reason in ``result``."""

    attempt: Attempt
    result: Result


@dataclass(frozen=True, slots=True)
class Reporting:
    """The attempt is over; its result is not yet in the outbox."""

    attempt: Attempt
    result: Result


State: TypeAlias = (
    Idle
    | Staging
    | Staged
    | Arming
    | Rebooting
    | Trial
    | Confirming
    | Reverting
    | Reporting
)
Active: TypeAlias = (
    Staging | Staged | Arming | Rebooting | Trial | Confirming | Reverting | Reporting
)


# ── outcomes ─────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Instructed:
    """The Director ordered something we neither run nor refused."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Done:
    """The duty is fulfilled."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The duty cannot be fulfilled; ``code`` is one of ``core.errors``."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Gone:
    """The server does not have the content; another offer may name one it has."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Offered:
    """The Director's present word for the same image, after its content was gone."""

    order: Instruction


@dataclass(frozen=True, slots=True)
class Superseded:
    """The Director wants something else by now, and the switch is not written."""

    detail: str = ""


@dataclass(frozen=True, slots=True)
class Armed:
    """The loader will try the slot at the next start after boot ``boot_id``."""

    boot_id: str


@dataclass(frozen=True, slots=True)
class Booted:
    """Another boot than expected, or one that was waited for: ``slot`` runs.

    ``at`` is ``Clock.monotonic`` when it was asked, in seconds.
    """

    slot: Slot
    boot_id: str
    at: float


Outcome: TypeAlias = (
    Instructed | Done | Failed | Gone | Offered | Superseded | Armed | Booted
)


class Impossible(Exception):
    """No row of the table has this state and this outcome: a bug of ours."""

    def __init__(self, state: State, outcome: Outcome) -> None:
        super().__init__(f"{name(state)} cannot end by {type(outcome).__name__}")


# ── the table ─────────────────────────────────────────────────────────────────────────
def name(state: State) -> str:
    """The state's name in journal, status and report: ``staging``, ``trial`` …."""
    return type(state).__name__.lower()


def advance(state: State, outcome: Outcome) -> State:
    """The next state: the table above, row by row.

    Raises:
        Impossible: the pair is in no row; a bug, never an attack.
    """
    match state:
        case Idle():
            return _at_rest(state, outcome)
        case Staging() | Staged():
            return _before_the_switch(state, outcome)
        case Arming() | Rebooting():
            return _at_the_switch(state, outcome)
        case Trial() | Confirming():
            return _after_the_switch(state, outcome)
        case Reverting() | Reporting():
            return _at_the_end(state, outcome)
        case _:
            assert_never(state)


def _at_rest(state: Idle, outcome: Outcome) -> State:
    if isinstance(outcome, Instructed):
        return Staging(outcome.attempt)
    raise Impossible(state, outcome)


def _before_the_switch(state: Staging | Staged, outcome: Outcome) -> State:
    if isinstance(outcome, Done):
        attempt = state.attempt
        return Staged(attempt) if isinstance(state, Staging) else Arming(attempt)
    if isinstance(outcome, Failed):
        return Reporting(state.attempt, _failed(state, outcome))
    if isinstance(outcome, Superseded):
        result = Result(Verdict.SUPERSEDED, name(state), detail=outcome.detail)
        return Reporting(state.attempt, result)
    if isinstance(state, Staging) and isinstance(outcome, Gone):
        return _without_content(state, outcome)
    if isinstance(state, Staging) and isinstance(outcome, Offered):
        return replace(state, attempt=replace(state.attempt, order=outcome.order))
    raise Impossible(state, outcome)


def _without_content(state: Staging, outcome: Gone) -> State:
    """Another offer is waited for, a few times (product rules, 5.9)."""
    if state.gone >= OFFERS_MAX:
        return Reporting(state.attempt, _failed(state, outcome))
    return replace(state, gone=state.gone + 1)


def _at_the_switch(state: Arming | Rebooting, outcome: Outcome) -> State:
    if isinstance(outcome, Booted):
        return _booted(state, outcome)
    if isinstance(state, Arming) and isinstance(outcome, Armed):
        return Rebooting(state.attempt, outcome.boot_id)
    if isinstance(state, Arming) and isinstance(outcome, Failed):
        return Reverting(state.attempt, _failed(state, outcome))
    raise Impossible(state, outcome)


def _after_the_switch(state: Trial | Confirming, outcome: Outcome) -> State:
    if isinstance(outcome, Done):
        if isinstance(state, Trial):
            return Confirming(state.attempt)
        return Reporting(state.attempt, Result(Verdict.SUCCEEDED, name(state)))
    if isinstance(outcome, Failed):
        return Reverting(
            state.attempt, _rolled_back(state, outcome.code, outcome.detail)
        )
    if isinstance(outcome, Booted):
        return _booted(state, outcome)
    raise Impossible(state, outcome)


def _at_the_end(state: Reverting | Reporting, outcome: Outcome) -> State:
    if isinstance(outcome, Done):
        if isinstance(state, Reverting):
            return Reporting(state.attempt, state.result)
        return _settled(state)
    if isinstance(state, Reverting) and isinstance(outcome, Failed):
        return Reporting(state.attempt, _failed(state, outcome))
    raise Impossible(state, outcome)


def _booted(state: Arming | Rebooting | Trial | Confirming, outcome: Booted) -> State:
    """Where a start has led: the slot on trial, or anywhere else."""
    attempt = state.attempt
    if outcome.slot is not attempt.slot:
        detail = f"slot {outcome.slot} runs instead of slot {attempt.slot}"
        return Reverting(attempt, _rolled_back(state, "device.boot", detail))
    if isinstance(state, Confirming):  # nothing went wrong: that is no outcome
        raise Impossible(state, outcome)
    return Trial(attempt, outcome.boot_id, outcome.at)


def _failed(state: Active, outcome: Failed | Gone) -> Result:
    detail = outcome.detail[:DETAIL_CHARACTERS]
    return Result(Verdict.FAILED, name(state), outcome.code, detail)


def _rolled_back(state: Active, code: str, detail: str) -> Result:
    detail = detail[:DETAIL_CHARACTERS]
    return Result(Verdict.ROLLED_BACK, name(state), code, detail)


def _settled(state: Reporting) -> Idle:
    """What stays of an attempt: the new image, or a refusal to try it for ever."""
    attempt, order = state.attempt, state.attempt.order
    if state.result.verdict is Verdict.SUCCEEDED:
        return Idle(installed=order.artifact)
    if state.result.verdict is Verdict.SUPERSEDED:
        return Idle(installed=attempt.base)
    refused = Refused(order.artifact.sha256, order.director_version)
    return Idle(installed=attempt.base, refused=refused)


def installed(state: State) -> Artifact | None:
    """What the confirmed slot holds in this state, if it is known."""
    if isinstance(state, Idle):
        return state.installed
    if isinstance(state, Reporting) and state.result.verdict is Verdict.SUCCEEDED:
        return state.attempt.order.artifact
    return state.attempt.base


# ── what the Director's word means in a state ────────────────────────────────────────
def wants(state: Idle, order: Instruction) -> bool:
    """Whether ``order`` asks for something we neither run nor refused.

    A failed image is wanted again only by a newer Director Targets, which is how an
    operator says "try again"; else one bad release would be installed for ever.
    """
    image = order.artifact.sha256
    if state.installed is not None and state.installed.sha256 == image:
        return False
    refused = state.refused
    return (
        refused is None
        or refused.sha256 != image
        or order.director_version > refused.director_version
    )


def superseded(state: Staging | Staged, order: Instruction | None) -> bool:
    """Whether the Director's present word ends the attempt under way.

    It does when it names another image, or none for this component (uptane.md 1.3).
    The same image under a newer version is the same order.
    """
    return order is None or order.artifact.sha256 != state.attempt.order.artifact.sha256


def offered(state: Staging, order: Instruction) -> bool:
    """Whether ``order``, for the same image, is another way to it.

    It is when content was gone, and when the Director offers other containers, more
    bytes or another key: a delta that appears, a budget that is raised (product rules
    5.8). A mere new version does not disturb a transfer that goes well.
    """
    known = state.attempt.order
    return order != known and (state.gone > 0 or _offer(order) != _offer(known))


def _offer(order: Instruction) -> tuple[object, ...]:
    kid = order.sealed and order.sealed.wrap.kid
    return order.full, order.delta, order.patch, order.bytes_max, kid
