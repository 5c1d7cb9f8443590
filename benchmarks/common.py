"""The shape every benchmark shares: one object, or the same as a table.

A benchmark is a module of this package with a `main` that ends so:

    def measure() -> Result:
        result = Result("agent_weight")
        result.figures["idle_rss_mib"] = ...
        result.peers["python3"] = {"idle_rss_mib": ...}
        result.ratios["idle_rss_vs_python3"] = ...
        return result

    if __name__ == "__main__":
        run(measure)

`python -m benchmarks.agent_weight --json` prints {"benchmark", "figures",
"peers", "ratios", "machine"}; without --json, a table. Units are the ends of the
names: _mib, _ms, _s, _mb_per_s. Compare ratios: figures belong to their machine,
and a peer is measured in the same run. Only the standard library is used here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

Value = float | int | str | bool | None

MIB = 1024 * 1024


def machine() -> dict[str, Value]:
    """What the figures were measured on; nothing that tells whose machine it is."""
    model = platform.machine()
    memory_mib = None
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemTotal:"):
            memory_mib = int(line.split()[1]) // 1024
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": memory_mib,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "architecture": platform.machine(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


@dataclass
class Result:
    """What one benchmark found."""

    benchmark: str
    figures: dict[str, Value] = field(default_factory=dict)
    peers: dict[str, dict[str, Value]] = field(default_factory=dict)
    ratios: dict[str, Value] = field(default_factory=dict)
    machine: dict[str, Value] = field(default_factory=machine)

    def as_json(self) -> str:
        """The one object, on one line."""
        return json.dumps(
            {
                "benchmark": self.benchmark,
                "figures": self.figures,
                "peers": self.peers,
                "ratios": self.ratios,
                "machine": self.machine,
            }
        )

    def as_table(self) -> str:
        """The same for people."""
        rows: list[tuple[str, str, str]] = []
        rows += [
            ("Sealift", name, _cell(value)) for name, value in self.figures.items()
        ]
        for peer, figures in self.peers.items():
            rows += [(peer, name, _cell(value)) for name, value in figures.items()]
        rows += [("ratio", name, _cell(value)) for name, value in self.ratios.items()]
        widths = [max((len(row[i]) for row in rows), default=0) for i in (0, 1, 2)]
        lines = [
            f"{who:<{widths[0]}}  {what:<{widths[1]}}  {value:>{widths[2]}}"
            for who, what, value in rows
        ]
        described = ", ".join(f"{k} {v}" for k, v in self.machine.items())
        return "\n".join([self.benchmark, *lines, f"machine: {described}"])


def _cell(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return "-" if value is None else str(value)


@dataclass(frozen=True)
class Cost:
    """What one process used, from start to end, its children included."""

    wall_s: float
    user_s: float
    system_s: float
    peak_rss_mib: float  # of the largest single process; 8 or so at the least
    status: int

    @property
    def cpu_s(self) -> float:
        """User and system time together."""
        return self.user_s + self.system_s


# Linux counts in a child's ru_maxrss what its parent had when it forked. So a bare
# Python forks it, and only peaks below a bare Python's own are lost.
_LAUNCH = """
import os, resource, sys, time
report, seconds, mib, *command = sys.argv[1:]
if int(seconds):
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds) + 1))
if int(mib):
    resource.setrlimit(resource.RLIMIT_AS, (int(mib) << 20, int(mib) << 20))
began = time.perf_counter()
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, used = os.wait4(pid, 0)
wall = time.perf_counter() - began
status = os.waitstatus_to_exitcode(status)
found = (wall, used.ru_utime, used.ru_stime, used.ru_maxrss, status)
os.write(int(report), " ".join(map(repr, found)).encode())
"""


def cost(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    cpu_limit_s: int = 0,
    memory_limit_mib: int = 0,
) -> Cost:
    """Run a command to its end and account for it (wait4).

    The limits hold for each of its processes by itself; zero is none. One that uses
    more CPU time than it may is ended by a signal, so its status is negative.

    Raises:
        FileNotFoundError: there is no such program.
        subprocess.CalledProcessError: it failed, and `check` is on.
    """
    parts = [str(part) for part in command]
    if not shutil.which(parts[0]):
        raise FileNotFoundError(parts[0])
    read, write = os.pipe()
    launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(write)]
    launch += [str(cpu_limit_s), str(memory_limit_mib)]
    with open(read, "rb") as report:
        try:
            done = subprocess.run(
                [*launch, *parts],
                env=dict(env) if env is not None else None,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[write],
                check=True,
            )
        finally:
            os.close(write)
        wall, user, system, peak, status = report.read().split()
    if check and int(status):
        raise subprocess.CalledProcessError(int(status), parts, stderr=done.stderr)
    return Cost(
        wall_s=float(wall),
        user_s=float(user),
        system_s=float(system),
        peak_rss_mib=int(peak) / 1024,
        status=int(status),
    )


def median_cost(times: int, command: Sequence[str | Path]) -> Cost:
    """The median of several runs, field by field, after one run to warm caches."""
    cost(command)
    costs = [cost(command) for _ in range(times)]
    return Cost(
        wall_s=median(one.wall_s for one in costs),
        user_s=median(one.user_s for one in costs),
        system_s=median(one.system_s for one in costs),
        peak_rss_mib=median(one.peak_rss_mib for one in costs),
        status=0,
    )


def rss_mib(pid: int) -> float:
    """Resident memory of a running process now."""
    return _status_mib(pid, "VmRSS")


def peak_rss_mib(pid: int) -> float:
    """The most a running process has had resident since it was executed."""
    return _status_mib(pid, "VmHWM")


def _status_mib(pid: int, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text("utf-8").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(f"process {pid} has no {key}: it has ended")


def cpu_s(pid: int) -> float:
    """CPU time of a running process so far, its reaped children included."""
    text = Path(f"/proc/{pid}/stat").read_text("utf-8")
    fields = text.rpartition(")")[2].split()  # the name may hold anything
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def ratio(ours: float, peer: float, digits: int = 3) -> float | None:
    """Ours over the peer's, or nothing where the peer measured nothing."""
    return round(ours / peer, digits) if peer else None


def run(measure: Callable[[], Result]) -> None:
    """The command line of a benchmark: measure, print, and nothing else."""
    parser = argparse.ArgumentParser(description=measure.__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    show(measure(), as_json=asked.json)


def show(result: Result, *, as_json: bool) -> None:
    """Print what was found, and nothing else."""
    print(result.as_json() if as_json else result.as_table(), flush=True)
