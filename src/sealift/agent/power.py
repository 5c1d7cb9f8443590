"""What the kernel knows about power: on mains, and how full the battery is."""

from __future__ import annotations

import os

SUPPLIES = "/sys/class/power_supply"


def on_mains(supplies: str = SUPPLIES) -> bool | None:
    """Whether a mains supply is there and online; ``None`` without any sensor."""
    found = [
        _read(supplies, name, "online") == "1"
        for name in _names(supplies)
        if _read(supplies, name, "type") in {"Mains", "USB"}
    ]
    return any(found) if found else None


def battery_percent(supplies: str = SUPPLIES) -> int | None:
    """The charge of the emptiest battery in percent; ``None`` without one.

    Batteries of mice and other gear (``scope`` is ``Device``) do not count.
    """
    found = [
        int(charge)
        for name in _names(supplies)
        if _read(supplies, name, "type") == "Battery"
        and _read(supplies, name, "scope") != "Device"
        and (charge := _read(supplies, name, "capacity")).isdigit()
    ]
    return min(found) if found else None


def _names(supplies: str) -> list[str]:
    try:
        return sorted(os.listdir(supplies))
    except OSError:
        return []


def _read(supplies: str, name: str, fact: str) -> str:
    try:
        with open(os.path.join(supplies, name, fact), encoding="ascii") as file:
            return file.read(64).strip()
    except (OSError, ValueError):
        return ""
