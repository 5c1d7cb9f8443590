"""Our verifier and python-tuf's agree, but where the list of differences says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater  # noqa: TID251  the oracle

from tests.conformance.differences import DIFFERENCES, FORMS, WORKFLOW
from tests.conformance.differential import (
    SEEDS,
    Kept,
    remembered,
    run,
    set_time,
    their_step,
)
from tests.conformance.worlds import PATHS, Files, World

CASES = 10_000


def test_ten_thousand_worlds_differ_only_where_they_are_meant_to() -> None:
    """More with ``python -m tests.conformance.differential --cases 1000000``."""
    counted: Counter[str | None] = Counter()
    with remembered():
        for number in range(CASES):
            counted[run(SEEDS + number)] += 1
    assert counted[None] > CASES * 0.8  # most cases run to their end
    assert counted.keys() - {None} == {d.name for d in DIFFERENCES}


def test_every_difference_has_one_name_and_a_reason() -> None:
    names = [difference.name for difference in DIFFERENCES]
    assert len(set(names)) == len(names) == len(FORMS) + len(WORKFLOW)
    assert all(difference.reason.endswith(".") for difference in DIFFERENCES)


class Files404(FetcherInterface):
    """python-tuf's own port for the network, over a dictionary."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        from urllib.parse import unquote

        name = url.rpartition("/")[2].removesuffix(".json")
        first, _, second = name.partition(".")
        versioned = first.isdecimal() and bool(second)
        found = (unquote(second), int(first)) if versioned else (unquote(name), None)
        if found not in self._files:
            raise DownloadHTTPError("absent", 404)
        yield self._files[found]


def real_step(
    directory: Path, files: Files, now: datetime
) -> tuple[bool, list[object]]:
    """One check by the real Updater, with its directory and its fetcher."""
    try:
        updater = Updater(
            str(directory), "http://x/", fetcher=Files404(files), bootstrap=None
        )
        set_time(updater._trusted_set, now)
        updater.refresh()
    except Exception:  # noqa: BLE001  whatever it is, it refused
        return False, []
    found: list[object] = []
    for path in PATHS:
        try:
            target = updater.get_targetinfo(path)
            found.append(target and (target.length, dict(target.hashes)))
        except Exception:  # noqa: BLE001
            found.append(None)
    return True, found


@pytest.mark.parametrize("seed", range(40))
def test_the_oracle_in_memory_is_python_tufs_updater(seed: int, tmp_path: Path) -> None:
    world = World(seed)
    kept: Kept = {"root": world.anchor}
    (tmp_path / "root.json").write_bytes(world.anchor)
    for _ in range(3):
        world.evolve()
        undo = world.attack()
        memory = their_step(kept, world.files, world.now)
        ok, found = real_step(tmp_path, world.files, world.now)
        assert ok == (memory.error is None)
        assert found == list(memory.found.values())
        for role in ("root", "timestamp", "snapshot", "targets"):
            file = tmp_path / f"{role}.json"
            assert (file.read_bytes() if file.exists() else None) == kept.get(role)
        undo()


def test_python_tuf_still_has_the_name_that_sets_its_clock() -> None:
    with pytest.raises(AttributeError, match="reference_time"):
        set_time(object(), World(1).now)  # type: ignore[arg-type]


def test_a_world_is_the_same_each_time() -> None:
    def story(seed: int) -> tuple[list[str], Files]:
        world = World(seed)
        world.evolve()
        world.attack()
        return world.story, world.files

    assert story(7) == story(7)
    assert story(7) != story(8)
