"""Sealift on one pair: full and delta are made, sealed, and installed by the agent."""

from __future__ import annotations

import filecmp
import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import _delta_ours
from benchmarks._delta_corpus import Pair
from benchmarks._delta_ours import HARDWARE, KEY, facts
from benchmarks._delta_trial import Figures, costs
from benchmarks.common import Cost, cost
from sealift.agent.boot.file import Store, open_store
from sealift.core.types import Instruction, Seal, Wrap

DEVICE = Path(__file__).with_name("_delta_device.py")
WAYS = ("delta", "full", "delta.sealed", "full.sealed")
"""The containers that are installed; a device gets one of them."""


@dataclass(frozen=True, slots=True)
class Sealift:
    """Works on one pair below `home`, which is its own."""

    pair: Pair
    home: Path
    quality: str

    def measure(self) -> Figures:
        """All figures of this pair.

        Raises:
            subprocess.CalledProcessError: a step failed.
            ValueError: a slot holds another image than the new one.
        """
        old, new = str(self.pair.old), str(self.pair.new)
        packed = self._step("full", new, self._file("full"))
        made = self._step("delta", old, new, self._file("delta"), self.quality)
        for name in ("full", "delta"):
            self._step("seal", self._file(name))
        decoded = self._step("decode", self._file("delta"), old)
        figures = {"image_bytes": self.pair.new.stat().st_size}
        for way in WAYS:
            figures[f"{way}_bytes"] = Path(self._file(way)).stat().st_size
        told = json.loads(Path(self._file("delta.json")).read_bytes())
        return {
            **figures,
            "strategy": told["strategy"],
            **costs("create", made),
            **costs("pack_full", packed),
            **costs("decode", decoded),
            **self._device(),
        }

    def _device(self) -> Figures:
        """What the device needs for each way; `apply` is the delta, as for peers."""
        found: Figures = {}
        peaks: dict[str, float] = {}
        for way in WAYS:
            used, received = self.install(way)
            name = "apply" if way == "delta" else f"apply_{way}"
            found |= {**costs(name, used), f"{way}_received_bytes": received}
            peaks[way] = round(used.peak_rss_mib, 1)
        return {
            **found,
            "device_peak_rss_mib": max(peaks.values()),
            "device_peak_rss_mib_plain": max(peaks["delta"], peaks["full"]),
        }

    def _step(self, *words: str) -> Cost:
        return cost([sys.executable, "-m", _delta_ours.__name__, *words])

    def _file(self, name: str) -> str:
        return str(self.home / name)

    # ── the device ───────────────────────────────────────────────────────────────────
    def install(self, way: str) -> tuple[Cost, int]:
        """A fresh device installs; its cost, and the bytes it received.

        Raises:
            ValueError: the slot holds something else than the new image, or the device
                went another way.
        """
        home = self.home / "device"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        slot, result = home / "slot", home / "result.json"
        with slot.open("wb") as file:
            file.truncate(self.pair.new.stat().st_size)
        open_store(str(home)).write(Store())
        told = {**self._job(way), "slot": str(slot), "home": str(home)}
        job = home / "job.json"
        job.write_text(json.dumps({**told, "result": str(result)}), "utf-8")
        used = cost([sys.executable, "-I", str(DEVICE), str(job)])
        done = json.loads(result.read_bytes())
        if not filecmp.cmp(slot, self.pair.new, shallow=False):
            raise ValueError(f"{self.pair.name}: another image came out")
        if done["method"] != way.partition(".")[0]:
            raise ValueError(f"{self.pair.name}: the device took {done['method']}")
        return used, done["received"]

    def _job(self, way: str) -> dict[str, object]:
        kind, _, sealed = way.partition(".")
        suffix = ".sealed" if sealed else ""
        artifact, full = facts(Path(self._file(f"full{suffix}")))
        _, delta = facts(Path(self._file(f"delta{suffix}")))
        order = Instruction(
            ecu_id="benchmark-main",
            hardware_id=HARDWARE,
            artifact=artifact,
            full=full,
            delta=delta if kind == "delta" else None,
            bytes_max=None,
            director_version=1,
            targets_sha256=bytes(32),
            sealed=Seal(Wrap("x25519", "0" * 16, bytes(80))) if sealed else None,
        )
        recorded = replace(
            artifact, length=delta.base_length, sha256=delta.base_sha256 or b""
        )
        return {
            "order": order.to_json(),
            "base": recorded.to_json(),
            "old": str(self.pair.old),
            "files": {one.name: self._file(one.name) for one in (full, delta)},
            "key": KEY.hex() if sealed else None,
        }
