"""docs/signing.md and docs/key-ceremony.md: every command in them runs, in order."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
BIN = Path(sys.executable).parent
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Office:
    """A directory with a running server and everything the guides lean on."""

    home: Path

    def sh(self, commands: str) -> str:
        """What the commands print; they stop at the first that fails."""
        done = subprocess.run(
            ["sh", "-e", "-c", commands],
            cwd=self.home,
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
        return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError("the server does not listen")


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    found = Office(tmp_path)
    ports = {name: free_port() for name in ("device", "operator", "enrol")}
    operators = ports["operator"]
    listen = " ".join(f"--{name}-listen 127.0.0.1:{at}" for name, at in ports.items())
    made = json.loads(found.sh(f"sealift server init srv {listen} --json"))
    (tmp_path / "operator.token").write_text(made["operator_token"] + "\n")
    (tmp_path / "server.toml").write_text(
        f'server = "https://localhost:{operators}"\n'
        'ca = "srv/public/tls-ca.pem"\ntoken_file = "operator.token"\n'
    )
    for secret in ("operator.token", "server.toml"):
        (tmp_path / secret).chmod(0o600)
    (tmp_path / "passphrase").write_text("correct horse\n")
    image = os.urandom(3 << 20) + bytes(5 << 20)
    (tmp_path / "rootfs.img").write_bytes(image)
    (tmp_path / "rootfs-1.3.0.img").write_bytes(image[:70_000] + b"new" + image)
    (tmp_path / "sbom.json").write_text("{}\n")
    found.sh("cp srv/public/online-keys.json .")
    found.sh("sealift server init new")
    found.sh("cp new/public/online-keys.json new/")
    server = subprocess.Popen(
        [str(BIN / "sealift"), "server", "run", "srv"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(operators)
        yield found
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


@pytest.mark.parametrize("page", ["signing.md", "key-ceremony.md"])
def test_the_commands_of_a_guide_work_as_written(page: str, office: Office) -> None:
    """Copied from the page into a shell, one after the other, with a real server."""
    blocks = BLOCK.findall((DOCS / page).read_text("utf-8"))
    assert len(blocks) > 3
    for block in blocks:
        office.sh(block)


def test_published_twice_is_published_once(office: Office) -> None:
    """Roots, Targets and a release again change nothing, and a second desk is refused."""
    office.sh(
        "sealift init desk --online online-keys.json --passphrase-file passphrase\n"
        "sealift keys publish desk --profile server.toml\n"
        "sealift keys publish desk --profile server.toml\n"
        "sealift init other --online online-keys.json --passphrase-file passphrase\n"
    )
    with pytest.raises(AssertionError, match=r"\[input\.conflict\]"):
        office.sh("sealift keys publish other --profile server.toml")
