"""A TPM 2.0 in software for one test: swtpm, and Debian's tpm2-tools to talk to it.

The state directory is absolute, for ``swtpm --daemon`` leaves its own (device-D30), and
one ``getrandom`` has to answer before anybody gets the TPM. The agent runs ``tpm2`` in
an environment of its own, so it is given a wrapper that finds the unpacked libraries.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.agent.tpm import Tool
from tests.bench import toolbox

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Swtpm:
    """A running TPM. ``command`` is what stands for ``/usr/bin/tpm2``."""

    directory: Path
    command: Path

    @property
    def tcti(self) -> str:
        """The way to it."""
        return f"swtpm:path={self.directory}/s"

    @property
    def tool(self) -> Tool:
        """As the agent uses it."""
        return Tool((str(self.command),), self.tcti)

    @property
    def settings(self) -> str:
        """Its section of the agent's configuration."""
        return f'[tpm]\ntool = ["{self.command}"]\ntcti = "{self.tcti}"\n'

    def run(self, *arguments: str, given: bytes = b"") -> bytes:
        """One act of ``tpm2``; it has to succeed."""
        return subprocess.run(
            [str(self.command), *arguments],
            env={"TPM2TOOLS_TCTI": self.tcti},
            input=given,
            capture_output=True,
            check=True,
        ).stdout

    def extend(self, pcr: int) -> None:
        """Extend a PCR, as a boot with other software does."""
        self.run("pcrextend", f"{pcr}:sha256={'5a' * 32}")

    def objects(self) -> str:
        """The contexts that lie about: there have to be none."""
        return self.run("getcap", "handles-transient").decode()


@contextlib.contextmanager
def swtpm(state: Path | None = None) -> Iterator[Swtpm]:
    """A TPM; with ``state`` it goes on with what an earlier one left there."""
    # Below /tmp: the path of a socket has 107 characters at most.
    directory = Path(tempfile.mkdtemp(prefix="swtpm-"))
    memory = (state or directory / "state").absolute()
    memory.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [
            *(toolbox.program("swtpm", toolbox.TPM), "socket", "--tpm2"),
            *("--tpmstate", f"dir={memory}"),
            *("--server", f"type=unixio,path={directory}/s"),
            *("--ctrl", f"type=unixio,path={directory}/s.ctrl"),
            *("--flags", "not-need-init,startup-clear"),
        ],
        env=toolbox.environment(toolbox.TPM),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        found = Swtpm(directory, _wrapper(directory))
        _answers(found)
        yield found
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _wrapper(directory: Path) -> Path:
    """``tpm2`` with its libraries, whatever the environment; nobody else may write."""
    path = directory / "tpm2"
    libraries = shlex.quote(toolbox.environment(toolbox.TPM)["LD_LIBRARY_PATH"])
    program = shlex.quote(toolbox.program("tpm2", toolbox.TPM))
    path.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {program} "$@"\n')
    path.chmod(0o755)
    return path


def _answers(tpm: Swtpm) -> None:
    until = time.monotonic() + SECONDS
    while not (tpm.directory / "s.ctrl").exists():
        assert time.monotonic() < until, "swtpm does not start"
        time.sleep(0.02)
    assert len(tpm.run("getrandom", "8")) == 8
