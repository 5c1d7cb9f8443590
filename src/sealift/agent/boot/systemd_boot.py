"""Boot control for systemd-boot: two variables decide, names are the second line.

Each slot has one unified kernel image in ``EFI/Linux``; its name carries the slot, its
``.osrel`` the version. ``LoaderEntryDefault`` is ``sealift-a*`` or ``sealift-b*`` and
names home; it changes in :meth:`SystemdBoot.mark_good` and nowhere else (device-D3),
but for one case: lost, it is set again to what the names say before anything builds on
it. ``LoaderEntryOneShot`` is the exact name of the slot on trial; the loader deletes it
before it starts anything. So a trial is one start, and an image the firmware refuses
ends at home in the same power-on, which no other way gives (device-D1).

Names count too, for the day the variables are gone (device-D9): ``sealift-b+3.efi`` is
unconfirmed and has three starts, ``sealift-b.efi`` is confirmed. On a board whose
firmware keeps no variables (``variables`` is ``None``) they decide alone: then a file
waits in ``EFI/sealift`` until it is armed, and a hardware watchdog is needed, for an
image that is refused stops the loader.

What runs is never asked of the loader (device-D2): ``current`` comes from outside.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

from sealift.agent import log
from sealift.agent.efivars import FIRMWARE, as_text, as_value
from sealift.agent.entries import (
    LINUX,
    Entry,
    Release,
    entries,
    first,
    matching,
    name_of,
)
from sealift.agent.placing import OURS, PIECE_BYTES, clean, digest_of, put, retitle
from sealift.agent.ports import BootState
from sealift.core.bootable import check_line, command_lines
from sealift.core.errors import (
    BootError,
    DeviceError,
    FormatError,
    SlotError,
    SpaceError,
)
from sealift.core.pe import read_pe
from sealift.core.types import Artifact, Bootable, BootKind, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.agent.efivars import Variables
    from sealift.agent.esp import Partition
    from sealift.agent.ports import SlotDevice

__all__ = ["NAME_TRIES", "TESTED", "SystemdBoot"]

NAME_TRIES: Final = 3
"""Starts a name grants, should the variables be lost while its slot is on trial."""
TESTED: Final = frozenset({"252"})
"""Versions the benches start; of others we know nothing."""
_MISCOUNT: Final = frozenset({"258", "259"})
"""Versions that are reported to count wrongly (systemd issues 40192 and 40405)."""

DEFAULT: Final = "LoaderEntryDefault"
ONE_SHOT: Final = "LoaderEntryOneShot"
_RIVALS: Final = ("LoaderEntryPreferred", "LoaderEntrySysFail")
"""Variables of newer versions that name an entry as well."""
_PINNED: Final = re.compile(r"sealift-([ab])\*")
_VERSION: Final = re.compile(r"systemd-boot ([0-9]+)")
_CONF: Final = "loader/loader.conf"
_CONF_MAX: Final = 4096
_OSREL_MAX: Final = 4096
_SLACK_BYTES: Final = 64 * 1024  # clusters and directories


class SystemdBoot:
    """:class:`~sealift.agent.ports.BootControl` and ``BootFiles`` on an ESP.

    ``tries`` are the starts a name grants. Errors of the partition and the firmware are
    ``BootError`` from every verb; those of ``place`` and ``check`` as the port says.
    """

    def __init__(
        self,
        variables: Variables | None,
        esp: Partition,
        current: Callable[[], Slot],
        boot_id: Callable[[], str],
        *,
        tries: int = NAME_TRIES,
    ) -> None:
        self._variables = variables
        self._esp = esp
        self._current = current
        self._boot_id = boot_id
        self._tries = tries

    # ── the six verbs ────────────────────────────────────────────────────────────────
    def current(self) -> Slot:
        """The slot whose root is mounted."""
        return self._current()

    def boot_id(self) -> str:
        """Another text after every start of the machine."""
        return self._boot_id()

    def next(self) -> Slot:
        """What the loader would start, decided as the loader does.

        Raises:
            BootError: there is nothing it could start.
        """
        with self._using(write=False):
            found = self._next(self._entries())
        if found is None:
            raise BootError(
                f"there is nothing in {LINUX} that the loader could start",
                hint="the EFI system partition was changed by somebody else",
            )
        return found.slot

    def mark_writing(self, slot: Slot) -> None:
        """Take everything away that could start ``slot``, and flush (B9, device-D10).

        Raises:
            BootError: it runs, or it is home, or the store refused.
        """
        with self._using(write=True):
            home = self._home(self._entries())
            if slot in {self._current(), home}:
                raise BootError(f"slot {slot} is in use and cannot be written")
            self._pin(home)
            clean(self._esp, LINUX)
            self._take_away(slot)
            self._try_to_tidy(home)

    def set_next(self, slot: Slot, tries: int) -> None:
        """Arm ``slot`` by its exact name; with home, disarm.

        Raises:
            BootError: it has no entry, home has none, or the store refused.
        """
        with self._using(write=True):
            found = self._entries()
            home = self._home(found)
            if slot is home:
                self._disarm(home)
                return
            self._pin(home)
            if self._variables is None:
                self._arm_by_name(slot, home, tries)
            else:
                self._set(ONE_SHOT, self._entry(slot, found).name)

    def mark_good(self) -> None:
        """What runs becomes home: one variable decides, then its name follows (B7).

        With variables, a name that cannot follow (no room) is told in ``state`` and
        tried again at the next opportunity: the decision stands.

        Raises:
            BootError: the store refused the decision, or what runs has no entry.
        """
        current = self._current()
        with self._using(write=True):
            entry = self._entry(current, self._entries())
            if self._variables is None:
                self._confirm_by_name(entry)
                return
            self._set(DEFAULT, f"sealift-{current}*")
            self._delete(ONE_SHOT)
            self._try_to_tidy(current)

    def state(self) -> BootState:
        """Loader, slots, and whatever is not as it should be."""
        with self._using(write=False):
            found = self._entries()
            home, current = self._home(found), self._current()
            armed = self._next(found)
            slots = {
                slot: self._condition(slot, home, current, armed, found)
                for slot in Slot
            }
            remarks = (*self._remarks(home, found), *self._esp.remarks())
            missing = tuple(self._missing(home, found))
        return BootState(
            "systemd-boot",
            slots,
            counts_attempts=self._variables is None,
            remarks=remarks,
            missing=missing,
            version=self._text("LoaderInfo"),
        )

    # ── boot files ───────────────────────────────────────────────────────────────────
    def accept(self, image: Artifact) -> None:
        """Room for the old image, the new one, and its copy under a confirmed name.

        Raises:
            BootError: no boot file for this loader. SpaceError: no room (device-D11).
        """
        bootable = _uki(image)
        with self._esp.using(write=False):
            slot = self._current().other
            freed = sum(it.size for it in self._entries() if it.slot is slot)
            freed += sum(self._esp.files(OURS).values())
            needed = 2 * (bootable.length + _SLACK_BYTES)
            if self._esp.room() + freed < needed:
                raise SpaceError(
                    f"the EFI system partition has no room for {needed} bytes more",
                    hint="it has to hold three boot files; nothing was touched",
                )

    def place(self, slot: Slot, image: Artifact, source: SlotDevice) -> None:
        """Copy the boot file out of the slot, compare it, and only then name it (D6).

        One that is there already, unstarted, with all its bytes, stays.

        Raises:
            SlotError: what was read back is not the signed file. SpaceError: no room.
            BootError: ``slot`` is in use, or the partition refused.
        """
        bootable = _uki(image)
        with self._settled():
            home = self._home(self._entries())
            if slot in {self._current(), home}:
                raise BootError(f"slot {slot} is in use; its boot file is not replaced")
            self._pin(home)
            clean(self._esp, LINUX)
            if self._is_placed(slot, bootable):
                self._forget(slot)
                return
            self._take_away(slot)
            put(
                self._esp,
                self._place_of(slot),
                _part(source, bootable),
                bootable.sha256,
                lambda name: self._belongs(name, bootable),
            )

    def check(self, slot: Slot, image: Artifact) -> None:
        """The boot file of ``slot``, read from the medium, is that of ``image``.

        Raises:
            SlotError: it is not, or there is none.
        """
        bootable = _uki(image)
        with self._esp.using(write=False):
            found = {it.path: it.size for it in self._entries() if it.slot is slot}
            for name in self._waiting(slot):
                found[name] = self._esp.files(OURS)[name.removeprefix(f"{OURS}/")]
            if not found:
                raise SlotError(f"slot {slot} has no boot file")
            for name, size in found.items():
                self._check_file(name, size, bootable)

    # ── what the loader would do ─────────────────────────────────────────────────────
    def _next(self, found: list[Entry]) -> Entry | None:
        """One-shot, default, configuration, order: whoever speaks first."""
        for text in (self._text(ONE_SHOT), self._text(DEFAULT), self._configured()):
            if text and (it := first(matching(found, text), self._release)):
                return it
        return first(found, self._release)

    def _home(self, found: list[Entry]) -> Slot:
        """The confirmed slot: by the variable, else by the names."""
        pinned = self._pinned()
        if pinned is not None:
            return pinned
        current = self._current()
        confirmed = {it.slot for it in found if it.confirmed}
        return current if current in confirmed or not confirmed else current.other

    def _pinned(self) -> Slot | None:
        text = _PINNED.fullmatch(self._text(DEFAULT))
        return None if text is None else Slot(text[1])

    def _configured(self) -> str:
        """``default`` of the loader's own configuration; nobody should set it."""
        raw = self._esp.read(_CONF, 0, _CONF_MAX) if self._has(_CONF) else b""
        found = ""
        for line in raw.decode("utf-8", "replace").splitlines():
            words = line.split(None, 1)
            if len(words) == 2 and words[0] == "default":
                found = words[1].strip()
        return found

    def _release(self, entry: Entry) -> Release | None:
        """By what the loader sorts an entry; ``None`` if it would not list it."""

        def read(offset: int, length: int) -> bytes:
            return self._esp.read(entry.path, offset, length)

        try:
            raw = read_pe(read, entry.size).content(read, ".osrel", _OSREL_MAX)
        except FormatError:
            return None
        return None if raw is None else _os_release(raw)

    # ── steps, each of which can be repeated ─────────────────────────────────────────
    def _pin(self, home: Slot) -> None:
        """Home is named before anything is done that needs it to be (device-D1)."""
        self._entry(home, self._entries())
        if self._variables is not None and self._pinned() is None:
            self._set(DEFAULT, f"sealift-{home}*")

    def _disarm(self, home: Slot) -> None:
        """No start leads to the other slot, even without variables."""
        self._delete(ONE_SHOT)
        if any(it.slot is home for it in self._entries()):
            self._pin(home)
        if self._current() is home.other:
            return  # what runs keeps its entry (B3); home does this once it runs
        gone = [it for it in self._entries() if it.slot is not home]
        for entry in gone:
            if not entry.confirmed:
                self._esp.remove(entry.path)
        if any(not it.confirmed for it in gone):
            self._esp.sync()

    def _take_away(self, slot: Slot) -> None:
        """Variable, entries and waiting file of ``slot``; flushed."""
        self._forget(slot)
        mine = [it.path for it in self._entries() if it.slot is slot]
        names = [*mine, *self._waiting(slot)]
        for name in names:
            self._esp.remove(name)
        if names:
            self._esp.sync()

    def _forget(self, slot: Slot) -> None:
        """No one-shot that names ``slot``, or an entry it may get."""
        named = matching(self._entries(), self._text(ONE_SHOT))
        if {it.slot for it in named} != {slot.other}:
            self._delete(ONE_SHOT)

    def _try_to_tidy(self, home: Slot) -> None:
        """The decision stands without it."""
        try:
            clean(self._esp, LINUX)
            self._tidy(home)
        except DeviceError as error:
            log.failed("untidy", error, slot=home.value)

    def _tidy(self, slot: Slot) -> None:
        """Give the confirmed slot its confirmed name, and no other."""
        for entry in self._entries():
            if entry.slot is slot and not entry.confirmed:
                retitle(self._esp, entry.path, f"{LINUX}/{name_of(slot)}")

    # ── without variables ────────────────────────────────────────────────────────────
    def _arm_by_name(self, slot: Slot, home: Slot, tries: int) -> None:
        """Let the loader see a name with ``tries`` starts that sorts before home."""
        wanted = f"{LINUX}/{name_of(slot, max(tries, 1))}"
        mine = [it for it in self._entries() if it.slot is slot]
        if waiting := self._waiting(slot):  # whatever there is beside it is older
            for entry in mine:
                if entry.path != wanted:
                    self._esp.remove(entry.path)
            retitle(self._esp, waiting[0], wanted)
        elif mine and all(it.left == 0 for it in mine):
            retitle(self._esp, mine[0].path, wanted)
        entry = self._entry(slot, self._entries())
        if self._next_slot() is not slot and entry.confirmed:
            self._step_back(home)
        if self._next_slot() is not slot:
            raise BootError(
                f"the loader sorts slot {slot} behind slot {home}",
                hint="without variables only a newer IMAGE_VERSION can be tried",
            )

    def _confirm_by_name(self, entry: Entry) -> None:
        """The confirmed name is the decision; whoever would still come first goes."""
        clean(self._esp, LINUX)
        self._tidy(entry.slot)
        if self._next_slot() is not entry.slot:
            self._step_back(entry.slot.other)

    def _step_back(self, slot: Slot) -> None:
        """Have ``slot`` sort last: unconfirmed it goes, confirmed it has no starts."""
        for entry in self._entries():
            if entry.slot is not slot:
                continue
            if entry.confirmed:
                retitle(self._esp, entry.path, f"{LINUX}/{name_of(slot, 0)}")
            else:
                self._esp.remove(entry.path)
                self._esp.sync()

    def _next_slot(self) -> Slot | None:
        found = self._next(self._entries())
        return None if found is None else found.slot

    def _waiting(self, slot: Slot) -> list[str]:
        """The placed file that is not armed yet, outside of what the loader sees."""
        name = name_of(slot)
        return [f"{OURS}/{name}"] if self._esp.files(OURS).get(name) else []

    # ── boot files ───────────────────────────────────────────────────────────────────
    def _place_of(self, slot: Slot) -> str:
        if self._variables is None:
            return f"{OURS}/{name_of(slot)}"
        return f"{LINUX}/{name_of(slot, self._tries)}"

    def _is_placed(self, slot: Slot, bootable: Bootable) -> bool:
        """Whether exactly what ``place`` would make is there."""
        found = [it.path for it in self._entries() if it.slot is slot]
        if [*found, *self._waiting(slot)] != [self._place_of(slot)]:
            return False
        name = self._place_of(slot)
        self._esp.flush(name)
        return digest_of(self._esp, name) == bootable.sha256

    def _check_file(self, name: str, size: int, bootable: Bootable) -> None:
        self._esp.flush(name)
        if size != bootable.length or digest_of(self._esp, name) != bootable.sha256:
            raise SlotError(
                f"{name} is not the signed boot file of what is in the slot"
            )
        self._belongs(name, bootable)

    def _belongs(self, name: str, bootable: Bootable) -> None:
        """The command line inside names the signed root.

        Raises:
            SlotError: it does not.
        """

        def read(offset: int, length: int) -> bytes:
            return self._esp.read(name, offset, length)

        try:
            for line in command_lines(BootKind.UKI, read, bootable.length):
                check_line(line, bootable)
        except BootError as error:
            raise SlotError(error.message, hint=error.hint) from error

    # ── state ────────────────────────────────────────────────────────────────────────
    def _condition(
        self,
        slot: Slot,
        home: Slot,
        current: Slot,
        armed: Entry | None,
        found: list[Entry],
    ) -> str:
        mine = [it for it in found if it.slot is slot]
        left = max((it.left or 0 for it in mine), default=0)
        if not mine and self._waiting(slot):
            return "writing"
        if not mine:
            return "bad" if slot is home else "empty"
        if slot is home:
            return "good"
        if armed is not None and armed.slot is slot:
            return f"trial({1 if self._text(ONE_SHOT) else left})"
        if slot is current:
            return f"trial({left if self._variables is None else 0})"
        if any(it.confirmed for it in mine):
            return "good"
        return "bad" if any(it.done or not it.left for it in mine) else "writing"

    def _missing(self, home: Slot, found: list[Entry]) -> Iterator[str]:
        """What keeps an update from coming home."""
        mine = [it for it in found if it.slot is home]
        if not mine:
            yield f"the confirmed slot {home} has no entry in {LINUX}"
        info = self._text("LoaderInfo")
        if self._variables is not None and not _VERSION.match(info):
            yield f"the loader calls itself {info!r}: it is not systemd-boot"

    def _remarks(self, home: Slot, found: list[Entry]) -> Iterator[str]:
        mine = [it for it in found if it.slot is home]
        if mine and not any(it.confirmed for it in mine):
            yield f"the name of the confirmed slot {home} still counts its starts"
        known = {it.name for it in found}
        for name in self._esp.files(LINUX):
            if name not in known and name.lower().endswith(".efi"):
                yield f"{LINUX}/{name} is not ours; the loader may start it"
        if self._configured():
            yield f"{_CONF} sets a default; take it out, {DEFAULT} decides"
        if self._variables is None:
            yield (
                "the firmware keeps no variables: a refused image stops the loader, "
                "so a hardware watchdog is required"
            )
            return
        yield from self._loader_remarks(home)

    def _loader_remarks(self, home: Slot) -> Iterator[str]:
        if self._pinned() is None:
            named = self._text(DEFAULT)
            lost = f"is {named!r}" if named else "is not there"
            yield f"{DEFAULT} {lost}; slot {home} boots, by its name"
        version = _VERSION.match(self._text("LoaderInfo"))
        if version and version[1] in _MISCOUNT:
            yield f"systemd-boot {version[1]} is reported to count starts wrongly"
        elif version and version[1] not in TESTED:
            yield f"systemd-boot {version[1]} is none of the tested {_tested()}"
        for name in _RIVALS:
            if self._text(name):
                yield f"{name} is set; newer loaders may follow it instead"
        if self._flag("SecureBoot") is not True:
            yield "Secure Boot is off: the firmware starts anything"
        if self._flag("SetupMode") is True:
            yield "the firmware is in setup mode: anybody can enrol keys"

    # ── partition and firmware ───────────────────────────────────────────────────────
    @contextlib.contextmanager
    def _using(self, *, write: bool) -> Iterator[None]:
        with _as_boot_error():
            if not write:
                with self._esp.using(write=False):
                    yield
                return
            with self._settled():
                yield

    @contextlib.contextmanager
    def _settled(self) -> Iterator[None]:
        """What is found is durable before it is believed: who wrote it may have been
        killed before it was.
        """
        with self._esp.using(write=True):
            self._esp.sync()
            yield

    def _entries(self) -> list[Entry]:
        return entries(self._esp.files(LINUX))

    def _entry(self, slot: Slot, found: list[Entry]) -> Entry:
        """The entry of a slot; the confirmed one, if a cut left two."""
        mine = [it for it in found if it.slot is slot]
        if not mine:
            raise BootError(
                f"slot {slot} has no entry in {LINUX}",
                hint="put its boot file there again: docs/boards/uefi-x86.md",
            )
        return min(mine, key=lambda it: (not it.confirmed, it.name))

    def _has(self, name: str) -> bool:
        directory, _, base = name.rpartition("/")
        return base in self._esp.files(directory)

    def _text(self, name: str) -> str:
        return "" if self._variables is None else as_text(self._variables.read(name))

    def _flag(self, name: str) -> bool | None:
        """A variable of the firmware itself, one byte."""
        if self._variables is None:
            return None
        value = self._variables.read(name, FIRMWARE)
        return None if not value else value[0] == 1

    def _set(self, name: str, text: str) -> None:
        if self._variables is not None and self._text(name) != text:
            self._variables.write(name, as_value(text))

    def _delete(self, name: str) -> None:
        if self._variables is not None and self._variables.read(name) is not None:
            self._variables.delete(name)


def _tested() -> str:
    return ", ".join(sorted(TESTED))


@contextlib.contextmanager
def _as_boot_error() -> Iterator[None]:
    """The switch knows one error; full and misread are reasons for it."""
    try:
        yield
    except (SlotError, SpaceError) as error:
        raise BootError(error.message, hint=error.hint) from error


def _uki(image: Artifact) -> Bootable:
    """The boot file of an image, if this loader can start it.

    Raises:
        BootError: it has none, or one of another kind.
    """
    if image.bootable is None or image.bootable.kind is not BootKind.UKI:
        raise BootError(
            f"{image.name} has no unified kernel image for systemd-boot",
            hint="build the release with `sealift release secure-boot`",
        )
    return image.bootable


def _part(source: SlotDevice, bootable: Bootable) -> Iterator[bytes]:
    offset, end = bootable.offset, bootable.offset + bootable.length
    while offset < end:
        piece = source.read(offset, min(PIECE_BYTES, end - offset))
        if not piece:
            raise SlotError("the slot ends before the boot file does")
        yield piece
        offset += len(piece)


def _os_release(raw: bytes) -> Release:
    """Id and version as the loader takes them (os-release; values may be quoted)."""
    found: dict[str, str] = {}
    for line in raw.decode("utf-8", "replace").partition("\0")[0].splitlines():
        name, _, value = line.strip().partition("=")
        found[name] = value.strip("\"'")
    versions = ("IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID")
    version = next((found[name] for name in versions if name in found), "")
    return Release(found.get("IMAGE_ID") or found.get("ID", ""), version)
