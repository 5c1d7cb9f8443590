"""The peers of `benchmarks.delta`: how each makes and applies what it sends.

A peer makes `patch` out of `old` and `new` and then `out` out of `old` and `patch`.
Most are two command lines. The two chunk methods need more: their old image was cut
into chunks when it was released, which is not counted, and what travels is the index of
the new one and the chunks that the old one lacks.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks._delta_ranges import serve_ranges
from benchmarks._delta_tools import Tools, module_version
from benchmarks.common import MIB, Cost

_WINDOW = 64 * MIB
"""Bytes of its source that xdelta3 looks at unless told."""

Run = Callable[[Sequence[str]], Cost]
"""Runs one command within the limits; its cost."""


@dataclass(frozen=True, slots=True)
class Desk:
    """The files of one peer at work on one pair."""

    old: Path
    new: Path
    home: Path

    @property
    def patch(self) -> Path:
        """What was made; a peer may need other files beside it."""
        return self.home / "patch"

    @property
    def out(self) -> Path:
        """What came out of it: the new image, if all is well."""
        return self.home / "out"

    def fill(self, words: Sequence[str]) -> list[str]:
        """A command line with the names of these files in their places."""
        window = max(_WINDOW, 1 << (self.old.stat().st_size - 1).bit_length())
        return [
            word.format(
                old=self.old,
                new=self.new,
                patch=self.patch,
                out=self.out,
                window=window,
            )
            for word in words
        ]


class Peer(Protocol):
    """One other way to bring a new image to a device that has an old one."""

    @property
    def name(self) -> str:
        """As tables call it."""
        ...

    @property
    def largest(self) -> int:
        """Bytes of the largest image it is tried on."""
        ...

    def version(self, tools: Tools) -> str:
        """Its version.

        Raises:
            MissingToolError, FailedTransferError: it is not to be had.
        """
        ...

    def create(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        """Make what travels; what that cost."""
        ...

    def apply(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        """Make `desk.out` of it; what that cost on the device."""
        ...

    def wire(self, desk: Desk) -> int:
        """Bytes that travelled."""
        ...


_ANY = 1 << 40


# ── two command lines ────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Program:
    """A program of a Debian package: :class:`Peer`."""

    name: str
    package: str
    asks_version: str
    creates: str
    applies: str
    pipes: bool = False
    """Whether it writes to its standard output."""
    largest: int = _ANY

    def version(self, tools: Tools) -> str:
        """As the program or its package says."""
        return tools.version(self.asks_version.split(), self.package)

    def create(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        """By one command."""
        return run(self._command(self.creates, desk, tools, desk.patch))

    def wire(self, desk: Desk) -> int:
        """The patch."""
        return desk.patch.stat().st_size

    def apply(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        """By one command."""
        return run(self._command(self.applies, desk, tools, desk.out))

    def _command(self, line: str, desk: Desk, tools: Tools, into: Path) -> list[str]:
        found = tools.command(desk.fill(line.split()), self.package)
        return _into(into, found) if self.pipes else found


@dataclass(frozen=True, slots=True)
class Module:
    """A Python package, in a fresh interpreter: :class:`Peer`."""

    name: str
    package: str
    creates: str
    applies: str
    largest: int = _ANY

    def version(self, tools: Tools) -> str:
        """As it was installed."""
        del tools
        return module_version(self.package)

    def create(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        """By a line of Python."""
        del tools
        return run(self._python(desk, self.creates))

    def wire(self, desk: Desk) -> int:
        """The patch."""
        return desk.patch.stat().st_size

    def apply(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        """By a line of Python."""
        del tools
        return run(self._python(desk, self.applies))

    def _python(self, desk: Desk, code: str) -> list[str]:
        names = desk.fill(("{old}", "{new}", "{patch}", "{out}"))
        return [sys.executable, "-I", "-c", f"{_PRELUDE}import {code}", *names]


_PRELUDE = """
import sys
from pathlib import Path
old, new, patch, out = map(Path, sys.argv[1:])
"""


# ── chunk methods ────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Casync:
    """A store of chunks and an index: :class:`Peer`. The seed is the old image."""

    name: str = "casync xz"
    largest: int = _ANY

    def version(self, tools: Tools) -> str:
        """As the program says."""
        return tools.version(["casync", "--version"], "casync")

    def create(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        """The index and the store of the new image, without the old one's chunks."""
        stores = {name: desk.home / name for name in ("old", "new")}
        costs = {
            name: run(self._make(tools, desk.home / f"{name}.caibx", store, image))
            for (name, store), image in zip(
                stores.items(), (desk.old, desk.new), strict=True
            )
        }
        for chunk in stores["old"].rglob("*.cacnk"):
            (stores["new"] / chunk.relative_to(stores["old"])).unlink(missing_ok=True)
        shutil.rmtree(stores["old"])
        return costs["new"]

    def _make(self, tools: Tools, index: Path, store: Path, image: Path) -> list[str]:
        options = ("--compression=xz", f"--store={store}")
        words = ["casync", "make", *options, str(index), str(image)]
        return tools.command(words, "casync")

    def wire(self, desk: Desk) -> int:
        """The index and the chunks."""
        chunks = (desk.home / "new").rglob("*.cacnk")
        index = (desk.home / "new.caibx").stat().st_size
        return index + sum(chunk.stat().st_size for chunk in chunks)

    def apply(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        """Out of those chunks and the old image alone."""
        options = (f"--store={desk.home / 'new'}", f"--seed={desk.old}")
        index = str(desk.home / "new.caibx")
        words = ["casync", "extract", *options, index, str(desk.out)]
        return run(tools.command(words, "casync"))


@dataclass(frozen=True, slots=True)
class Zchunk:
    """One file of chunks, read by ranges: :class:`Peer`.

    The device keeps the old image as the file of chunks it came in, beside the image.
    """

    name: str = "zchunk"
    largest: int = _ANY

    def version(self, tools: Tools) -> str:
        """As the program says."""
        return tools.version(["zck", "--version"], "zchunk")

    def create(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        """Both images as files of chunks."""
        costs = [
            run(tools.command(["zck", "-o", str(out), str(image)], "zchunk"))
            for out, image in zip(self._files(desk), (desk.old, desk.new), strict=True)
        ]
        return costs[1]

    def _files(self, desk: Desk) -> tuple[Path, Path]:
        return desk.home / "old.zck", desk.home / "new.zck"

    def wire(self, desk: Desk) -> int:
        """What the server sent, without the headers of answers."""
        return int(desk.patch.read_text())

    def apply(self, desk: Desk, tools: Tools, run: Run) -> Cost:
        """Download by ranges from a server on loopback, then unpack."""
        old, new = self._files(desk)
        got = desk.home / "device"
        got.mkdir(exist_ok=True)
        with serve_ranges(new) as (url, sent):
            words = ["zckdl", "-s", str(old), url]
            down = run(["env", "-C", str(got), *tools.command(words, "zchunk")])
        desk.patch.write_text(str(sum(sent)))
        unpack = ["unzck", "-c", str(got / new.name)]
        command = tools.command(unpack, "zchunk")
        return added(down, run(_into(desk.out, command)))


def _into(out: Path, command: Sequence[str]) -> list[str]:
    return ["sh", "-c", 'out=$1; shift; exec "$@" >"$out"', "sh", str(out), *command]


def added(first: Cost, second: Cost) -> Cost:
    """One after the other."""
    return Cost(
        wall_s=first.wall_s + second.wall_s,
        user_s=first.user_s + second.user_s,
        system_s=first.system_s + second.system_s,
        peak_rss_mib=max(first.peak_rss_mib, second.peak_rss_mib),
        status=second.status,
    )


_HDIFF = (
    "hdiffpatch as h; patch.write_bytes("
    "h.diff(old.read_bytes(), new.read_bytes(), {}, validate=False))"
)
_HPATCH = (
    "hdiffpatch as h; out.write_bytes(h.apply(old.read_bytes(), patch.read_bytes()))"
)
_BSDIFF4 = "bsdiff4; bsdiff4.file_diff(str(old), str(new), str(patch))"
_BSPATCH4 = "bsdiff4; bsdiff4.file_patch(str(old), str(out), str(patch))"
_DETOOLS = (
    "detools; detools.create_patch_filenames(str(old), str(new), str(patch), "
    "compression='lzma', patch_type='hdiffpatch', algorithm='hdiffpatch')"
)
_DETOOLS_APPLY = (
    "detools; detools.apply_patch_filenames(str(old), str(patch), str(out))"
)

PEERS: tuple[Peer, ...] = (
    Module(
        "hdiffpatch lzma2", "hdiffpatch", _HDIFF.format("h.Lzma2Config(9)"), _HPATCH
    ),
    Module("hdiffpatch zstd", "hdiffpatch", _HDIFF.format("h.ZStdConfig(22)"), _HPATCH),
    Module("detools hdiffpatch lzma", "detools", _DETOOLS, _DETOOLS_APPLY, 64 * MIB),
    Program(
        "xdelta3 -9",
        "xdelta3",
        "xdelta3 -V",
        "xdelta3 -e -9 -f -B {window} -s {old} {new} {patch}",
        "xdelta3 -d -f -B {window} -s {old} {patch} {out}",
    ),
    Program(
        "zstd -19 --patch-from",
        "zstd",
        "zstd --version",
        "zstd -q -f -19 --long=31 --patch-from={old} {new} -o {patch}",
        "zstd -q -f -d --long=31 --patch-from={old} {patch} -o {out}",
    ),
    Program(
        "bsdiff",
        "bsdiff",
        "bsdiff",
        "bsdiff {old} {new} {patch}",
        "bspatch {old} {out} {patch}",
    ),
    Module("bsdiff4", "bsdiff4", _BSDIFF4, _BSPATCH4, 4 * MIB),
    Casync(),
    Zchunk(),
    Program(
        "full xz -9",
        "xz-utils",
        "xz --version",
        "xz -9 -T1 -k -c {new}",
        "xz -d -k -c {patch}",
        pipes=True,
    ),
)
"""Every peer, in the order in which they run."""
