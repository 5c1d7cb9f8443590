"""The Debian package: same bytes twice, installed by real dpkg, units as systemd reads
them, and the installed agent run inside the Debian it was installed into.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sealift.agent import settings
from tests.bench import debian_tree
from tests.integration.agent_world import Device, World, world
from tests.integration.test_agent_watchdog import load
from tools import deb

UNITS = ("sealift-agent.service", "sealift-trial.service", "sealift-trial.timer")
EXPOSURE = 20
"""Tenths: what ``systemd-analyze security`` may say at most; 96 is no fence at all."""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deb.build(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def root(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Debian with the package in it, installed as anybody installs one."""
    found = debian_tree.copy(tmp_path_factory.mktemp("debian") / "root")
    (found / "tmp/agent.deb").write_bytes(package.read_bytes())
    done = debian_tree.run(found, "dpkg", "--install", "/tmp/agent.deb")
    assert done.returncode == 0, done.stderr
    assert "Setting up sealift-agent" in done.stdout
    return found


@pytest.fixture
def inside(root: Path) -> Run:
    return lambda *words, **more: debian_tree.run(root, *words, **more)


def test_d37_the_same_tree_makes_the_same_package(tmp_path: Path) -> None:
    """Another directory, another umask: the same bytes."""
    first = deb.build(tmp_path / "first")
    before = os.umask(0o077)
    try:
        again = deb.build(tmp_path / "again")
    finally:
        os.umask(before)
    assert again.read_bytes() == first.read_bytes()


def test_only_the_layers_of_a_device_are_in_it(package: Path) -> None:
    """Nothing of server, desk or simulation; every file root's and in the manifest."""
    listed = subprocess.run(
        ["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert all(" root/root " in line for line in listed)
    names = [line.split()[5] for line in listed]
    layers = {m[1] for name in names if (m := re.search(r"sealift/(\w+)/", name))}
    assert {layer for layer in layers if layer not in {"agent", "core"}} <= {
        "boot",
        "install",
        "payload",
        "storage",
        "transport",
    }
    assert not [name for name in names if "__pycache__" in name or "server" in name]


def test_dpkg_knows_it_and_its_files_are_whole(inside: Run) -> None:
    """Installed, configured, compiled, and what was unpacked is what was packed."""
    state = inside("dpkg-query", "--show", "--showformat=${Status}", "sealift-agent")
    assert state.stdout == "install ok installed"
    checked = inside("dpkg", "--verify", "sealift-agent")
    assert (checked.returncode, checked.stdout) == (0, "")
    compiled = "/usr/lib/python3/dist-packages/sealift/agent/__pycache__"
    assert "__main__.cpython-311.pyc" in inside("ls", compiled).stdout


def test_it_goes_as_it_came(tmp_path: Path, package: Path) -> None:
    """Removed and purged: no file of ours is left, state and keys stay."""
    found = debian_tree.copy(tmp_path / "root")
    (found / "tmp/agent.deb").write_bytes(package.read_bytes())
    keys = found / "etc/sealift/keys.pem"
    keys.parent.mkdir()
    keys.write_text("secret")
    assert debian_tree.run(found, "dpkg", "-i", "/tmp/agent.deb").returncode == 0
    assert debian_tree.run(found, "dpkg", "-i", "/tmp/agent.deb").returncode == 0
    assert debian_tree.run(found, "dpkg", "--purge", "sealift-agent").returncode == 0
    assert not list(found.glob("usr/lib/python3/dist-packages/sealift/**/*"))
    assert not list(found.glob("usr/lib/systemd/system/**/sealift*"))
    assert keys.read_text() == "secret"


def test_the_units_are_enabled_by_the_package_alone(root: Path) -> None:
    """In an image that is built and never booted nobody runs ``systemctl enable``."""
    system = root / "usr/lib/systemd/system"
    for target, unit in (("multi-user", UNITS[0]), ("sysinit", UNITS[2])):
        assert (system / f"{target}.target.wants" / unit).resolve() == system / unit


def test_systemd_finds_nothing_wrong_with_the_units(inside: Run) -> None:
    """The systemd of that Debian, over the installed files."""
    done = inside("systemd-analyze", "verify", "--man=no", *UNITS)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_fence_is_as_high_as_it_was(inside: Run) -> None:
    """At most 2.0 of 10 (lower is better); no capability but the one."""
    words = ("systemd-analyze", "security", "--offline=yes", "--no-pager")
    done = inside(*words, f"--threshold={EXPOSURE}", UNITS[0])
    assert done.returncode == 0, done.stdout
    assert "exposure level for sealift-agent.service: 1.9 OK" in done.stdout
    told = inside(*words, "--json=short", UNITS[0]).stdout
    held = {it["json_field"]: it for it in json.loads(told)}
    granted = [name for name, it in held.items() if "CAP_" in name and not it["set"]]
    assert granted == ["CapabilityBoundingSet_CAP_LINUX_IMMUTABLE"]


def test_the_server_has_a_unit_as_well(root: Path, inside: Run) -> None:
    """Not part of the package; systemd reads it, and its fence is higher still."""
    unit = "sealift-server.service"
    place = root / "etc/systemd/system" / unit
    place.write_bytes((deb.PACKAGING / "systemd" / unit).read_bytes())
    program = root / "opt/sealift/bin/sealift"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    done = inside("systemd-analyze", "verify", "--man=no", unit)
    assert (done.returncode, done.stderr) == (0, "")
    words = ("systemd-analyze", "security", "--offline=yes", "--no-pager")
    done = inside(*words, f"--threshold={EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout
    place.unlink()


def test_the_installed_agent_runs(inside: Run) -> None:
    """It says who it is, and refuses an example for what it is."""
    assert inside("sealift-agent", "--version").stdout == "sealift-agent 0.1.0\n"
    example = "/usr/share/doc/sealift-agent/examples/agent.toml"
    done = inside("sealift-agent", "config-check", "--config", example)
    assert done.returncode in {2, 5, 8}
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_the_example_is_every_setting(root: Path) -> None:
    """What the package shows is what the agent knows."""
    example = root / "usr/share/doc/sealift-agent/examples/agent.toml"
    assert example.read_text() == settings.example()


# ── a provisioned device ─────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def device(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server beside the tree, a device inside it; the agent is the installed one."""
    with world(tmp_path_factory.mktemp("world")) as here:
        place = root / "etc/sealift"
        here.device = Device(
            place, here.vendor, here.server, command='["/usr/bin/true"]'
        )
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        yield here


def test_a_provisioned_device_passes_its_check(inside: Run, device: World) -> None:
    """Configuration, keys and anchors, read by Debian's own Python."""
    done = inside("sealift-agent", "config-check")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_agent_needs_no_call_that_its_unit_forbids(
    inside: Run, device: World
) -> None:
    """A whole update under strace: each system call is one the filter lets through."""
    device.publish("1.0.0", 1)
    load(device.device)
    traced = inside(*_STRACE, "sealift-agent", "run", timeout=90)
    assert traced.returncode == 75, traced.stderr[-3000:]
    used = set(re.findall(r"^\d+ +(\w+)\(", traced.stderr, re.MULTILINE))
    used |= set(re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", traced.stderr, re.MULTILINE))
    allowed = _allowed(inside)
    assert {"pwrite64", "connect", "clone"} <= used | {"clone", "clone3"}
    assert len(used) > 40
    assert used <= allowed, sorted(used - allowed)


_STRACE = ("strace", "--follow-forks", "--quiet=all", "--string-limit=0")


def _allowed(inside: Run) -> set[str]:
    """What the unit's filter lets through, by the systemd that will enforce it."""
    unit = (deb.PACKAGING / "systemd/sealift-agent.service").read_text("utf-8")
    allowed: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", unit, re.MULTILINE):
        named: set[str] = set()
        for word in line.lstrip("~").split():
            named |= _set(inside, word) if word.startswith("@") else {word}
        allowed = allowed - named if line.startswith("~") else allowed | named
    return allowed | _set(inside, "@default")


def _set(inside: Run, name: str) -> set[str]:
    told = inside("systemd-analyze", "syscall-filter", "--no-pager", name).stdout
    found: set[str] = set()
    for word in re.findall(r"^ +(@?\w[\w-]*)$", told, re.MULTILINE):
        found |= _set(inside, word) if word.startswith("@") else {word}
    return found
