"""What the agent takes from the process it is started in, seen in real processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = (
    "from sealift.agent.surroundings import tidy; tidy(['--help']); print('went on')"
)


@pytest.mark.parametrize(
    ("name", "value", "again"),
    [
        ("LD_PRELOAD", "/nowhere/evil.so", True),
        ("LD_BIND_NOW", "1", True),
        ("GLIBC_TUNABLES", "glibc.malloc.check=0", True),
        ("PYTHONPATH", "/nowhere", False),
        ("HOME", "/nowhere", False),
    ],
)
def test_d12_an_isolated_agent_starts_again_without_the_loader_s_variables(
    name: str, value: str, again: bool
) -> None:
    """``-I`` ignores what is Python's; a preloaded library is only left behind anew."""
    found = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env={name: value},
        timeout=60,
    )
    assert ("went on" not in found.stdout) is again
    assert ("usage: sealift-agent" in found.stdout) is again
