"""Write uv.lock and what pip installs from it out of pyproject.toml, without addresses.

uv records where it found each file. Where a mirror stands is the business of
whoever installs, and a hash says what a file is wherever it comes from; so the
addresses go, and names, versions, sizes and hashes stay. uv itself still reads
the result: `uv lock --check`, `uv tree --frozen` and `uv export --frozen` work.
requirements.lock is that export, for pip; tools/bootstrap.py installs it. What only
tests, fuzzing and benchmarks need, and may have to be compiled, is in native.lock.

Run it in the project's environment: `make lock`, or with arguments for
`uv lock`: `make lock ARGS="--upgrade-package tuf"`.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = "uv>=0.13,<0.14"
HEADER = "# Written by tools/lock.py from pyproject.toml. Do not edit.\n"

_URL = re.compile(r'\{ url = "[^"]*/(?P<name>[^/"#?]+)"')
_REGISTRY = re.compile(r'\{ registry = "[^"]*" \}')
_UPLOADED = re.compile(r', upload-time = "[^"]*"')


def without_addresses(lock: str) -> str:
    """The same lock with file names for addresses; it does not change twice."""
    lock = _URL.sub(r'{ filename = "\g<name>"', lock)
    lock = _REGISTRY.sub('{ registry = "." }', lock)
    lock = _UPLOADED.sub("", lock)
    if "://" in lock:
        where = next(line for line in lock.splitlines() if "://" in line)
        sys.exit(f"lock: an address is left in uv.lock: {where.strip()}")
    return lock


def find_uv() -> list[str]:
    """The command for uv; installs it beside this Python if it is missing."""
    if found := shutil.which("uv"):
        return [found]
    if importlib.util.find_spec("uv") is None:
        print(f"lock: installing {UV} into this environment", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", UV]
        subprocess.run(pip, check=True)
    return [sys.executable, "-m", "uv"]


def resolve(uv: list[str], desk: Path, arguments: list[str]) -> dict[str, str]:
    """Resolve in a copy, so that a failure leaves the project as it was."""
    for name in ("pyproject.toml", "uv.lock", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, desk / name)
    subprocess.run([*uv, "lock", *arguments], cwd=desk, check=True)
    lock = desk / "uv.lock"
    lock.write_text(without_addresses(lock.read_text("utf-8")), "utf-8")
    return {
        lock.name: lock.read_text("utf-8"),
        "requirements.lock": export(
            uv,
            desk,
            "--all-extras --no-extra mcu --no-extra secureboot "
            "--all-groups --no-group native",
        ),
        "native.lock": export(uv, desk, "--only-group native"),
    }


def export(uv: list[str], desk: Path, parts: str) -> str:
    """Those parts of the lock as pip reads them: pins and hashes."""
    flags = f"--quiet --frozen --no-emit-project {parts}"
    layout = "--no-header --no-annotate --format requirements.txt"
    command = [*uv, "export", *flags.split(), *layout.split()]
    done = subprocess.run(command, cwd=desk, check=True, capture_output=True, text=True)
    return HEADER + done.stdout


def keep(path: Path, text: str) -> None:
    """Replace a file in one step, and say whether it changed."""
    old = path.read_text("utf-8") if path.exists() else None
    print(f"lock: {path.name} {'is unchanged' if text == old else 'written'}")
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, "utf-8")
    beside.replace(path)


def main() -> None:
    """Write all files, or none."""
    try:
        with tempfile.TemporaryDirectory(prefix="sealift-lock-") as desk:
            written = resolve(find_uv(), Path(desk), sys.argv[1:])
    except subprocess.CalledProcessError as error:
        sys.exit(f"lock: {error.cmd[-1]} ended with status {error.returncode}")
    for name, text in written.items():
        keep(ROOT / name, text)


if __name__ == "__main__":
    main()
