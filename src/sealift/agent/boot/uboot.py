"""Boot control for U-Boot, over its stored environment and libubootenv's two programs.

These six variables, and no others, are written, every step of a verb in one call of
``fw_setenv`` (device-D21), which writes the older of two copies and so changes all of
them or none::

    slot=b                what bootcmd starts
    good=a                the confirmed slot, which altbootcmd starts
    bootcount=1           starts of the trial so far; U-Boot counts before each
    upgrade_available=1   a trial; only while it is 1 U-Boot counts at all
    a_state=good          per slot: empty, writing, trial, good, bad; U-Boot never looks
    b_state=trial

A U-Boot built with ``ENV_WRITEABLE_LIST`` has to name all six in
``ENV_FLAGS_LIST_STATIC``, or it forgets one when it counts. ``bootlimit``, ``bootcmd``
and ``altbootcmd`` are then compiled in, and what stands in the store of them is only
what U-Boot, or the factory, wrote down when it last saved everything. They are looked
at there (device-D23), and nothing they lack can be armed; what U-Boot really does is
seen when it boots. A boot script may leave word in the device tree for Linux, as that
of ``boards/uboot`` does: ``/chosen/sealift,bootlimit`` counts for more than the store.

Both copies torn: nothing is guessed and nothing is written (device-D20). U-Boot then
starts its compiled-in slot, and an integrator provisions the environment again.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, get_args

from sealift.agent import command
from sealift.agent.ports import BootState
from sealift.agent.surroundings import ENVIRONMENT
from sealift.core.errors import BootError, MissingToolError
from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sealift.agent.ports import Clock

__all__ = [
    "LOOKED_AT",
    "WRITTEN",
    "Chosen",
    "Environment",
    "Tools",
    "UbootBoot",
    "UbootTools",
    "chosen",
]

WRITTEN: Final = (
    *("slot", "good", "bootcount", "upgrade_available", "a_state", "b_state"),
)
"""Every variable that is written, in the order in which they are asked for."""
LOOKED_AT: Final = ("bootlimit", "altbootcmd", "bootcmd")
"""Variables that are read only, behind those: their values may have line ends."""

Condition = Literal["empty", "writing", "trial", "good", "bad"]
_CONDITIONS: tuple[Condition, ...] = get_args(Condition)
_COUNT = re.compile(r"[0-9]{1,9}")
_RESETS = re.compile(r"(?:^|[;\s])reset[;\s]*\Z")
_NOTHING_VALID = 243  # what libubootenv ends with when no copy is valid
_PROPERTY_BYTES = 256
_CONFIG_BYTES = 64 * 1024
_PLACE = re.compile(
    r"([^#\s]\S*)\s+(?:0x)?[0-9a-fA-F]+\s|[\s-]*path\s*:\s*[\"']?([^\s\"']+)"
)
_AGAIN: Final = (
    "provision the environment again, for the slot that runs: docs/integrating.md"
)


class Environment(Protocol):
    """U-Boot's stored environment, as one value that changes durably in one step."""

    def read(self) -> Mapping[str, str]:
        """``WRITTEN`` and ``LOOKED_AT``; one that is not set is an empty text.

        Raises:
            BootError: no copy is valid, or the store cannot be read.
        """
        ...

    def settle(self) -> None:
        """What was written is durable when this returns, whoever wrote it.

        A process that was killed between its write and its flush leaves a copy that
        everybody reads and the next power cut takes back.

        Raises:
            BootError: the medium cannot promise it.
        """
        ...

    def write(self, changes: Mapping[str, str]) -> None:
        """Set all of these, or none; durable when it returns.

        Raises:
            BootError: the store refused.
        """
        ...


@dataclass(frozen=True, slots=True)
class Chosen:
    """What U-Boot left word of in the device tree when it started this kernel."""

    version: str = ""
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class _Store:
    """The environment, understood. ``limit`` is 0 if there is none."""

    slot: Slot
    good: Slot
    count: int
    upgrade: bool
    limit: int
    conditions: Mapping[Slot, str]

    @property
    def trial(self) -> Slot | None:
        """The slot on trial."""
        return self.slot if self.upgrade and self.slot is not self.good else None

    @property
    def left(self) -> int:
        """Starts the trial has left."""
        return max(0, self.limit - self.count)

    @property
    def next(self) -> Slot:
        """The slot U-Boot would start: it counts first, and compares then."""
        ended = self.upgrade and self.limit and self.count >= self.limit
        return self.good if ended else self.slot


class UbootBoot:
    """:class:`~sealift.agent.ports.BootControl` over U-Boot's environment.

    ``mounted`` tells what runs, ``started`` one start from another, ``chosen`` what
    U-Boot left word of. A trial gets as many starts as ``bootlimit`` says.

    Raises:
        BootError: from every verb but ``current``, when the environment cannot be read,
        or one of the six variables holds what it must not.
    """

    def __init__(
        self,
        environment: Environment,
        mounted: Callable[[], Slot],
        started: Callable[[], str],
        *,
        chosen: Callable[[], Chosen] = Chosen,
    ) -> None:
        self._environment = environment
        self._mounted = mounted
        self._started = started
        self._chosen = chosen

    def current(self) -> Slot:
        """The slot whose root is mounted (device-D2)."""
        return self._mounted()

    def next(self) -> Slot:
        """The slot U-Boot would start next."""
        return self._read().next

    def mark_writing(self, slot: Slot) -> None:
        """Nothing boots ``slot`` from now on (B9).

        Raises:
            BootError: it runs, or it is the confirmed one, or the store refused.
        """
        store = self._read()
        if slot in {self.current(), store.good}:
            raise BootError(f"slot {slot} is in use and cannot be written")
        self._write({**_rest(store.good), f"{slot}_state": "writing"})

    def set_next(self, slot: Slot, tries: int) -> None:
        """Put ``slot`` on trial, or disarm when it is the confirmed one. One write.

        ``tries`` is not U-Boot's to know: its ``bootlimit`` says how many.

        Raises:
            BootError: U-Boot could not end the trial, or the store refused.
        """
        del tries
        found = self._found()
        store = _understood(found)
        if slot is store.good:
            self._write({**_rest(store.good), **_failed(store)})
            return
        if missing := _missing(found):
            raise BootError(
                f"U-Boot could not end a trial: {'; '.join(missing)}",
                hint="build and provision it as docs/integrating.md says",
            )
        self._write(
            {
                "slot": slot.value,
                "bootcount": "0",
                "upgrade_available": "1",
                f"{slot}_state": "trial",
            }
        )

    def mark_good(self) -> None:
        """The running slot becomes the confirmed one (B7). One write.

        Raises:
            BootError: the store refused; what booted before still boots.
        """
        current, store = self.current(), self._read()
        failed = _failed(store) if store.trial is current.other else {}
        self._write(
            {
                **_rest(current),
                **failed,
                "good": current.value,
                f"{current}_state": "good",
            }
        )

    def state(self) -> BootState:
        """What the environment says, in words, and what it lacks."""
        found = self._found()
        store = _understood(found)
        slots = {slot: _condition(store, slot) for slot in Slot}
        return BootState(
            "uboot",
            slots,
            counts_attempts=store.limit > 0,
            remarks=tuple(self._remarks(found, store)),
            missing=_missing(found),
            version=self._chosen().version,
        )

    def boot_id(self) -> str:
        """Another text after every start of the machine."""
        return self._started()

    def _remarks(self, found: Mapping[str, str], store: _Store) -> list[str]:
        remarks = []
        if found["altbootcmd"] and not _RESETS.search(found["altbootcmd"]):
            remarks.append('altbootcmd does not end in "reset"')
        if store.trial is not None and not store.count:
            if store.trial is self.current():
                remarks.append(f"slot {store.trial} was started and not counted")
        elif store.trial is None and store.slot is not store.good:
            remarks.append(f"slot {store.slot} starts, and was never confirmed")
        return remarks

    def _read(self) -> _Store:
        return _understood(self._found())

    def _found(self) -> Mapping[str, str]:
        """The environment, with what U-Boot itself said of its ``bootlimit``."""
        found, told = self._environment.read(), self._chosen().limit
        return found if told is None else {**found, "bootlimit": str(told)}

    def _write(self, wanted: Mapping[str, str]) -> None:
        """Write what differs, if anything does, and see that it is there.

        What is found is made durable before it is believed, and before the other copy
        is touched: else a cut could tear both.
        """
        self._environment.settle()
        before = self._environment.read()
        if _holds(before, wanted):
            return
        self._environment.write(wanted)
        if not _holds(self._environment.read(), wanted):
            raise BootError("U-Boot's environment does not hold what was written")


def _holds(found: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(found[name] == value for name, value in wanted.items())


def _rest(good: Slot) -> dict[str, str]:
    """Nobody on trial, ``good`` starts."""
    return {"slot": good.value, "bootcount": "0", "upgrade_available": "0"}


def _failed(store: _Store) -> dict[str, str]:
    """Who was on trial has failed."""
    return {} if store.trial is None else {f"{store.trial}_state": "bad"}


def _condition(store: _Store, slot: Slot) -> str:
    if slot is store.trial:
        return f"trial({store.left})"
    found = store.conditions[slot]
    if found == "":
        return "good" if slot is store.good else "empty"
    # A trial that nobody armed any more, or of the confirmed slot, is none.
    if found == "trial":
        return "good" if slot is store.good else "bad"
    return found


def _understood(found: Mapping[str, str]) -> _Store:
    """The six variables, strictly; what only U-Boot reads, as U-Boot reads it."""
    limit = found["bootlimit"]
    return _Store(
        slot=_slot(found, "slot"),
        good=_slot(found, "good"),
        count=_number(found, "bootcount"),
        upgrade=_flag(found, "upgrade_available"),
        limit=int(limit) if _COUNT.fullmatch(limit) else 0,
        conditions={slot: _word(found, f"{slot}_state") for slot in Slot},
    )


def _slot(found: Mapping[str, str], name: str) -> Slot:
    if found[name] not in set(Slot):
        raise _wrong(found, name, "is neither a nor b")
    return Slot(found[name])


def _number(found: Mapping[str, str], name: str) -> int:
    if found[name] and not _COUNT.fullmatch(found[name]):
        raise _wrong(found, name, "is not a number")
    return int(found[name] or 0)


def _flag(found: Mapping[str, str], name: str) -> bool:
    if found[name] not in {"", "0", "1"}:
        raise _wrong(found, name, "is neither 0 nor 1")
    return found[name] == "1"


def _word(found: Mapping[str, str], name: str) -> str:
    if found[name] not in {"", *_CONDITIONS}:
        raise _wrong(found, name, f"is none of {', '.join(_CONDITIONS)}")
    return found[name]


def _wrong(found: Mapping[str, str], name: str, why: str) -> BootError:
    return BootError(
        f"U-Boot's variable {name} {why}: {found[name][:40]!a}", hint=_AGAIN
    )


def _missing(found: Mapping[str, str]) -> tuple[str, ...]:
    """What U-Boot lacks for its duties, as far as the store shows it (device-D23)."""
    limit = found["bootlimit"]
    checks = {
        "bootlimit is not set, so a trial never ends": (
            _COUNT.fullmatch(limit) and int(limit) > 0
        ),
        "altbootcmd is not set, so a trial ends at the prompt": found["altbootcmd"],
        'bootcmd does not end in "reset", so a refused image ends at the prompt': (
            _RESETS.search(found["bootcmd"])
        ),
        "upgrade_available is not set, so nothing is counted": (
            found["upgrade_available"]
        ),
    }
    return tuple(text for text, held in checks.items() if not held)


# ── the programs ─────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Tools:
    """Where libubootenv's programs and their configuration are, and their time."""

    printer: str
    setter: str
    config: str
    deadline: float


class UbootTools:
    """:class:`Environment` by ``fw_printenv`` and ``fw_setenv``. Never ``-f``."""

    def __init__(
        self,
        tools: Tools,
        clock: Clock,
        surroundings: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        self._tools = tools
        self._clock = clock
        self._surroundings = surroundings

    def read(self) -> Mapping[str, str]:
        """Ask for exactly these variables, in this order.

        Raises:
            BootError: no copy is valid; or no answer, too long, or of a wrong form.
            MissingToolError: the program is not there.
        """
        names = (*WRITTEN, *LOOKED_AT)
        output = self._run(self._tools.printer, *names)
        if len(output) >= command.OUTPUT_MAX:
            raise BootError("U-Boot's environment is too long to be read", hint=_AGAIN)
        pattern = "".join(rf"{name}=(.*?)\n" for name in WRITTEN)
        # Values of the last three may have line ends; they decide about nothing else.
        pattern += "".join(rf"{name}=(?s:(.*?))\n" for name in LOOKED_AT)
        text = output.decode("utf-8", "replace")
        found = re.fullmatch(pattern, text)
        if found is None:
            raise BootError(
                f"{self._tools.printer} answers in a form unknown here",
                hint="it has to be the one of libubootenv (Debian: libubootenv-tool)",
            )
        return dict(zip(names, found.groups(), strict=True))

    def settle(self) -> None:
        """``fsync`` each place that the configuration names.

        Raises:
            BootError: it names none, or one cannot be flushed.
        """
        places = _places(self._tools.config)
        if not places:
            raise BootError(
                f"{self._tools.config} names no place of the environment",
                hint="one line per copy: file or device, offset, size",
            )
        for place in places:
            _flush(place)

    def write(self, changes: Mapping[str, str]) -> None:
        """All of them by one call, from a file that lies in memory.

        Raises:
            BootError: it failed, or did not end in time. MissingToolError: it is not
            there.
        """
        step = "".join(f"{name}={value}\n" for name, value in changes.items())
        # Not /dev/stdin: where it is missing (no udev), fw_setenv sets nothing
        # and ends well.
        words = ("-s", "/proc/self/fd/0")
        self._run(self._tools.setter, *words, given=step.encode("ascii"))

    def _run(self, program: str, *words: str, given: bytes = b"") -> bytes:
        argv = [program, "-c", self._tools.config, *words]
        try:
            ended = command.run(
                argv,
                self._surroundings,
                deadline=self._tools.deadline,
                clock=self._clock,
                given=given,
                errors=False,
            )
        except (OSError, ValueError) as error:
            raise MissingToolError(
                f"{program} cannot be started: {error}",
                hint="install libubootenv-tool, or see [boot] fw_printenv, fw_setenv",
            ) from error
        if ended.status == 0:
            return ended.output
        if ended.status is None:
            raise BootError(f"{program} did not end in {self._tools.deadline:g} s")
        if ended.status == _NOTHING_VALID:
            raise BootError(
                "no copy of U-Boot's environment is valid, so it starts the slot that "
                f"is compiled in; or {self._tools.config} does not name it",
                hint=_AGAIN,
            )
        raise BootError(
            f"{program} ended with status {ended.status}",
            hint=f"see {self._tools.config}, and run it by hand",
        )


def _places(config: str) -> list[str]:
    """Where ``fw_env.config`` says: the first words of its lines, or YAML's paths."""
    try:
        with open(config, encoding="utf-8", errors="replace") as file:
            lines = file.read(_CONFIG_BYTES).splitlines()
    except OSError as error:
        raise BootError(f"{config}: {error.strerror}") from error
    found = [match[1] or match[2] for line in lines if (match := _PLACE.match(line))]
    return list(dict.fromkeys(found))


def _flush(place: str) -> None:
    """Make what was written there durable; a volume of UBI or an MTD by name is so.

    Raises:
        BootError: it is not there, or refuses.
    """
    if not place.startswith("/") or ":" in place:
        return
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # raw flash has no cache, and no fsync either
            raise BootError(f"{place}: {error.strerror}") from error


def chosen(proc: str = "/proc") -> Chosen:
    """Read it; what is absent, or of another form, was not said."""
    version = _property(proc, "u-boot,version").rstrip(b"\0").decode("ascii", "replace")
    limit = _property(proc, "sealift,bootlimit")
    return Chosen(
        version if version.isprintable() else ascii(version),
        int.from_bytes(limit, "big") if len(limit) == 4 else None,
    )


def _property(proc: str, name: str) -> bytes:
    try:
        with open(os.path.join(proc, "device-tree/chosen", name), "rb") as file:
            return file.read(_PROPERTY_BYTES)
    except OSError:
        return b""
