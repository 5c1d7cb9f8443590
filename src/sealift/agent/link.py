"""The way to a microcontroller by a program of the integrator, and patience with it.

The program is started once per verb, ``PROGRAM ARGUMENTS… VERB [ARGUMENT]``, as
``docs/microcontrollers.md`` says; values are one JSON object on standard input and
output. It is as trusted as what it talks to: its answers are bounded and checked, and
what it says of an image is compared with the signed metadata by whoever asks.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, TypeVar

from sealift.agent import command
from sealift.agent.ports import Unit
from sealift.agent.surroundings import ENVIRONMENT
from sealift.core import fields
from sealift.core.errors import (
    FailedTransferError,
    FormatError,
    MalformedError,
    PatchError,
    SlotError,
)
from sealift.core.types import PatchKind, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sealift.agent.ports import Clock, Link, Parcel

__all__ = ["CommandLink", "PatientLink", "unit_from_json"]

UNUSABLE: Final = 65
"""Exit status for what cannot be applied, or made another image (EX_DATAERR)."""
AGAIN: Final = 75
"""Exit status for "no answer, try again" (EX_TEMPFAIL); so is a missed deadline."""

_T = TypeVar("_T")
_HINT: Final = "see the program of [[component]] link in the configuration"


class CommandLink:
    """:class:`~sealift.agent.ports.Link` by a program. ``deadline`` is in seconds."""

    def __init__(self, program: Sequence[str], clock: Clock, deadline: float) -> None:
        self._program = tuple(program)
        self._clock = clock
        self._deadline = deadline

    def identify(self) -> Unit:
        """Ask what it runs and what it has.

        Raises:
            FailedTransferError, SlotError: as every verb; or no such answer is known.
        """
        answer = self._ask("identify")
        try:
            return unit_from_json(_object(answer))
        except FormatError as error:
            raise SlotError(f"the link program: {error}", hint=_HINT) from error

    def begin(self, parcel: Parcel) -> int:
        """Announce what comes; the offset of the first byte that is wanted."""
        answer = self._ask("begin", given=_parcel(parcel))
        try:
            return fields.count(_object(answer), "offset", 0, parcel.length)
        except FormatError as error:
            raise SlotError(f"the link program: {error}", hint=_HINT) from error

    def write(self, offset: int, data: bytes) -> None:
        """The next bytes of the parcel."""
        self._ask("write", str(offset), given=data)

    def finish(self) -> None:
        """All of it came."""
        self._ask("finish")

    def test(self, slot: Slot) -> None:
        """What starts next."""
        self._ask("test", slot.value)

    def confirm(self, image_sha256: bytes) -> None:
        """What runs is good, if it is this image."""
        self._ask("confirm", image_sha256.hex())

    def restart(self) -> None:
        """Start the microcontroller anew."""
        self._ask("restart")

    def _ask(self, *words: str, given: bytes = b"") -> bytes:
        """Run the program once; what it wrote to standard output.

        Raises:
            FailedTransferError: status 75, or no end in time. PatchError: status 65.
            SlotError: any other end, or it cannot be started.
        """
        try:
            ended = command.run(
                [*self._program, *words],
                ENVIRONMENT,
                deadline=self._deadline,
                clock=self._clock,
                given=given,
                errors=False,
            )
        except (OSError, ValueError) as error:
            raise SlotError(
                f"the link program cannot be started: {error}", hint=_HINT
            ) from error
        if ended.status == 0:
            return ended.output
        said = f"{words[0]}: {_line(ended.output)}"
        if ended.status is None or ended.status == AGAIN:
            raise FailedTransferError(
                f"the microcontroller does not answer {said}", hint=_HINT
            )
        if ended.status == UNUSABLE:
            raise PatchError(f"the microcontroller cannot use it, {said}")
        raise SlotError(f"the microcontroller refuses {said}", hint=_HINT)


class PatientLink:
    """:class:`~sealift.agent.ports.Link` that asks again where that is harmless.

    ``write`` and ``finish`` are not repeated: a loader that started anew has forgotten
    what was begun, and whoever sends begins again. Nor is ``restart``: done twice, it
    ends the trial that it began.
    """

    def __init__(self, link: Link, pause: Callable[[], None], tries: int = 5) -> None:
        self._link = link
        self._pause = pause
        self._tries = tries

    def identify(self) -> Unit:
        """As the link."""
        return self._again(self._link.identify)

    def begin(self, parcel: Parcel) -> int:
        """As the link."""
        return self._again(lambda: self._link.begin(parcel))

    def write(self, offset: int, data: bytes) -> None:
        """As the link, once."""
        self._link.write(offset, data)

    def finish(self) -> None:
        """As the link, once."""
        self._link.finish()

    def test(self, slot: Slot) -> None:
        """As the link."""
        self._again(lambda: self._link.test(slot))

    def confirm(self, image_sha256: bytes) -> None:
        """As the link."""
        self._again(lambda: self._link.confirm(image_sha256))

    def restart(self) -> None:
        """As the link, once."""
        self._link.restart()

    def _again(self, verb: Callable[[], _T]) -> _T:
        for _ in range(self._tries - 1):
            try:
                return verb()
            except FailedTransferError:
                self._pause()
        return verb()


def unit_from_json(found: Mapping[str, object]) -> Unit:
    """What ``identify`` answers.

    Raises:
        FormatError: a member is missing, of a wrong type or out of range.
    """
    kinds = fields.texts(found, "kinds", 16, 64)
    return Unit(
        running=_slot(found, "running"),
        sha256=_digest(found, "sha256"),
        length=fields.count(found, "length"),
        confirmed=fields.flag(found, "confirmed"),
        next=_slot(found, "next"),
        boot_id=fields.text(found, "boot_id", 128),
        one_slot=fields.flag(found, "one_slot"),
        waiting=_digest(found, "waiting"),
        coming=_digest(found, "coming"),
        kinds=frozenset(kind for kind in PatchKind if kind.value in kinds),
        block=fields.count(found, "block", 1),
    )


def _slot(found: Mapping[str, object], name: str) -> Slot:
    value = fields.text(found, name, 1)
    if value not in set(Slot):
        raise MalformedError(f"{name} is neither a nor b", member=name)
    return Slot(value)


def _digest(found: Mapping[str, object], name: str) -> bytes | None:
    return None if found.get(name) is None else fields.digest(found, name, 32)


def _parcel(parcel: Parcel) -> bytes:
    patch = parcel.patch
    return json.dumps(
        {
            "slot": parcel.slot.value,
            "length": parcel.length,
            "sha256": parcel.sha256.hex(),
            "image_length": parcel.image_length,
            "image_sha256": parcel.image_sha256.hex(),
            "patch": None if patch is None else patch.to_json(),
        }
    ).encode("ascii")


def _object(raw: bytes) -> Mapping[str, object]:
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise MalformedError("its answer is not JSON") from error
    return fields.as_object(found, "its answer")


def _line(output: bytes) -> str:
    text = output.decode("ascii", "replace").strip()
    return "".join(it if it.isprintable() else " " for it in text)[:200]
