"""What a device would do with a disk after a cut, and whether that is right.

Given the bytes of a disk and the EFI variables, :class:`Judge` starts it as firmware,
systemd-boot and our initramfs do: one-shot entry, default pattern, counted names, order
of versions; images the firmware refuses; the slot that answers to the signed root hash.
A disk passes if it starts something (*bootable*), if that is byte for byte what was
signed (*verified*), and if it is what the agent's journal says (*truthful*). No entry
may point at a slot that does not hold its image (B9).

The rules are those of systemd-boot 252 and of OVMF as seen on the bench. States the
judge passes and states it flags are booted for real elsewhere: it is judged, too.
"""

from __future__ import annotations

import functools
import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tests.bench.blocklog import SECTOR, Disk
from tests.bench.fat import Fat, FatError, Node

ENTRIES = "EFI/Linux"
LOADER = "EFI/BOOT/BOOTX64.EFI"
BLOCK = 4096
_COUNTED = re.compile(r"(?P<stem>.*)\+(?P<left>\d+)(?:-(?P<done>\d+))?\.efi")
_SLOT_NAME = re.compile(r"sealift-([ab])(?:\+.*)?\.efi")
_REFUSALS = 2
"""How often firmware tries the loader anew in one power-on before it stops for good."""
_POWER_ONS = 12


@dataclass(frozen=True, slots=True)
class Signed:
    """One release as signed: the image of a slot, and the boot file of it."""

    name: str
    image: Path
    boot_sha256: bytes
    data_blocks: int

    @property
    def length(self) -> int:
        """Bytes of the image."""
        return self.image.stat().st_size


@dataclass(frozen=True, slots=True)
class Variables:
    """What the loader reads from the firmware's store."""

    default: str | None
    one_shot: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What starts, and what is wrong with that."""

    slot: str | None
    release: str | None
    faults: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


@dataclass(frozen=True, slots=True)
class Entry:
    """One boot entry of the EFI partition."""

    name: str
    sort_key: str
    version: str
    digest: bytes
    size: int

    @property
    def left(self) -> int | None:
        """Attempts left, ``None`` if they are not counted."""
        found = _COUNTED.fullmatch(self.name)
        return int(found["left"]) if found else None

    def used(self) -> Entry:
        """The entry as the loader renames it at a start."""
        found = _COUNTED.fullmatch(self.name)
        if found is None or not int(found["left"]):
            return self
        left, done = int(found["left"]) - 1, int(found["done"] or 0) + 1
        name = f"{found['stem']}+{left}-{done}.efi"
        return Entry(name, self.sort_key, self.version, self.digest, self.size)


@dataclass(frozen=True, slots=True)
class Partition:
    """What the judge knows of one EFI partition."""

    loader: bytes | None
    entries: tuple[Entry, ...]
    faults: tuple[str, ...]
    lost: int
    """Bytes in clusters that nothing uses."""
    leftovers: int
    """Bytes of temporary files."""


@dataclass(slots=True)
class _Machine:
    """The firmware's variables and the partition while a device starts."""

    variables: Variables
    entries: list[Entry]
    steps: list[str] = field(default_factory=list)


Journal = Callable[[Disk], Mapping[str, object] | None]
"""The state of the one component in the agent's journal; ``None`` if it is lost."""


class Judge:
    """Judges the states of one disk.

    Its regions are named as its partitions: ``esp``, ``sealift-a``, ``sealift-b`` and,
    if there is one, ``sealift-data``. ``factory`` is what runs before any journal.
    """

    def __init__(
        self,
        disk: Disk,
        releases: Sequence[Signed],
        *,
        loader: bytes | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._disk = disk
        self._releases = list(releases)
        self._loader = loader
        self._journal = journal
        self._partitions: dict[int, Partition] = {}
        self._held: dict[tuple[str, str, int], bool] = {}
        self._answers: dict[tuple[str, str, int], bool] = {}
        self._journals: dict[int, Mapping[str, object] | None] = {}
        self._verdicts: dict[tuple[object, ...], Verdict] = {}

    @property
    def looked(self) -> int:
        """How many different states were looked at."""
        return len(self._verdicts)

    def verdict(self, variables: Variables) -> Verdict:
        """Judge the disk as it is now, with these variables."""
        names = ("esp", "sealift-a", "sealift-b", "sealift-data")
        prints = [
            self._disk.fingerprint(name) if name in self._disk.regions else 0
            for name in names
        ]
        key = (*prints, variables)
        if key not in self._verdicts:
            self._verdicts[key] = self._judge(variables)
        return self._verdicts[key]

    def partition(self) -> Partition:
        """What is on the EFI partition now."""
        key = self._disk.fingerprint("esp")
        if key not in self._partitions:
            self._partitions[key] = self._survey()
        return self._partitions[key]

    def journal(self) -> Mapping[str, object] | None:
        """What the agent's journal says now; ``None``: lost, or nobody reads it."""
        if self._journal is None:
            return None
        key = self._disk.fingerprint("sealift-data")
        if key not in self._journals:
            self._journals[key] = self._journal(self._disk)
        return self._journals[key]

    # ── one verdict ──────────────────────────────────────────────────────────────
    def _judge(self, variables: Variables) -> Verdict:
        partition = self.partition()
        faults = list(self._pointing(partition))
        machine = _Machine(variables, list(partition.entries))
        if self._loader is not None and partition.loader != self._loader:
            faults.append("brick: the boot loader is not the signed one")
            return Verdict(None, None, tuple(faults))
        slot, release = self._start(machine, faults)
        if release is None:
            faults.append("brick: nothing starts")
        elif self._journal is not None:
            faults += self._untrue(release)
        return Verdict(
            slot,
            release.name if release else None,
            tuple(faults),
            tuple(machine.steps),
        )

    def _start(
        self, machine: _Machine, faults: list[str]
    ) -> tuple[str | None, Signed | None]:
        """Power on, until something runs or nothing ever will."""
        for _ in range(_POWER_ONS):
            refused = 0
            while refused < _REFUSALS:
                entry = chosen(machine.entries, machine.variables)
                machine.variables = Variables(machine.variables.default)
                if entry is None:
                    machine.steps.append("menu")
                    return None, None
                index = machine.entries.index(entry)
                machine.entries[index] = entry.used()
                machine.steps.append(entry.name)
                release = self._signed(entry.digest)
                if release is None:
                    refused += 1
                    continue
                slot = self._root(release, faults)
                if slot is not None:
                    return slot, release
                machine.steps.append("REFUSED")
                break  # the initramfs restarts the machine
            else:
                machine.steps.append("firmware stops")
                if machine.variables.one_shot is None and not any(
                    entry.left for entry in machine.entries
                ):
                    return None, None
                faults.append("stop: only a power cycle goes on")
        return None, None

    def _signed(self, digest: bytes) -> Signed | None:
        for release in self._releases:
            if release.boot_sha256 == digest:
                return release
        return None

    def _root(self, release: Signed, faults: list[str]) -> str | None:
        """The slot the initramfs takes, a first; a rotten one is a fault."""
        for slot in "ab":
            if self._answering(slot, release):
                if not self._holds(slot, release):
                    faults.append(f"unverified: slot {slot} is not {release.name}")
                return slot
        return None

    def _pointing(self, partition: Partition) -> Iterable[str]:
        """B9: an entry points at a slot that does not hold its image."""
        for entry in partition.entries:
            named = _SLOT_NAME.fullmatch(entry.name)
            release = self._signed(entry.digest)
            if named is None or release is None:
                continue  # what firmware refuses points at nothing
            if not self._holds(named[1], release):
                yield f"B9: {entry.name} points at a slot without {release.name}"

    def _untrue(self, release: Signed) -> Iterable[str]:
        """What the journal says of a device on which ``release`` runs."""
        said = self.journal()
        if said is None:
            yield "untruthful: the journal is lost"
            return
        wanted = expected(said, self._releases[0].name)
        if release.name not in wanted:
            yield (
                f"untruthful: {release.name} runs, the journal is {said['state']} "
                f"with {' or '.join(sorted(wanted))}"
            )

    # ── looking ──────────────────────────────────────────────────────────────────
    def _holds(self, slot: str, release: Signed) -> bool:
        """Whether a slot is the image of a release, all of it."""
        key = (slot, release.name, self._disk.fingerprint(f"sealift-{slot}"))
        if key not in self._held:
            first, _ = self._disk.regions[f"sealift-{slot}"]
            found = self._disk.read(first * SECTOR, release.length)
            self._held[key] = hashlib.sha256(found).digest() == _digest(release.image)
        return self._held[key]

    def _answering(self, slot: str, release: Signed) -> bool:
        """Whether block 0 of a slot and its way up the tree are those of a release."""
        key = (slot, release.name, self._disk.fingerprint(f"sealift-{slot}"))
        if key not in self._answers:
            first, _ = self._disk.regions[f"sealift-{slot}"]
            self._answers[key] = all(
                self._disk.read(first * SECTOR + at, BLOCK)
                == _piece(release.image, at, BLOCK)
                for at in _path_of_block_0(release.data_blocks)
            )
        return self._answers[key]

    def _survey(self) -> Partition:
        first, sectors = self._disk.regions["esp"]
        try:
            fat = Fat(
                lambda at, size: self._disk.read(
                    first * SECTOR + at, min(size, sectors * SECTOR - at)
                )
            )
            survey = fat.survey()
        except (FatError, struct.error) as error:
            return Partition(None, (), (f"the EFI partition: {error}",), 0, 0)
        nodes = [node for node in survey.nodes if not node.directory]
        return Partition(
            _file_digest(fat, nodes, LOADER),
            tuple(entries(fat, nodes)),
            tuple(survey.faults),
            survey.lost * fat.cluster_bytes,
            sum(node.size for node in nodes if node.path.startswith("EFI/sealift/")),
        )


# ── systemd-boot ─────────────────────────────────────────────────────────────────────
def entries(fat: Fat, nodes: Iterable[Node]) -> Iterable[Entry]:
    """What the loader takes for entries: PE files with a release inside."""
    for node in nodes:
        above, _, name = node.path.rpartition("/")
        if above.lower() != ENTRIES.lower() or not name.lower().endswith(".efi"):
            continue
        try:
            content = fat.content(node)
        except FatError:
            continue
        facts = _os_release(content)
        if facts is None:
            continue
        version = facts.get("IMAGE_VERSION") or facts.get("VERSION_ID") or ""
        sort_key = facts.get("IMAGE_ID") or facts.get("ID") or ""
        digest = hashlib.sha256(content).digest()
        yield Entry(name.lower(), sort_key, version, digest, len(content))


def chosen(found: Sequence[Entry], variables: Variables) -> Entry | None:
    """The entry the loader starts: one-shot, default, then its own order."""
    ordered = sorted(found, key=functools.cmp_to_key(_compared))
    for pattern in (variables.one_shot, variables.default):
        if pattern is None:
            continue
        for entry in ordered:
            if fnmatchcase(entry.name, pattern):
                return entry
    return ordered[0] if ordered else None


def _compared(one: Entry, other: Entry) -> int:
    """Below zero if ``one`` comes first."""
    if (one.left == 0) != (other.left == 0):
        return 1 if one.left == 0 else -1
    if one.sort_key != other.sort_key:
        return -1 if one.sort_key < other.sort_key else 1
    by_version = -compare_versions(one.version, other.version)
    by_name = -compare_versions(one.name, other.name)
    return by_version or by_name


def compare_versions(one: str, other: str) -> int:
    """Order of two versions as the loader has it: numbers by value, ``~`` before all."""
    left, right = one, other
    while left or right:
        left = re.sub(r"^[^A-Za-z0-9~^.\-]+", "", left)
        right = re.sub(r"^[^A-Za-z0-9~^.\-]+", "", right)
        for mark, order in (("~", -1), ("", -1), ("-", -1), ("^", -1), (".", -1)):
            here = not left if not mark else left.startswith(mark)
            there = not right if not mark else right.startswith(mark)
            if here and there and mark:
                left, right = left[1:], right[1:]
                break
            if here != there:
                return order if here else -order
        number_left, number_right = _lead(r"\d+", left), _lead(r"\d+", right)
        if number_left or number_right:
            if int(number_left or 0) != int(number_right or 0):
                return -1 if int(number_left or 0) < int(number_right or 0) else 1
            if bool(number_left) != bool(number_right):
                return 1 if number_left else -1
            left, right = left[len(number_left) :], right[len(number_right) :]
            continue
        word_left, word_right = _lead("[A-Za-z]+", left), _lead("[A-Za-z]+", right)
        if word_left != word_right:
            return -1 if word_left < word_right else 1
        left, right = left[len(word_left) :], right[len(word_right) :]
    return 0


def _lead(pattern: str, text: str) -> str:
    found = re.match(pattern, text)
    return found[0] if found else ""


def _os_release(content: bytes) -> Mapping[str, str] | None:
    """The facts in a PE file's ``.osrel``; ``None`` if the loader would pass it over."""
    try:
        if content[:2] != b"MZ":
            return None
        (at,) = struct.unpack_from("<I", content, 0x3C)
        if content[at : at + 4] != b"PE\0\0":
            return None
        (count,) = struct.unpack_from("<H", content, at + 6)
        (optional,) = struct.unpack_from("<H", content, at + 20)
        for index in range(count):
            header = at + 24 + optional + index * 40
            name = content[header : header + 8].rstrip(b"\0")
            size, _, raw, place = struct.unpack_from("<IIII", content, header + 8)
            if name == b".osrel":
                text = content[place : place + min(size, raw)].rstrip(b"\0")
                rows = text.decode("utf-8", "replace").splitlines()
                pairs = (row.partition("=") for row in rows)
                return {key: value.strip("\"'") for key, _, value in pairs}
    except struct.error:
        return None
    return None


# ── the journal ──────────────────────────────────────────────────────────────────────
def expected(state: Mapping[str, object], factory: str) -> set[str]:
    """The releases that may run when the journal is in this state."""
    kind = state["state"]
    if kind == "idle":
        return {_name(state.get("installed")) or factory}
    attempt = state["attempt"]
    assert isinstance(attempt, dict)
    base = _name(attempt["base"]) or factory
    new = _name(attempt["order"]["artifact"]) or ""
    if kind in {"staging", "staged"}:
        return {base}
    if kind == "reporting":
        result = state["result"]
        assert isinstance(result, dict)
        return {new if result["verdict"] == "succeeded" else base}
    return {base, new}


def _name(artifact: object) -> str | None:
    return str(artifact["name"]) if isinstance(artifact, dict) else None


# ── bytes ────────────────────────────────────────────────────────────────────────────
def _path_of_block_0(blocks: int) -> list[int]:
    """Where block 0 lies, and the first hash block of every level, the top first."""
    levels, count = [], blocks
    while count > 1:
        count = -(-count // 128)
        levels.append(count)
    found, at = [0], (blocks + 1) * BLOCK
    for level in reversed(levels):
        found.append(at)
        at += level * BLOCK
    return found


@functools.cache
def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


@functools.cache
def _piece(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _file_digest(fat: Fat, nodes: Iterable[Node], path: str) -> bytes | None:
    for node in nodes:
        if node.path.lower() == path.lower():
            try:
                return hashlib.sha256(fat.content(node)).digest()
            except FatError:
                return None
    return None
