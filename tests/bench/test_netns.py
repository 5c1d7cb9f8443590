"""L1: many agents behind cables of their own, a third of which is cut in between."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

DEVICES = 9


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of the fleet."""
    place = tmp_path_factory.mktemp("fleet")
    words = ("-m", "tests.bench.netns", place, "--devices", str(DEVICES))
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_cables_were_cut_under_the_images(seen: dict[str, Any]) -> None:
    """Else this page would show nothing: images were on their way at that moment."""
    assert seen["cut"] == DEVICES // 3
    assert "downloading" in seen["states_while_cut"]


def test_every_device_ends_on_the_image(seen: dict[str, Any]) -> None:
    """Cut or not: confirmed, reported, and the very bytes."""
    assert seen["states"] == ["succeeded"] * DEVICES
    assert seen["held"] == [True] * DEVICES
