"""Boot control by a program of the integrator, for a loader nobody else knows.

The program is started once per question, ``PROGRAM ARGUMENTS… VERB [SLOT [TRIES]]``,
and answers in lines on standard output, nothing more and nothing less::

    current                a
    next                   b
    mark-writing b         (nothing)
    set-next b 3           (nothing)
    mark-good              (nothing)
    state                  loader=NAME
                           counts=yes
                           confirmed=a
                           a=good
                           b=trial(2)
                           missing=TEXT     (up to 16 of these and of remark=)
                           remark=TEXT

Status 0 says that it is done, and durable; any other that it is not, and that what
booted before still boots. It is told again what it seems to have done: who did it may
have been killed before it was durable. Its guarantees are those it keeps: what is
checked here is the form of its answers, and that a slot in use is not asked to be
written.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from sealift.agent import command
from sealift.agent.ports import BootState
from sealift.agent.surroundings import ENVIRONMENT
from sealift.core.errors import BootError, MissingToolError
from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sealift.agent.ports import Clock

__all__ = ["CommandProgram", "Program", "ScriptBoot"]

MOST_TRIES: Final = 9
ANSWER_BYTES: Final = 8192
_SLOT = re.compile(r"([ab])\n")
_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}"
_CONDITION = r"(?:empty|writing|trial\([0-9]\)|good|bad)"
_STATE = re.compile(
    rf"loader=(?P<loader>{_NAME})\ncounts=(?P<counts>yes|no)\n"
    r"confirmed=(?P<confirmed>[ab])\n"
    rf"a=(?P<a>{_CONDITION})\nb=(?P<b>{_CONDITION})\n"
    r"(?P<more>(?:(?:missing|remark)=[ -~]{1,200}\n){0,16})"
)
_HINT: Final = "see [boot] program in the configuration, and docs/integrating.md"


class Program(Protocol):
    """The integrator's program, asked one question at a time."""

    def ask(self, *words: str) -> str:
        """What it answers on standard output.

        Raises:
            BootError: it ended with another status than 0, or too late, or said more
            than it may. MissingToolError: it cannot be started.
        """
        ...


class ScriptBoot:
    """:class:`~sealift.agent.ports.BootControl` by a program.

    ``started`` tells one start of the machine from another.

    Raises:
        BootError: from every verb, when the program fails, or answers in another form.
    """

    def __init__(self, program: Program, started: Callable[[], str]) -> None:
        self._program = program
        self._started = started

    def current(self) -> Slot:
        """The slot that runs; the program finds out, and does not ask the loader."""
        return self._slot("current")

    def next(self) -> Slot:
        """The slot the loader would start next."""
        return self._slot("next")

    def mark_writing(self, slot: Slot) -> None:
        """Nothing boots ``slot`` from now on (B9).

        Raises:
            BootError: it runs, or it is the confirmed one, or the program refused.
        """
        if slot in {self.current(), self._state()[0]}:
            raise BootError(f"slot {slot} is in use and cannot be written")
        self._tell("mark-writing", slot.value)

    def set_next(self, slot: Slot, tries: int) -> None:
        """Put ``slot`` on trial, or disarm when it is the confirmed one.

        Raises:
            BootError: the program refused, or it says its loader lacks something.
        """
        confirmed, state = self._state()
        if slot is confirmed:
            self._tell("set-next", slot.value, "1")
            return
        if state.missing:
            raise BootError(
                f"the loader could not end a trial: {'; '.join(state.missing)}",
                hint=_HINT,
            )
        tries = min(max(tries, 1), MOST_TRIES) if state.counts_attempts else 1
        self._tell("set-next", slot.value, str(tries))

    def mark_good(self) -> None:
        """The running slot becomes the confirmed one. Told again, it finishes the rest.

        Raises:
            BootError: the program refused.
        """
        self._tell("mark-good")

    def state(self) -> BootState:
        """What the program says, in its words."""
        return self._state()[1]

    def _state(self) -> tuple[Slot, BootState]:
        """The confirmed slot, and the rest."""
        answer = self._program.ask("state")
        found = _STATE.fullmatch(answer)
        if found is None:
            raise _wrong_form("state", answer)
        lines = found["more"].splitlines()
        state = BootState(
            found["loader"],
            {Slot.A: found["a"], Slot.B: found["b"]},
            counts_attempts=found["counts"] == "yes",
            remarks=_texts(lines, "remark="),
            missing=_texts(lines, "missing="),
        )
        return Slot(found["confirmed"]), state

    def boot_id(self) -> str:
        """Another text after every start of the machine."""
        return self._started()

    def _slot(self, verb: str) -> Slot:
        answer = self._program.ask(verb)
        found = _SLOT.fullmatch(answer)
        if found is None:
            raise _wrong_form(verb, answer)
        return Slot(found[1])

    def _tell(self, *words: str) -> None:
        answer = self._program.ask(*words)
        if answer:
            raise _wrong_form(words[0], answer)


def _texts(lines: Sequence[str], prefix: str) -> tuple[str, ...]:
    return tuple(it.removeprefix(prefix) for it in lines if it.startswith(prefix))


def _wrong_form(verb: str, answer: str) -> BootError:
    return BootError(
        f"the boot program answers {verb} in a form unknown here: {answer[:60]!a}",
        hint=_HINT,
    )


class CommandProgram:
    """:class:`Program` as a process: no shell, a clean environment, a deadline."""

    def __init__(self, argv: Sequence[str], clock: Clock, deadline: float) -> None:
        self._argv = tuple(argv)
        self._clock = clock
        self._deadline = deadline

    def ask(self, *words: str) -> str:
        """Run it once; its standard output, ASCII, within a bound.

        Raises:
            BootError, MissingToolError: as the protocol says.
        """
        try:
            ended = command.run(
                [*self._argv, *words],
                ENVIRONMENT,
                deadline=self._deadline,
                clock=self._clock,
                errors=False,
            )
        except (OSError, ValueError) as error:
            raise MissingToolError(
                f"the boot program cannot be started: {error}", hint=_HINT
            ) from error
        said = f"{words[0]}: {ended.output[:60]!a}"
        if ended.status is None:
            raise BootError(
                f"the boot program did not end in {self._deadline:g} s, {said}",
                hint=_HINT,
            )
        if ended.status:
            raise BootError(
                f"the boot program ended with status {ended.status}, {said}", hint=_HINT
            )
        if len(ended.output) > ANSWER_BYTES or not ended.output.isascii():
            raise BootError(
                f"the boot program says too much, or not in ASCII, {said}", hint=_HINT
            )
        return ended.output.decode("ascii")
