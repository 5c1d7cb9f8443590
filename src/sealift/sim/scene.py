"""The demo's company: everybody who takes part, and what can be asked of all together.

An order is sent, its end awaited, a refusal awaited: each by what the device's and the
server's own commands tell. Which order, and what must come of it, is in ``plot``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sealift.sim.bench import DEVICE, Bench
from sealift.sim.images import PRODUCT, Image, Profile
from sealift.sim.processes import Processes, wait_for
from sealift.sim.relay import Relay
from sealift.sim.stage import Desk, Packed, Server, require, send

__all__ = ["Ordered", "Scene", "Watch"]

STEP_SECONDS = 120.0
"""What any one thing may take before the demo gives up on it."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on: ``say`` gets lines, ``report`` gets (what, done, total), bytes."""

    say: Callable[[str], None]
    report: Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order to the device: the deployment, and what was known before it."""

    version: str
    deployment: str
    known: frozenset[str]
    before: int


@dataclass(slots=True)
class Scene:
    """Everybody who takes part, and what they have made so far."""

    work: Path
    profile: Profile
    run: Processes
    relay: Relay
    server: Server
    desk: Desk
    bench: Bench
    watch: Watch
    images: dict[str, Image] = field(default_factory=dict)
    packed: dict[str, Packed] = field(default_factory=dict)
    old_metadata: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def set_up(
        cls,
        work: Path,
        directory: Path,
        profile: Profile,
        run: Processes,
        relay: Relay,
        watch: Watch,
    ) -> Scene:
        """Everybody in a directory of their own below ``directory``."""
        return cls(
            work,
            profile,
            run,
            relay,
            Server(run, directory / "server", "server"),
            Desk(run, directory / "desk"),
            Bench(run, directory / DEVICE, work / "tools"),
            watch,
        )

    def release(self, version: str, counter: int, *more: str | Path) -> list[str]:
        """Pack, sign and publish a version; what the signers read.

        ``more`` are further options of ``sealift release pack``.
        """
        packed = self.desk.pack(self.images[version], counter, *more)
        told = self.desk.sign(packed)
        self.desk.publish(packed, self.server)
        self.packed[version] = packed
        return told

    def order(self, version: str) -> Ordered:
        """Send a released version to the device, which is told to look."""
        known = frozenset(str(entry.get("id")) for entry in self.bench.history())
        before = self.relay.received
        deployment = send(self.run, self.server, f"{PRODUCT}-{version}", DEVICE)
        self.bench.poll()
        return Ordered(version, deployment, known, before)

    def came(self, ordered: Ordered) -> int:
        """Bytes that reached the device since the order; shown as progress."""
        total = self.packed[ordered.version].length
        came = self.relay.received - ordered.before
        self.watch.report(f"install {ordered.version}", min(came, total), total)
        return came

    def ended(self, ordered: Ordered) -> dict[str, Any]:
        """Wait until the device is done with an order; its own entry about it."""
        found: list[dict[str, Any]] = []

        def ended() -> bool:
            self.came(ordered)
            found[:] = [
                entry
                for entry in self.bench.history()
                if entry.get("release") == ordered.version
                and str(entry.get("id")) not in ordered.known
            ]
            return bool(found) and self.bench.is_at_rest()

        what = f"an end of {ordered.version}"
        wait_for(ended, what, seconds=STEP_SECONDS, step=0.2)
        if found[-1]["verdict"] != "failed":
            # What a slot held already was not fetched; the image is there all the same.
            total = self.packed[ordered.version].length
            self.watch.report(f"install {ordered.version}", total, total)
        return found[-1]

    @staticmethod
    def require_end(entry: dict[str, Any], verdict: str, code: str | None) -> None:
        """The device's entry has this verdict and code.

        Raises:
            OutcomeError: another one.
        """
        got = (entry["verdict"], entry["code"])
        require(
            got == (verdict, code),
            f"the device says {entry['verdict']} ({entry['code']}): {entry['detail']}",
        )

    def require_reported(self, ordered: Ordered, state: str) -> None:
        """Wait until the server has learnt this end from the device's signed report.

        Raises:
            FailedTransferError: it did not.
        """
        known: list[str] = []

        def told() -> bool:
            known[:] = self.server.installations(ordered.deployment)
            return known == [state]

        wait_for(told, f"a report of {state}", seconds=STEP_SECONDS, step=0.5)

    def require_refusal(self, code: str, act: Callable[[], object]) -> str:
        """Do ``act`` and wait until the device has refused what came of it.

        Raises:
            OutcomeError: by another code. FailedTransferError: it refused nothing.
        """
        before = self.bench.history()
        act()
        self.bench.poll()
        seen: list[dict[str, Any]] = []

        def refused() -> bool:
            seen[:] = [e for e in self.bench.history() if e not in before]
            return any(not str(e["code"]).startswith("transport.") for e in seen)

        wait_for(refused, f"a refusal by {code}", seconds=STEP_SECONDS, step=0.5)
        last = next(e for e in seen if not str(e["code"]).startswith("transport."))
        require(
            last["code"] == code, f"{last['verdict']} by {last['code']}, not {code}"
        )
        return f"refused: {last['detail']} [{code}]"
