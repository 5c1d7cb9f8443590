"""The real agent over loaders of other kinds: what it shows, refuses, and installs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.agent.boot.file import Store
from sealift.core.types import Slot
from sealift.sim.loaders.uboot import FACTORY, pack_copy
from tests.bench import toolbox
from tests.integration.agent_world import World, world
from tests.unit.agent.contracts.loaders import ENV_BYTES, EXAMPLE, UbootOnDisk


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        (found.device.boot / "running").write_text("slot=a\nboot_id=1-aa\n")
        yield found


def configure(here: World, **settings: object) -> None:
    """Put these into ``[boot]``, in place of its ``store``."""
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    text = here.device.config.read_text()
    head, mark, tail = text.partition("[boot]\n")
    assert mark
    here.device.config.write_text(f"{head}{mark}{chr(10).join(lines)}\n{tail}")


def program(here: World, script: str) -> Path:
    path = here.device.directory / "boot-program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def example(here: World) -> Path:
    """The example program of boards/script, configured; its loader's directory."""
    store = here.device.directory / "vendor"
    store.mkdir()
    (store / "boot.txt").write_text(Store().to_text())
    (store / "running").write_text("a\n")
    argv = [str(EXAMPLE), str(store), str(store / "running")]
    configure(here, kind="script", program=argv)
    return store


def test_an_update_by_the_integrators_program(here: World) -> None:
    """Installed, armed in the vendor's own store, confirmed from inside the new slot."""
    store = example(here)
    checked = here.device.run("config-check", "--json")
    assert checked.returncode == 0, checked.stderr
    loader = json.loads(checked.stdout)["loader"]
    assert loader["name"] == "example"
    assert (loader["running"], loader["next_start"]) == ("a", "a")
    here.publish("1.0.0", 1)
    assert here.device.run("check").returncode == 75
    armed = Store.from_text((store / "boot.txt").read_text())
    assert (armed.default, armed.trial) == (Slot.A, Slot.B)
    shown = json.loads(here.device.run("status", "--json").stdout)["components"][0]
    assert shown["next_start"] == "b"
    assert shown["loader"]["counts_attempts"] is True
    assert shown["loader"]["missing"] == []


@pytest.mark.parametrize("as_json", [True, False])
def test_D23_a_loader_that_lacks_something_fails_the_check_of_the_configuration(
    here: World, *, as_json: bool
) -> None:
    """5 and device.boot before the first update; ``status`` says it, too."""
    state = r"loader=vendor\ncounts=yes\nconfirmed=a\na=good\nb=empty\n"
    path = program(
        here,
        f'case $1 in state) printf "{state}missing=no watchdog\\nremark=old\\n";;'
        " current|next) echo a;; esac",
    )
    configure(here, kind="script", program=[str(path)])
    found = here.device.run("config-check", *(["--json"] if as_json else []))
    assert found.returncode == 5
    assert "no watchdog" in found.stdout
    if as_json:
        value = json.loads(found.stdout)
        assert value["error"]["code"] == "device.boot"
        assert value["loader"]["missing"] == ["no watchdog"]
        assert "old" in value["remarks"]
    else:
        assert "[device.boot]" in found.stderr
    remarks = json.loads(here.device.run("status", "--json").stdout)["remarks"]
    assert "the boot loader: no watchdog" in remarks
    here.publish("1.0.0", 1)
    here.device.run("check")
    told = [report["payload"] for report in here.server.reports]
    assert any("no watchdog" in json.dumps(it) for it in told), told


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 1", "device.boot"), ("echo c", "device.boot"), ("sleep 60", "device.boot")],
)
def test_a_program_that_fails_is_told(here: World, script: str, code: str) -> None:
    """config-check refuses it, status shows the rest; no traceback."""
    configure(here, kind="script", program=[str(program(here, script))], seconds=0.5)
    found = here.device.run("config-check")
    assert (found.returncode, "Traceback" in found.stderr) == (5, False)
    assert f"[{code}]" in found.stderr
    shown = here.device.run("status", "--json")
    assert shown.returncode == 0
    assert any("the boot program" in it for it in json.loads(shown.stdout)["remarks"])


def test_without_a_program_the_kind_is_no_configuration(here: World) -> None:
    """config.invalid names the setting."""
    configure(here, kind="script")
    found = here.device.run("config-check")
    assert (found.returncode, "[boot] program" in found.stderr) == (2, True)


# ── U-Boot ───────────────────────────────────────────────────────────────────────────
def uboot(here: World, tmp_path: Path) -> UbootOnDisk:
    """The environment on files, libubootenv's programs as a device has them."""
    directory = tmp_path / "env"
    directory.mkdir()
    board = UbootOnDisk(directory)
    libraries = toolbox.environment()["LD_LIBRARY_PATH"]
    wrapped = {}
    for name in ("fw_printenv", "fw_setenv"):
        path = directory / name
        real = shlex.quote(toolbox.program(name))
        path.write_text(
            f'#!/bin/sh\nLD_LIBRARY_PATH={shlex.quote(libraries)} exec {real} "$@"\n'
        )
        path.chmod(0o755)
        wrapped[name] = str(path)
    configure(here, kind="uboot", uboot_config=str(board.config), **wrapped)
    return board


def test_uboot_is_shown_and_a_root_that_is_no_slot_is_refused(
    here: World, tmp_path: Path
) -> None:
    """This machine's root is on neither slot: the loader is asked, and not believed."""
    board = uboot(here, tmp_path)
    shown = json.loads(here.device.run("status", "--json").stdout)
    [part] = shown["components"]
    assert part["slots"] == {"a": "good", "b": "empty"}
    assert part["loader"]["name"] == "uboot"
    assert (part["running"], part["next_start"]) == (None, "a")
    found = here.device.run("config-check")
    assert found.returncode == 5
    assert "[boot] root" in found.stderr
    for flag, path in enumerate(board.copies):
        path.write_bytes(pack_copy(flag, {**FACTORY, "altbootcmd": ""}, ENV_BYTES))
    shown = json.loads(here.device.run("status", "--json").stdout)
    assert any("altbootcmd is not set" in it for it in shown["remarks"])
    for path in board.copies:
        path.write_bytes(b"\xff" * ENV_BYTES)
    shown = json.loads(here.device.run("status", "--json").stdout)
    assert any("no copy of U-Boot's environment" in it for it in shown["remarks"])


def test_missing_programs_name_their_package(here: World) -> None:
    """config.missing, with what to install."""
    configure(here, kind="uboot", fw_printenv="/nowhere/fw_printenv")
    found = here.device.run("config-check")
    assert "[config.missing]" in found.stderr
    assert "libubootenv-tool" in found.stderr
