"""Power as the kernel tells it: sensors that are there, missing, and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealift.agent import power


def supply(place: Path, name: str, **facts: str) -> None:
    (place / name).mkdir()
    for fact, text in facts.items():
        (place / name / fact).write_text(f"{text}\n")


@pytest.mark.parametrize(
    ("supplies", "mains", "charge"),
    [
        ([], None, None),
        ([{"type": "Mains", "online": "1"}], True, None),
        ([{"type": "Mains", "online": "0"}], False, None),
        (
            [{"type": "Mains", "online": "0"}, {"type": "USB", "online": "1"}],
            True,
            None,
        ),
        ([{"type": "Battery", "capacity": "80"}], None, 80),
        (
            [
                {"type": "Battery", "capacity": "80"},
                {"type": "Battery", "capacity": "15"},
                {"type": "Mains", "online": "0"},
            ],
            False,
            15,
        ),
        ([{"type": "Battery", "capacity": "full"}], None, None),
        ([{"type": "Battery"}], None, None),
        ([{"type": "Battery", "scope": "Device", "capacity": "5"}], None, None),
        ([{"type": "Battery", "scope": "System", "capacity": "50"}], None, 50),
        ([{"online": "1"}], None, None),
    ],
)
def test_sensors(
    tmp_path: Path,
    supplies: list[dict[str, str]],
    mains: bool | None,
    charge: int | None,
) -> None:
    """The emptiest battery counts, any mains supply does, nothing is guessed."""
    for number, facts in enumerate(supplies):
        supply(tmp_path, f"s{number}", **facts)
    assert power.on_mains(str(tmp_path)) is mains
    assert power.battery_percent(str(tmp_path)) == charge


def test_machine_without_sensors() -> None:
    """No directory at all: unknown, which fails closed where the policy asks."""
    assert power.on_mains("/nowhere") is None
    assert power.battery_percent("/nowhere") is None
