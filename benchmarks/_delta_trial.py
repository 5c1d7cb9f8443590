"""One peer on one pair: made, applied, compared, within limits; and remembered."""

from __future__ import annotations

import filecmp
import hashlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks._delta_corpus import Pair
from benchmarks._delta_peers import Desk, Peer
from benchmarks._delta_tools import Tools
from benchmarks.common import MIB, Cost, Value, cost
from sealift.core.errors import SealiftError
from sealift.sim.debian import Say

Figures = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process of a peer may use."""

    cpu_s: int = 300
    memory_mib: int = 10240

    def run(self, command: Sequence[str]) -> Cost:
        """The cost of a command that keeps within them.

        Raises:
            subprocess.CalledProcessError: it failed, or did not keep within them.
        """
        return cost(command, cpu_limit_s=self.cpu_s, memory_limit_mib=self.memory_mib)


@dataclass(frozen=True, slots=True)
class Trials:
    """Tries peers; with `reuse`, what an earlier run found is taken as it is."""

    work: Path
    tools: Tools
    limits: Limits
    say: Say
    reuse: bool = False

    def versions(self, peers: Sequence[Peer]) -> dict[str, Figures]:
        """Of each peer its version, or why there is none."""
        return {peer.name: self._version(peer) for peer in peers}

    def _version(self, peer: Peer) -> Figures:
        try:
            return {"version": peer.version(self.tools)}
        except SealiftError as error:
            return {"missing": error.message}

    def run(self, peer: Peer, version: Value, pair: Pair) -> Figures:
        """What a peer needs for a pair, or the one figure `not` that says why not."""
        if pair.new.stat().st_size > peer.largest:
            return {"not": f"tried up to {peer.largest // MIB} MiB only"}
        told = [peer.name, version, *pair.digests(), self.limits.cpu_s]
        name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
        record = self.work / "results" / f"{name}.json"
        if self.reuse and record.exists():
            found: Figures = json.loads(record.read_text("utf-8"))
            return found
        self.say(f"{pair.name}: {peer.name}")
        figures = self._try(peer, pair)
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(figures), "utf-8")
        return figures

    def _try(self, peer: Peer, pair: Pair) -> Figures:
        self.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.work) as home:
            desk = Desk(pair.old, pair.new, Path(home))
            try:
                created = peer.create(desk, self.tools, self.limits.run)
                applied = peer.apply(desk, self.tools, self.limits.run)
                wire = peer.wire(desk)
            except subprocess.CalledProcessError as error:
                return {"not": self._reason(error)}
            if not filecmp.cmp(desk.out, desk.new, shallow=False):
                return {"not": "another image came out"}
            return {
                "bytes": wire,
                **costs("create", created),
                **costs("apply", applied),
            }

    def _reason(self, error: subprocess.CalledProcessError) -> str:
        if error.returncode < 0:
            return f"not in {self.limits.cpu_s} CPU s"
        said = (error.stderr or b"").decode("utf-8", "replace").strip().splitlines()
        return f"failed with status {error.returncode}: {' '.join(said[-1:])[:200]}"


def costs(what: str, found: Cost) -> Figures:
    """The two figures of a cost."""
    return {
        f"{what}_cpu_s": sensible(found.cpu_s),
        f"{what}_peak_rss_mib": sensible(found.peak_rss_mib),
    }


def sensible(value: float) -> float:
    """Three digits: more say nothing on a shared machine."""
    return float(f"{value:.3g}")
