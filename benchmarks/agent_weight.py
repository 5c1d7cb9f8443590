"""How heavy the agent is: resident memory at rest and at work, time to start.

Everything real: a server, a desk, a board, `sealift-agent run` that installs a 64 MiB
and a 1 GiB sparse image (one MiB in sixteen is noise that does not compress).

`start_*` is from exec to the agent being put together (configuration, state, trust
anchors, TLS identity read); `first_check_*` until its first full check is over, child
included. `idle_rss_mib` is the polling parent after several polls. `peak_rss_mib_*` is
the largest single process during an install, `peak_sum_mib_*` parent and child together
(pages they share count twice), `peak_pss_mib_*` the same with shared pages divided.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Self

from benchmarks.common import MIB, Result, median_cost, peak_rss_mib, rss_mib, run
from sealift.sim.processes import Processes
from sealift.sim.station import AGENT, Station

SIZES = {"64": 64, "1024": 1024}
STARTS = 7
POLLS = 4
INSTALL_SECONDS = 900.0


def measure() -> Result:
    """All figures in one run."""
    result = Result("agent_weight")
    _peers(result)
    with tempfile.TemporaryDirectory(prefix="sealift-") as name:
        place = Path(name)
        with Processes(place / "logs") as processes:
            station = Station(processes, place, (max(SIZES.values()) + 1) * MIB)
            station.set_up()
            _start(station, result)
            _run(station, result)
    _ratios(result)
    return result


# ── peers ────────────────────────────────────────────────────────────────────────────
def _peers(result: Result) -> None:
    for name, code in (
        ("python3", "pass"),
        ("import tuf.ngclient", "import tuf.ngclient"),
    ):
        python = [sys.executable, "-I", "-c"]
        cost = median_cost(STARTS, [*python, code])
        result.peers[name] = {
            "idle_rss_mib": _resting_rss([*python, f"{code}\nprint(1, flush=True)"]),
            "start_cpu_ms": cost.cpu_s * 1000,
            "start_wall_ms": cost.wall_s * 1000,
        }


def _resting_rss(command: list[str]) -> float:
    command[-1] += "\nimport sys; sys.stdin.read()"
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        return rss_mib(process.pid)


# ── start ────────────────────────────────────────────────────────────────────────────
def _start(station: Station, result: Result) -> None:
    """Start the agent several times; it has looked at the server once before."""
    boot = station.device / "boot/running"
    boot.write_text("slot=a\nboot_id=1-aa\n")
    runs = [_one_start(station) for _ in range(STARTS + 1)][1:]
    for name in runs[0]:
        result.figures[name] = median(run[name] for run in runs)


def _one_start(station: Station) -> dict[str, float]:
    command = [*AGENT, "run", "--config", str(station.config)]
    began = time.perf_counter()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _until(process, "info start")
            wall, cpu = time.perf_counter() - began, _cpu_ms(process.pid)
            _until(process, "info wait")
            checked = time.perf_counter() - began
            with_child = _cpu_ms(process.pid) + _children_cpu_ms(process.pid)
        finally:
            process.terminate()
    return {
        "start_cpu_ms": cpu,
        "start_wall_ms": wall * 1000,
        "first_check_cpu_ms": with_child,
        "first_check_wall_ms": checked * 1000,
    }


def _until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr
    for line in process.stderr:
        if text in line:
            return
    raise RuntimeError(f"the agent ended before it said {text!r}")


def _cpu_ms(pid: int) -> float:
    """Time on a processor so far, threads included."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e6


def _children_cpu_ms(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[13]) + int(words[14])) * 1000 / os.sysconf("SC_CLK_TCK")


# ── at rest and at work ──────────────────────────────────────────────────────────────
def _run(station: Station, result: Result) -> None:
    images = {name: _image(station.place, size) for name, size in SIZES.items()}
    packed = {
        name: station.release(path, f"{at}.0.0")
        for at, (name, path) in enumerate(images.items(), 1)
    }
    station.power_on()
    station.wait("info poll", times=POLLS)
    parent = station.tell("status")["agent"]["pid"]
    result.figures["idle_rss_mib"] = rss_mib(parent)
    result.figures["idle_pss_mib"] = _pss_mib(parent)
    for number, (name, release) in enumerate(packed.items(), 1):
        with Sampler(station) as sampler:
            station.order(release)
            station.wait("state=idle", INSTALL_SECONDS, times=number)
        result.figures[f"peak_rss_mib_{name}"] = sampler.largest
        result.figures[f"peak_sum_mib_{name}"] = sampler.total
        result.figures[f"peak_pss_mib_{name}"] = sampler.proportional
    parent = station.tell("status")["agent"]["pid"]
    result.figures["idle_rss_mib_after"] = rss_mib(parent)


def _image(place: Path, size_mib: int) -> Path:
    path = place / f"image-{size_mib}.img"
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
        for at in range(0, size_mib, 16):
            file.seek(at * MIB)
            file.write(os.urandom(MIB))
    return path


@dataclass
class Sampler:
    """Looks at the agent's processes every few milliseconds, in a thread."""

    station: Station
    largest: float = 0.0
    total: float = 0.0
    proportional: float = 0.0
    _done: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.03):
            with suppress(OSError, ValueError, RuntimeError):
                self._look()

    def _look(self) -> None:
        pids = _parent_and_child(self.station.agents())
        self.total = max(self.total, sum(rss_mib(pid) for pid in pids))
        self.largest = max([self.largest, *(peak_rss_mib(pid) for pid in pids)])
        self.proportional = max(self.proportional, sum(_pss_mib(pid) for pid in pids))


def _parent_and_child(pids: list[int]) -> list[int]:
    """Without what a process is for an instant between fork and exec."""
    above = {pid: _parent(pid) for pid in pids}
    (top,) = (pid for pid, parent in above.items() if parent not in above)
    return [pid for pid in pids if pid == top or above[pid] == top]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _pss_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no PSS")


def _ratios(result: Result) -> None:
    bare, tuf = result.peers["python3"], result.peers["import tuf.ngclient"]
    for label, peer in (("python3", bare), ("tuf_ngclient", tuf)):
        for name in ("idle_rss_mib", "start_cpu_ms", "start_wall_ms"):
            ours, theirs = result.figures[name], peer[name]
            assert isinstance(ours, float)
            assert isinstance(theirs, float)
            result.ratios[f"{name}_vs_{label}"] = ours / theirs
    small, large = (
        result.figures["peak_rss_mib_64"],
        result.figures["peak_rss_mib_1024"],
    )
    assert isinstance(small, float)
    assert isinstance(large, float)
    result.ratios["peak_rss_1024_vs_64"] = large / small


if __name__ == "__main__":
    run(measure)
