"""Run every benchmark, one after the other: `python -m benchmarks [--json]`.

Each runs in a process of its own. With --json each prints its object on a line.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SHARED = {"__init__", "__main__", "common"}


def names() -> list[str]:
    """The benchmarks: every module here but the shared ones and private helpers."""
    found = {path.stem for path in HERE.glob("*.py")} - SHARED
    return sorted(name for name in found if not name.startswith("_"))


def main() -> None:
    """Run them all; the exit status counts those that failed."""
    failed = []
    for name in names():
        command = [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]
        if subprocess.run(command, cwd=HERE.parent, check=False).returncode:
            failed.append(name)
        elif "--json" not in sys.argv:
            print()
    if failed:
        sys.exit(f"benchmarks that failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
