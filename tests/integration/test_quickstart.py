"""docs/quickstart.md works: its commands run as printed and end in a confirmed update."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/quickstart.md"

_BLOCK = re.compile(r"^```sh( server)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for each in (one, two, three):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, two, three)]


def _blocks() -> list[tuple[bool, str]]:
    """The page's commands in order; ``True`` for the one of the second terminal."""
    text = PAGE.read_text("utf-8")
    for port, free in zip((8443, 8444, 8445), _free_ports(), strict=True):
        text = text.replace(str(port), str(free))
    return [(bool(server), commands) for server, commands in _BLOCK.findall(text)]


def _run(commands: str, place: Path, environ: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-eu", "-c", commands],
        cwd=place,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"


def test_the_page_ends_in_a_confirmed_update(tmp_path: Path) -> None:
    """Every command of the page succeeds, and the device runs what was ordered."""
    environ = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    blocks = _blocks()
    assert len(blocks) > 7
    server: subprocess.Popen[bytes] | None = None
    try:
        for is_server, commands in blocks:
            if is_server:
                server = subprocess.Popen(
                    ["bash", "-c", f"exec {commands}"],
                    cwd=tmp_path,
                    env=environ,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                _wait_for_server(tmp_path)
            else:
                _run(commands, tmp_path, environ)
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
    status = subprocess.run(
        ["sealift-agent", "status", "--config", "dev-0001/agent.toml", "--json"],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        check=True,
    )
    component = json.loads(status.stdout)["components"][0]
    assert (component["running"], component["state"]) == ("b", "idle")
    assert component["installed"]["release"] == "1.1.0"


def _wait_for_server(place: Path) -> None:
    settings = (place / "srv/server.toml").read_text("utf-8")
    ports = [int(port) for port in re.findall(r"127\.0\.0\.1:(\d+)", settings)]
    assert len(ports) == 3
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if all(map(_listens, ports)):
            return
        time.sleep(0.1)
    raise AssertionError("the server did not begin to listen")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
