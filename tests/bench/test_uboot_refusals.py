"""What U-Boot and the initramfs refuse on the arm64 machine, and that home comes back.

Each case lies in slot b as somebody with the disk in hand could put it there, on trial.
Two attempts (``bootlimit``), then slot a, judged by what the machine says and by what
lies in its environment afterwards.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bench import disk, fits, uboot, uboot_board, uboot_release
from tests.bench.figures import figure
from tests.bench.uboot_board import Board
from tests.bench.uboot_release import Release

HOME, NEXT = "1.0.0", "1.1.0"
SECONDS = 120.0
LIMIT = int(uboot.compiled_in()["bootlimit"])
RUNS = r"sealift: root sealift-b"
KERNEL = r"Starting kernel"
KEYS = "\x03\x03 \r" * 25
"""What somebody at the console types to get a prompt."""


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Slot a is home, slot b holds the next release, on trial; nobody starts it."""
    place = tmp_path_factory.mktemp("armed")
    path = uboot_board.factory(place, uboot_release.release(HOME))
    uboot_board.put(path, "b", uboot_release.release(NEXT).image)
    uboot_board.on_trial(path)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def place(armed: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of that disk to start."""
    uboot_board.copy(armed, tmp_path)
    yield tmp_path
    (tmp_path / "disk.img").unlink()


def swapped(release: Release, into: Path) -> Path:
    """The root of another release in a signed configuration."""
    return fits.swapped(release, uboot_release.release(HOME), into)


REFUSED: dict[str, tuple[Callable[[Release, Path], Path], str]] = {
    "unsigned": (fits.unsigned, "Failed to verify required signature"),
    "foreign": (fits.foreign, "Failed to verify required signature"),
    "bit": (fits.flipped, "Bad hash value for 'hash-1' hash node in 'kernel'"),
    "rehashed": (fits.rehashed, "Failed to verify required signature"),
    "swapped": (swapped, "Failed to verify required signature"),
    "borrowed": (fits.borrowed, "Failed to verify required signature"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_fit_costs_its_attempts_and_home_starts(
    place: Path, kind: str
) -> None:
    """B4, B5, B6: no kernel of it runs, no prompt, no human; nor does one at the keys."""
    make, why = REFUSED[kind]
    fit = make(uboot_release.release(NEXT), place / "evil.fit")
    disk.write(place / "disk.img", disk.SLOT_B, fit, uboot.FIT_OFFSET)
    fit.unlink()
    with Board(place) as board:
        for _ in range(LIMIT):
            assert board.tries() == ("b", True)
            board.send(KEYS)
            board.expect(why, SECONDS, never=KERNEL)
            board.expect("resetting", SECONDS, never=KERNEL)
        board.expect("sealift: no attempts left", SECONDS, never=KERNEL)
        assert board.tries() == ("a", False)
        board.expect(KERNEL, SECONDS)
        figure(f"FIT {kind}: home's kernel after", time.monotonic() - board.started)
        assert "=>" not in board.text
    found = board.environment.values()
    assert (found["bootcount"], found["good"]) == (str(LIMIT + 1), "a")


def test_two_signed_configurations_in_one_fit_start(place: Path) -> None:
    """What is refused when swapped starts when it is as the vendor signed it (D25)."""
    releases = uboot_release.release(NEXT), uboot_release.release(HOME)
    fit = fits.both(*releases, place / "both.fit")
    disk.write(place / "disk.img", disk.SLOT_B, fit, uboot.FIT_OFFSET)
    with Board(place) as board:
        assert board.runs() == ("b", NEXT)


FIRST_SEEN: dict[str, Callable[[Release], int]] = {
    "first block": lambda release: 0,
    "top of the tree": lambda release: release.tree,
}


@pytest.mark.parametrize("where", FIRST_SEEN)
def test_a_slot_whose_first_block_or_tree_changed_never_becomes_root(
    place: Path, where: str
) -> None:
    at = FIRST_SEEN[where](uboot_release.release(NEXT))
    disk.flip(place / "disk.img", disk.SLOT_B, at)
    with Board(place) as board:
        for _ in range(LIMIT):
            assert board.tries() == ("b", True)
            board.expect("sealift: REFUSED", SECONDS, never=RUNS)
        assert board.tries() == ("a", False)
        assert board.runs(never=RUNS) == ("a", HOME)
        figure(f"{where} changed: home after", time.monotonic() - board.started)


def test_another_release_below_a_fit_never_becomes_root(place: Path) -> None:
    """Both are signed and both are whole; they do not belong together."""
    other = uboot_release.release(HOME)
    root = other.image.read_bytes()[: uboot.FIT_OFFSET]
    disk.write(place / "disk.img", disk.SLOT_B, root)
    with Board(place) as board:
        assert board.tries() == ("b", True)
        board.expect("sealift: REFUSED", SECONDS, never=r"sealift: root")


def test_an_older_signed_release_starts_where_nothing_counts_releases(
    place: Path,
) -> None:
    """What U-Boot alone cannot do: it knows keys and no floor (D-15, device.md 1.9).

    Whoever writes slot and environment by force has an old signed release started. It
    is still nothing but a signed release, and on trial: unless its own agent confirms
    it, home comes back after ``bootlimit`` starts.
    """
    uboot_board.put(place / "disk.img", "b", uboot_release.release("0.9.0").image)
    with Board(place) as board:
        for _ in range(LIMIT):
            assert board.tries() == ("b", True)
            assert board.runs() == ("b", "0.9.0")
            board.monitor("system_reset")
        assert board.tries() == ("a", False)
