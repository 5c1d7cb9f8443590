"""Devices that run what was released, deltas between releases, and who makes them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sealift.core.types import Container
from sealift.server.ports import Delta, PayloadPolicy, Release
from sealift.server.services import deltas, director, reports
from tests.unit.server.test_reports import Voice
from tests.unit.server.world import OPERATOR, World, artifact, container

MAKER = "maker-1"
DELTAS = PayloadPolicy(deltas=True)


@dataclass
class Fleet:
    """Devices that report, in a world whose server makes deltas."""

    world: World
    voices: dict[str, Voice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.world.means = replace(self.world.means, payload=DELTAS)

    def running(
        self,
        version: str,
        *names: str,
        abilities: tuple[str, ...] = ("delta/1",),
        **more: Any,
    ) -> None:
        """Have devices report that they run a version; new ones are enrolled first."""
        for name in names:
            voice = self.voices.get(name) or Voice(self.world.device(name))
            self.voices[name] = voice
            voice.runs = artifact(version)
            self.say(name, abilities=abilities, **more)

    def say(self, name: str, **changes: Any) -> None:
        """One report of a device."""
        voice = self.voices[name]
        raw = voice.report(**changes)
        reports.receive(self.world.means, voice.actor, name, raw)

    def poll(self, name: str) -> None:
        """One look of the Director at a device."""
        director.issue_for(self.world.means, self.voices[name].actor, name)

    # ── the maker ────────────────────────────────────────────────────────────────
    def rows(self) -> list[Delta]:
        """Every delta row."""
        return list(self.world.means.store.reader.deltas.all())

    def claim(self) -> Delta:
        """Take the next one that is due."""
        now = self.world.clock.now()
        with self.world.means.store.begin() as session:
            row = session.deltas.claim(MAKER, now, now + timedelta(minutes=1))
        assert row is not None
        return row

    def make(self, length: int = 100) -> Delta:
        """Take the next one, and make it that long."""
        row = self.claim()
        made = made_delta(row, length)
        deltas.finish(self.world.means, OPERATOR, row.number, MAKER, made, 5)
        found = self.world.means.store.reader.deltas.find(row.number)
        assert found is not None
        return found


def made_delta(row: Delta, length: int = 100) -> Container:
    """The facts of a delta for a row, as an engine would give them."""
    return Container(
        name=f"{row.new_sha256}-{row.base_sha256}.delta",
        length=length,
        sha256=hashlib.sha256(f"delta {row.number} {length}".encode()).digest(),
        head_length=32,
        head_sha256=bytes(32),
        base_length=10,
        base_sha256=bytes.fromhex(row.base_sha256),
    )


def two_releases(world: World, *names: str) -> tuple[Fleet, Release]:
    """Devices on 1.0.0, and a release of 1.1.0 with a delta wanted to it."""
    fleet = Fleet(world)
    world.release("1.0.0", 1)
    fleet.running("1.0.0", *names or ("dev-0001",))
    return fleet, world.release("1.1.0", 2)


def full_length(version: str) -> int:
    """Bytes of the full container of a version."""
    return container(version)[0].length
