"""systemd-boot's part, as version 252 does it under OVMF (device.md 1.4).

At each start the one-shot is read and deleted, then the default's pattern is looked
for, then the order of the entries decides; a counted name is counted down by renaming,
also when the one-shot named it; then the firmware starts the image, or refuses it. A
refusal ends the loader. The firmware starts that once more, and then stops for ever,
unless the board has a hardware watchdog.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from typing import TYPE_CHECKING, ClassVar, Final

from sealift.agent.boot.systemd_boot import SystemdBoot
from sealift.agent.efivars import FIRMWARE, LOADER, as_text, as_value
from sealift.core.errors import BootError, FormatError, SpaceError
from sealift.core.pe import read_pe
from sealift.core.types import Slot
from sealift.core.version import Version
from sealift.sim.flash import FlashSlot
from sealift.sim.loaders.esp import FlashPartition, FlashVariables
from sealift.sim.loaders.uki import bootable_image, made_up_root, tiny_uki
from sealift.sim.loaders.world import LoaderWorld

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.efivars import Variables
    from sealift.agent.esp import Partition
    from sealift.core.types import Artifact
    from sealift.sim.flash import Flash

__all__ = ["NamesWorld", "SystemdBootLoader", "SystemdBootWorld"]

INFO: Final = "systemd-boot 252.39-1~deb12u1"
_COUNTED: Final = re.compile(r"(.+)\+([0-9]+)(?:-([0-9]+))?(\.efi)")
_OURS: Final = re.compile(r"sealift-([ab])[.+]")
_RUNS: Final = 2
"""How often the firmware starts a loader that comes back."""


class SystemdBootLoader:
    """The loader itself; ``variables`` is ``None`` where the firmware has none."""

    def __init__(self, variables: Variables | None, esp: Partition) -> None:
        self._variables = variables
        self._esp = esp

    def run(self, starts: Callable[[Slot], bool]) -> Slot | None:
        """From its start to the kernel's; ``None``: it was refused."""
        name = self._pick()
        if name is None:
            return None
        self._count(name)
        found = _OURS.match(name)
        if found is None:
            return None
        slot = Slot(found[1])
        return slot if starts(slot) else None

    def default(self) -> str | None:
        """The entry that starts with no one-shot."""
        names = self._listed()
        pattern = self._text("LoaderEntryDefault")
        named = [it for it in names if pattern and fnmatch.fnmatchcase(it, pattern)]
        return next(iter(named or names), None)

    def _pick(self) -> str | None:
        names = self._listed()
        one_shot = self._text("LoaderEntryOneShot")
        if one_shot and self._variables is not None:
            with contextlib.suppress(BootError):  # it does not look whether it worked
                self._variables.delete("LoaderEntryOneShot")
            for name in names:
                if fnmatch.fnmatchcase(name, one_shot):
                    return name
        return self.default()

    def _listed(self) -> list[str]:
        """Every image with an ``.osrel``, in the loader's order."""
        found = {}
        for name, size in self._esp.files("EFI/Linux").items():
            version = self._version(f"EFI/Linux/{name}", size)
            if version is not None:
                found[name] = version
        names = sorted(found, reverse=True)
        names.sort(key=lambda it: Version(found[it]), reverse=True)
        names.sort(key=_exhausted)
        return names

    def _version(self, path: str, size: int) -> str | None:
        def read(offset: int, length: int) -> bytes:
            return self._esp.read(path, offset, length)

        try:
            raw = read_pe(read, size).content(read, ".osrel", 4096)
        except FormatError:
            return None
        found = re.search(rb"^IMAGE_VERSION=(.*)$", raw or b"", re.MULTILINE)
        return found[1].decode() if found else None

    def _count(self, name: str) -> None:
        found = _COUNTED.fullmatch(name)
        if found is None or (not int(found[2]) and found[3] is None):
            return
        left, done = max(0, int(found[2]) - 1), int(found[3] or 0) + 1
        try:
            self._esp.rename(
                f"EFI/Linux/{name}", f"EFI/Linux/{found[1]}+{left}-{done}.efi"
            )
            self._esp.sync()
        except (BootError, SpaceError):
            return  # it says so on its console and goes on

    def _text(self, name: str) -> str:
        return "" if self._variables is None else as_text(self._variables.read(name))


def _exhausted(name: str) -> bool:
    found = _COUNTED.fullmatch(name)
    return found is not None and not int(found[2])


class SystemdBootWorld(LoaderWorld):
    """A board with variables, Secure Boot on, and no hardware watchdog."""

    kind = "systemd-boot"
    keeps_conditions = False
    losses: ClassVar[tuple[str, ...]] = ("nvram",)
    variables_kept: ClassVar[bool] = True

    def __init__(self, flash: Flash | None = None) -> None:
        super().__init__(flash)
        self.releases = 1
        self.format()
        self.provide("LoaderEntryDefault", as_value("sealift-a*"))
        self.provide("SecureBoot", b"\1", FIRMWARE)
        self.provide("SetupMode", b"\0", FIRMWARE)
        self.deliver(Slot.A, *bootable_image("1"))

    def format(self) -> None:
        """A new partition."""
        FlashPartition(self.flash).format()

    def provide(self, name: str, value: bytes, vendor: str = LOADER) -> None:
        """Have a variable there that the factory, the firmware or the loader sets."""
        if self.variables_kept:
            FlashVariables(self.flash).provide(name, value, vendor)

    @classmethod
    def boot_file(cls, version: str) -> bytes:
        """The smallest image with that version."""
        return tiny_uki(version, *made_up_root(version), 1)

    def deliver(self, slot: Slot, content: bytes, image: Artifact) -> None:
        """Put an image's boot file on the partition, confirmed, as the factory does."""
        bootable = image.bootable
        if bootable is None:
            return
        cuts, self.flash.door.cuts = self.flash.door.cuts, frozenset()
        esp, name = self.partition(), f"EFI/Linux/sealift-{slot}.efi"
        esp.create(name)
        esp.append(name, content[bootable.offset :][: bootable.length])
        esp.sync()
        self.flash.door.cuts, self.flash.door.steps = cuts, 0

    def partition(self) -> Partition:
        """The partition, opened anew."""
        return FlashPartition(self.flash)

    def variables(self) -> Variables | None:
        """The firmware's variables."""
        return FlashVariables(self.flash) if self.variables_kept else None

    def boot(self) -> SystemdBoot:
        """The agent's boot control, opened anew."""
        return SystemdBoot(
            self.variables(),
            self.partition(),
            lambda: self.running,
            lambda: f"boot-{self.boots}",
        )

    def files(self) -> SystemdBoot:
        """The same: entries are boot files."""
        return self.boot()

    def loader(self) -> SystemdBootLoader:
        """The loader, as it starts."""
        return SystemdBootLoader(self.variables(), self.partition())

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        """A power-on: the firmware starts the loader, and once more if that ends."""
        for _ in range(_RUNS):
            self._announce()
            slot = self.loader().run(starts)
            if slot is not None:
                return slot
        if self.variables_kept:
            raise BootError("the firmware waits for a key")
        return None  # the hardware watchdog

    def home(self) -> Slot:
        """What the loader takes for its default."""
        name = self.loader().default() or ""
        found = _OURS.match(name)
        return Slot(found[1]) if found else Slot.A

    def trials(self, tries: int) -> int:
        """One: the one-shot."""
        del tries
        return 1

    def install(self, slot: Slot) -> None:
        """A newer image's boot file, placed."""
        self.releases += 1
        content, image = bootable_image(str(self.releases))
        self.flash.make("slot.new", content)
        source = FlashSlot(self.flash, "slot.new", writable=False)
        self.files().place(slot, image, source)

    def lose(self, loss: str) -> None:
        """The firmware's battery: all variables of the loader."""
        del loss
        FlashVariables(self.flash).wipe()

    def _announce(self) -> None:
        """What the loader tells its system at each start."""
        self.provide("LoaderInfo", as_value(INFO))


class NamesWorld(SystemdBootWorld):
    """A board whose firmware keeps no variables, with a hardware watchdog."""

    losses = ()
    variables_kept = False
    standing = ("the firmware keeps no variables",)

    def home(self) -> Slot:
        """The first of the list that is confirmed."""
        names = [it for it in self.loader()._listed() if "+" not in it]  # noqa: SLF001
        found = _OURS.match(names[0]) if names else None
        return Slot(found[1]) if found else Slot.A

    def outlives(self) -> int:
        """None: a cut in the loader's own renaming may cost the entry (device-D4)."""
        return 0

    def trials(self, tries: int) -> int:
        """As many as the name says."""
        return tries
