"""docs/secure-boot.md: every command in it runs, in order, with the real tools."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sealift.sign.ceremony import Plan, hold
from sealift.sign.desk import Desk, Policy
from sealift.sim.boot_files import tree_file
from tests.bench import toolbox
from tests.vendor import NOW, online_keys

GUIDE = Path(__file__).resolve().parents[2] / "docs/secure-boot.md"
BIN = Path(sys.executable).parent
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def sh(home: Path, commands: str, status: int = 0) -> str:
    environment = toolbox.environment()
    done = subprocess.run(
        ["sh", "-e", "-c", commands],
        cwd=home,
        env={**environment, "PATH": f"{BIN}{os.pathsep}{environment['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, f"{commands}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def js(home: Path, command: str, status: int = 0) -> Any:
    return json.loads(sh(home, f"sealift release {command} --json", status))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the guide leans on; then its commands, one after the other."""
    found = tmp_path_factory.mktemp("guide")
    (found / "rootfs").mkdir()
    (found / "rootfs/init").write_text("#!/bin/sh\n")
    for name, size in (("vmlinuz", 300_000), ("Image", 300_000), ("initrd.img", 9_000)):
        (found / name).write_bytes(os.urandom(size))
    (found / "app.bin").write_bytes(bytes(9_000))
    for name in ("board.dtb", "u-boot.dtb"):
        (found / name).write_bytes(tree_file({"compatible": "demo,board"}))
    hold(found / "desk", online_keys(), Plan(), Policy(), passphrase=None, now=NOW)
    blocks = BLOCK.findall(GUIDE.read_text("utf-8"))
    assert len(blocks) > 5
    for block in blocks:
        sh(found, block)
    return found


def test_the_commands_of_the_guide_work_as_written(home: Path) -> None:
    """They made two releases that say how they boot."""
    for name, kind in (("rel-1.2.0", "uki"), ("rel-arm-1.2.0", "fit")):
        facts = json.loads((home / name / "release.json").read_text())
        assert facts["artifact"]["boot"]["kind"] == kind
    assert Desk.open(home / "desk").roots()


def test_json_has_what_the_text_has(home: Path) -> None:
    """Of checks, of roots, and of what is only rehearsed."""
    told = js(home, "secure-boot check demo-1.2.0.img")
    again = js(
        home, "secure-boot verity root.squashfs --name demo-1.2.0 --out x --dry-run"
    )
    assert again["root_hash"] == told["boot"]["root_hash"]
    assert not (home / "x").exists()
    made = js(home, "secure-boot keys more db --dry-run")
    assert made == {"directory": "more", "written": False, "keys": {"db": None}}
    assert not (home / "more").exists()
    again = js(home, "secure-boot enrol --keys boot-keys --auth auth2")
    assert "option ROM" in again["warning"]
    text = sh(home, "sealift release secure-boot check demo.itb")
    assert "command_lines" in text


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("verity root.squashfs --out x", "config.invalid"),
        ("verity root.squashfs --salt xy --out x", "config.invalid"),
        ("enrol --keys boot-keys", "config.invalid"),
        ("image root.verity demo.efi --offset many --out x", "config.invalid"),
        ("check initrd.img", "input.invalid"),
        ("check demo.efi --certificate boot-keys/fit.crt", "policy.refused"),
        ("image root.verity demo.efi --offset 4096 --out x", "policy.refused"),
        ("keys boot-keys db", "config.invalid"),
    ],
)
def test_refusals_have_their_codes(home: Path, command: str, code: str) -> None:
    """Nothing is written, and the error says what to do."""
    done = subprocess.run(
        [str(BIN / "sealift"), "release", "secure-boot", *command.split(), "--json"],
        cwd=home,
        env=toolbox.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout)["error"]["code"] == code
    assert done.returncode not in {0, 1}
    assert not (home / "x").exists()


def test_b_03_a_key_of_a_role_is_refused(home: Path) -> None:
    """Named by --desk, or lying in a desk: it signs metadata, and no boot file."""
    key = next((home / "desk/keys").glob("image-targets-1.pem"))
    layout = "--version 1.0.0 --counter 1 --slot-size 0x20000 --out no.bin"
    (home / "stolen.pem").write_bytes(key.read_bytes())
    (home / "stolen.pem").chmod(0o600)
    for where in (f"--key {key}", "--key stolen.pem --desk desk"):
        found = js(home, f"secure-boot mcu app.bin {layout} {where}", status=6)
        assert found["error"]["code"] == "policy.refused"
        assert "image-targets-1" in found["error"]["message"]
    assert not (home / "no.bin").exists()
