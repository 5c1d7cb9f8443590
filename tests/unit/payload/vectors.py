"""The published containers, sound and hostile, as the desk gets to see them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sealift.core.types import Artifact, Container
from sealift.payload.facts import Facts

_HOME = Path(__file__).resolve().parents[2] / "vectors/payload/v1"


@dataclass(frozen=True)
class Vector:
    """One container, its facts, its base if it has one, and the code it must end with."""

    name: str
    raw: bytes
    facts: Facts
    base: str
    error: str | None


def vectors() -> list[Vector]:
    """All of them."""
    found = json.loads((_HOME / "cases.json").read_text("utf-8"))
    return [
        Vector(
            row["name"],
            (_HOME / row["file"]).read_bytes(),
            Facts(
                Artifact.from_json(row["artifact"]),
                Container.from_json(row["container"]),
            ),
            row["base"],
            row["error"],
        )
        for row in (found["cases"] if isinstance(found, dict) else found)
    ]
