"""docs/payload.md: every command in it runs, in order, beside a running server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.server_process import RunningServer, made
from tests.unit.payload.filesystems import STEADY, build, grow, settle

PAGE = Path(__file__).resolve().parents[2] / "docs/payload.md"
BIN = Path(sys.executable).parent
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    """A running server, and a profile that names it."""
    running = made(tmp_path / "srv")
    running.start()
    (tmp_path / "token").write_text(running.token + "\n")
    (tmp_path / "server.toml").write_text(
        f'server = "{running.urls["operator"]}"\n'
        'ca = "srv/public/tls-ca.pem"\ntoken_file = "token"\n'
    )
    for secret in ("token", "server.toml"):
        (tmp_path / secret).chmod(0o600)
    yield running
    running.stop()


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Two builds of a root file system; between them a file was changed."""
    tree = grow(tmp_path / "tree")
    settle(tree)
    build(tree, tmp_path / "old.img", *STEADY)
    changed = tree / "usr/lib/d0/file-7"
    changed.write_bytes(changed.read_bytes()[::-1])
    settle(tree)
    build(tree, tmp_path / "new.img", *STEADY)
    return tmp_path


def sh(home: Path, commands: str) -> str:
    """What the commands print; they stop at the first that fails."""
    done = subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=home,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_commands_of_the_guide_work_as_written(
    bench: Path, server: RunningServer
) -> None:
    """Copied from the page into a shell; `cmp` in it is the proof of what it says."""
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    assert len(blocks) > 5
    for block in blocks:
        sh(bench, block)
    found = sh(bench, "sealift payload deltas --profile server.toml --json")
    assert json.loads(found) == []
    with pytest.raises(AssertionError, match=r"\[input\.not_found\]"):
        sh(bench, "sealift payload deltas --profile server.toml --retry 7")


def test_the_table_of_findings_is_whole() -> None:
    """Every code there is stands in the guide, and no other."""
    source = PAGE.parents[1] / "src/sealift/payload/look"
    codes = set[str]()
    for name in ("advice", "builds", "compressed"):
        text = (source / f"{name}.py").read_text("utf-8")
        codes.update(re.findall(r'Finding\(\s*"([a-z0-9.-]+)"', text))
        codes.update(f"compressed.{u}" for u in re.findall(r'_Use\(\s*"(\w+)"', text))
    table = PAGE.read_text("utf-8").split("| code |")[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    told = {code for cell in cells for code in re.findall(r"`([a-z0-9.-]+)`", cell)}
    told = {f"compressed{code}" if code[0] == "." else code for code in told}
    assert told == codes
