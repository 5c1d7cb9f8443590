"""Make .venv: the locked dependencies, by hash, and Sealift itself, editable.

    python3 -m tools.bootstrap [--native]

With --native, what tests, fuzzing and benchmarks need comes on top (native.lock); some
of it is compiled here. Without a C compiler it is left out, and the tests that need it
say so.

Runs on a bare Debian 12 `python3`, as root or not, with the standard library
only. Debian's python3 has neither pip nor ensurepip; where they are missing, pip
comes out of Debian's own package, fetched without root (see debs.py). Nothing
outside the checkout is changed. A second run sees from the stamp that nothing
changed, and ends at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

# tools.debs is imported where it is used: an old Python, which cannot, must get as
# far as the sentence about itself.
if TYPE_CHECKING:
    Command = list[str | Path]

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin/python"
STAMP = VENV / "sealift.stamp"
NATIVE_STAMP = VENV / "native.stamp"
OLDEST = (3, 11)
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class BootstrapError(Exception):
    """The environment could not be made; the text says why and what to do."""


def say(text: str) -> None:
    """One line of progress."""
    print(f"bootstrap: {text}", flush=True)


def fingerprint() -> str:
    """Of everything that decides what .venv holds, and nothing else."""
    import tomllib  # not in Python 3.10, which should meet our own message first

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    tools = project.pop("tool", {})
    project["hatch"] = tools.get("hatch")
    digest = hashlib.sha256()
    digest.update(f"{ROOT} {sys.version_info[:2]}".encode())
    digest.update(json.dumps(project, sort_keys=True).encode())
    for name in ("requirements.lock", "tools/bootstrap.py"):
        digest.update(hashlib.sha256((ROOT / name).read_bytes()).digest())
    return digest.hexdigest()


def up_to_date() -> bool:
    """Whether the last run saw the same files and its Python is still there."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == fingerprint()


def run(command: Command, what: str) -> None:
    """Run one step; what it printed is shown only if it fails."""
    environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    environ.pop("PYTHONPATH", None)
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = "\n".join(f"  | {line}" for line in done.stdout.splitlines()[-15:])
        raise BootstrapError(f"{what} failed (status {done.returncode})\n{said}")


def make_venv() -> None:
    """An empty .venv with a Python and pip in it."""
    if PYTHON.exists() and has_pip():
        return
    # What debs.py fetched is kept; the rest of a half-made .venv is not.
    for part in ("bin", "lib", "lib64", "include", "pyvenv.cfg"):
        broken = VENV / part
        if broken.is_dir() and not broken.is_symlink():
            shutil.rmtree(broken)
        else:
            broken.unlink(missing_ok=True)
    if importlib.util.find_spec("ensurepip") is not None:
        say("making .venv with python3's own pip")
        run([sys.executable, "-m", "venv", VENV], "python3 -m venv")
        return
    say("making .venv; this python3 has no pip, so it comes from Debian's package")
    run([sys.executable, "-m", "venv", "--without-pip", VENV], "python3 -m venv")
    content = fetch(["python3-pip-whl", "ca-certificates"], VENV / "pip-debs")
    wheels = sorted(content.glob("usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        raise BootstrapError("Debian's python3-pip-whl holds no pip wheel")
    # A wheel is a zip file, and pip runs from within it to install itself.
    pip: Command = [PYTHON, wheels[-1] / "pip"]
    alone: Command = ["install", "--no-index", "--no-deps", wheels[-1]]
    run([*pip, *alone], "installing pip into .venv")


def fetch(names: list[str], into: Path) -> Path:
    """Debian packages, unpacked below `into`."""
    from tools import debs

    try:
        return debs.fetch(names, into)
    except debs.DebsError as error:
        raise BootstrapError(
            f"{error}\nOr install pip's package by hand (on Debian: python3-venv)."
        ) from error


def has_pip() -> bool:
    """Whether .venv's Python runs and has pip."""
    asked: Command = [PYTHON, "-c", "import pip"]
    return subprocess.run(asked, capture_output=True, check=False).returncode == 0


def certificates() -> Command:
    """The option that names the authorities, if this machine has none itself."""
    named = any(os.environ.get(name) for name in ("PIP_CERT", "SSL_CERT_FILE"))
    ours = VENV / "pip-debs/usr/share/ca-certificates"
    if named or CERTIFICATES.exists() or not ours.is_dir():
        return []
    bundle = VENV / "pip-debs/authorities.pem"
    parts = [path.read_text("ascii") for path in sorted(ours.rglob("*.crt"))]
    bundle.write_text("\n".join(parts), "ascii")
    return ["--cert", bundle]


def advice(said: str) -> str:
    """What to do about a pip that failed."""
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            "This network has a certificate authority of its own: name its file in "
            "PIP_CERT, or install it on this machine."
        )
    if "DO NOT MATCH THE HASHES" in said:
        return "A file is not what requirements.lock says. Nothing was installed."
    if "No space left" in said:
        return "The disk is full: .venv needs about 300 MB."
    return (
        "Is there a network, and can pip reach its registry? Behind a mirror, set "
        "it as for any pip (PIP_INDEX_URL or pip.conf)."
    )


def install() -> None:
    """The locked dependencies, then Sealift itself."""
    pip: Command = [PYTHON, "-m", "pip", "install", *certificates()]
    say("installing the dependencies of requirements.lock, checked by hash")
    try:
        run(
            [*pip, "--require-hashes", "--requirement", ROOT / "requirements.lock"],
            "pip install",
        )
    except BootstrapError as error:
        raise BootstrapError(f"{error}\n{advice(str(error))}") from error
    # hatchling is one of the locked packages: nothing is fetched here.
    alone: Command = ["--no-deps", "--no-build-isolation", "--no-index"]
    say("installing Sealift, editable")
    run([*pip, *alone, "--editable", ROOT], "pip install --editable .")


def install_native() -> None:
    """What may need a compiler; its absence is told, and costs only the tests of it."""
    wanted = hashlib.sha256((ROOT / "native.lock").read_bytes()).hexdigest()
    if NATIVE_STAMP.exists() and NATIVE_STAMP.read_text() == wanted:
        return
    pip: Command = [PYTHON, "-m", "pip", "install", *certificates(), "--require-hashes"]
    say("installing native.lock for tests, fuzzing and benchmarks, checked by hash")
    try:
        # Built with the setuptools of requirements.lock: nothing unpinned runs.
        run([*pip, "--no-build-isolation", "-r", ROOT / "native.lock"], "pip install")
    except BootstrapError as error:
        say(f"{error}\nGoing on without it; on Debian: apt install gcc python3-dev")
        return
    NATIVE_STAMP.write_text(wanted)


def bootstrap(*, native: bool = False) -> None:
    """Bring .venv up to date.

    Raises:
        BootstrapError: wrong Python, no network, no apt, a failing pip.
        OSError: the checkout cannot be written.
    """
    if sys.version_info < OLDEST:
        raise BootstrapError(
            f"Sealift needs Python {OLDEST[0]}.{OLDEST[1]} or newer, and this is "
            f"{sys.version.split()[0]} ({sys.executable}); name another one with "
            "`make PYTHON=/path/to/python3`"
        )
    began = time.monotonic()
    VENV.mkdir(exist_ok=True)
    with (VENV / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fresh = not up_to_date()
        if fresh:
            STAMP.unlink(missing_ok=True)
            make_venv()
            install()
            STAMP.write_text(fingerprint())
        if native:
            install_native()
    if fresh:
        say(f"ready in {time.monotonic() - began:.0f} s: .venv/bin/sealift")


def main() -> None:
    """The command line."""
    try:
        bootstrap(native="--native" in sys.argv[1:])
    except BootstrapError as error:
        sys.exit(f"bootstrap: {error}")
    except OSError as error:
        sys.exit(
            f"bootstrap: {error}\nThe checkout must be writable for the user who "
            "runs make: everything is installed into .venv in it."
        )


if __name__ == "__main__":
    main()
