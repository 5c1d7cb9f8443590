"""The fuzzers: ``make fuzz ARGS="--seconds 600"``, or one of them by name.

Each target of ``tests.fuzz.targets`` runs under atheris for its share of the time, from
the committed corpus and whatever ``--corpus`` kept of earlier runs. A finding ends the
run with status 1 and leaves its input in ``--findings``.
``python -m tests.fuzz corruptions --count 10000`` corrupts a delta so many times.
``python -m tests.fuzz keep --corpus DIR`` takes what earlier runs found into the committed
corpus, where it goes a new way; a finding that was fixed is copied there by hand.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz import corruptions
from tests.fuzz.keep import keep
from tests.fuzz.plain import CORPUS

RSS_MIB = 256
"""Far above what any target needs, far below what a bomb would take."""


def main() -> int:
    """Exit status: 0 if nothing was found."""
    arguments = _arguments()
    match arguments.what:
        case "corruptions":
            report = corruptions.run(arguments.count, arguments.seed)
            print(report)
            return 0 if report.ok else 1
        case "keep":
            return _keep(arguments.corpus)
        case "all":
            return _fuzz_all(_targets(), arguments)
        case name:
            return _fuzz_all([name], arguments)


def _keep(found: Path | None) -> int:
    if found is None:
        print("keep: --corpus says where the new inputs are")
        return 2
    for name in _targets():
        print(f"{name:10} {keep(name, found / name):>4} new inputs")
    return 0


def _fuzz_all(names: list[str], arguments: argparse.Namespace) -> int:
    share = max(1, arguments.seconds // len(names))
    with tempfile.TemporaryDirectory() as scratch:
        kept = arguments.corpus or Path(scratch)
        return max(_fuzz(name, share, kept, arguments.findings) for name in names)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "what",
        nargs="?",
        default="all",
        choices=["all", "corruptions", "keep", *_targets()],
    )
    parser.add_argument("--seconds", type=int, default=60, help="for all together")
    parser.add_argument(
        "--corpus", type=Path, help="where new inputs are put; keep: where they are"
    )
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _targets() -> list[str]:
    return sorted(path.name for path in CORPUS.iterdir())


def _fuzz(name: str, seconds: int, kept: Path, findings: Path) -> int:
    """One target for so long; what came of it on one line."""
    new = kept / name
    new.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.guided", name),
            f"-max_total_time={seconds}",
            f"-rss_limit_mb={RSS_MIB}",
            "-timeout=60",
            "-report_slow_units=60",
            "-max_len=20000",
            "-print_final_stats=1",
            f"-artifact_prefix={findings}/{name}-",
            *(str(new), str(CORPUS / name)),
        ],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(f"{name:10} {_stats(done.stderr)}", flush=True)
    if done.returncode:
        print(done.stderr[-5000:])
    return 1 if done.returncode else 0


def _stats(log: str) -> str:
    """Executions, edges and memory, out of what libFuzzer says at its end."""
    executions = re.findall(r"number_of_executed_units:\s+(\d+)", log)
    peak = re.findall(r"peak_rss_mb:\s+(\d+)", log)
    edges = re.findall(r"cov: (\d+)", log)
    last = [found[-1] if found else "?" for found in (executions, edges, peak)]
    return "{:>9} executions, {:>5} edges, peak {:>4} MiB".format(*last)


if __name__ == "__main__":
    sys.exit(main())
