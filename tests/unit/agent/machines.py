"""Values the tests of the machine share: orders, attempts, and one of each state."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from hypothesis import strategies as st

from sealift.agent.machine import (
    Armed,
    Arming,
    Attempt,
    Booted,
    Confirming,
    Done,
    Failed,
    Gone,
    Idle,
    Instructed,
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
)
from sealift.core.types import Slot
from sealift.sim.device import NEW, OLD, Image, Kind

if TYPE_CHECKING:
    from sealift.core.types import Instruction

ORDER: Instruction = NEW[Kind.GOOD].order()
ATTEMPT = Attempt("0" * 32, ORDER, Slot.B, Slot.A, OLD.artifact)
RESULT = Result(Verdict.FAILED, "staging", "device.slot", "why")

STATES: dict[type[State], State] = {
    Idle: Idle(),
    Staging: Staging(ATTEMPT),
    Staged: Staged(ATTEMPT),
    Arming: Arming(ATTEMPT),
    Rebooting: Rebooting(ATTEMPT, "boot-1"),
    Trial: Trial(ATTEMPT, "boot-2", 12.0),
    Confirming: Confirming(ATTEMPT),
    Reverting: Reverting(ATTEMPT, RESULT),
    Reporting: Reporting(ATTEMPT, RESULT),
}
OUTCOMES: dict[str, Outcome] = {
    "Instructed": Instructed(ATTEMPT),
    "Done": Done(),
    "Failed": Failed("device.boot", "why"),
    "Gone": Gone("input.not_found", "why"),
    "Offered": Offered(NEW[Kind.GOOD].order(director_version=8)),
    "Superseded": Superseded("newer"),
    "Armed": Armed("boot-1"),
    "Booted(ours)": Booted(Slot.B, "boot-2", 30.0),
    "Booted(other)": Booted(Slot.A, "boot-2", 30.0),
}
assert set(STATES) == set(get_args(State))

# ── anything ─────────────────────────────────────────────────────────────────────────
_texts = st.text(max_size=20)
_slots = st.sampled_from(list(Slot))
_images = st.builds(
    Image.make,
    st.sampled_from(list(Kind)),
    st.text("0123456789.", min_size=1, max_size=6),
    st.integers(0, 1 << 40),
)
_artifacts = _images.map(lambda image: image.artifact)


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    """Any attempt: its two slots differ, everything else is free."""
    home = draw(_slots)
    image = draw(_images)
    order = image.order(draw(st.integers(0, 1 << 50)))
    return Attempt(draw(_texts), order, home.other, home, draw(st.none() | _artifacts))


_results = st.builds(
    Result, st.sampled_from(list(Verdict)), _texts, st.none() | _texts, _texts
)
_refused = st.builds(
    Refused, st.binary(min_size=32, max_size=32), st.integers(0, 1 << 50)
)
_seconds = st.integers(0, 10**9).map(lambda ms: ms / 1000)
states: st.SearchStrategy[State] = st.one_of(
    st.builds(Idle, st.none() | _artifacts, st.none() | _refused),
    st.builds(Staging, attempts(), st.integers(0, 5)),
    st.builds(Staged, attempts()),
    st.builds(Arming, attempts()),
    st.builds(Rebooting, attempts(), _texts),
    st.builds(Trial, attempts(), _texts, _seconds),
    st.builds(Confirming, attempts()),
    st.builds(Reverting, attempts(), _results),
    st.builds(Reporting, attempts(), _results),
)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Instructed, attempts()),
    st.just(Done()),
    st.builds(Failed, _texts, st.text(max_size=2000)),
    st.builds(Gone, _texts, st.text(max_size=2000)),
    st.builds(Offered, attempts().map(lambda attempt: attempt.order)),
    st.builds(Superseded, _texts),
    st.builds(Armed, _texts),
    st.builds(Booted, _slots, _texts, _seconds),
)
