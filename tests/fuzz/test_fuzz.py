"""Fuzzing holds: what was once found stays found, and a short run finds nothing new."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from tests.fuzz import corruptions, plain
from tests.fuzz.keep import way
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
PEAK = 16 << 20
"""Bytes. Most of it is the LZMA encoder of `container` and `rewritten`, which make what
they read; what the reader takes is compared exactly in the test of corruptions."""


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_holds_its_promises(name: str) -> None:
    """Every committed input: our errors only, whole results, bounded memory."""
    known = plain.corpus(name)
    assert known
    tracemalloc.start()
    for data in known:
        TARGETS[name](data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < PEAK


@pytest.mark.parametrize("name", TARGETS)
def test_a_short_run_finds_nothing(name: str) -> None:
    """The same few hundred changes of the corpus in each run."""
    plain.run(name, 300)


def test_no_corruption_of_a_delta_is_accepted() -> None:
    """10 000 random ones: none accepted, none crashes, the memory of the sound delta."""
    report = corruptions.run(10_000)
    print(report)
    assert report.ok, report.wrong[:3]
    assert report.count == 10_000 == report.same + report.codes.total()
    assert report.same < 10
    assert {"payload.digest", "payload.patch", "payload.container"} <= set(report.codes)


def test_the_corpus_is_small_and_of_known_targets() -> None:
    """A directory for each target, and less than 200 KB in all."""
    files = [path for path in plain.CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < 200_000


def test_what_goes_a_new_way_is_kept() -> None:
    """An input that ends elsewhere takes other steps through core; the same does not."""
    one, other = b"", bytes(range(200))
    assert way("frame", one) == way("frame", one)
    assert way("frame", other) - way("frame", one)


def test_atheris_runs_every_target(tmp_path: Path) -> None:
    """`make fuzz` for a moment: each target is reached, nothing is found."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seconds", "8", "--findings", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == set(TARGETS)
    assert "?" not in done.stdout
    assert not list(tmp_path.iterdir())
