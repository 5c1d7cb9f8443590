"""U-Boot's environment on the arm64 machine: torn, attacked, and what is compiled in."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.agent.boot.uboot import LOOKED_AT, WRITTEN
from tests.bench import (
    disk,
    toolbox,
    uboot,
    uboot_board,
    uboot_build,
    uboot_release,
)
from tests.bench.uboot_board import Board

HOME, OTHER = "1.0.0", "1.1.0"
SECONDS = 120.0
AGENT = "/data/agent/agent.toml"


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One release is home in slot a, another one lies in slot b; nobody starts it."""
    place = tmp_path_factory.mktemp("factory")
    path = uboot_board.factory(place, uboot_release.release(HOME))
    uboot_board.put(path, "b", uboot_release.release(OTHER).image)
    yield place
    shutil.rmtree(place)


@pytest.fixture
def place(factory: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of that disk to start."""
    uboot_board.copy(factory, tmp_path)
    yield tmp_path
    (tmp_path / "disk.img").unlink()


def test_one_torn_copy_means_the_other_one(place: Path) -> None:
    """The newer copy is torn: what the older one says is whole, and holds."""
    found = uboot.Environment(place / "disk.img")
    newer = found.copies().index(found.values())
    found.change(slot="b", good="b", b_state="good")
    found.tear(1)
    assert found.copies()[0] is not None
    assert found.copies()[1] is None
    assert newer in {0, 1}
    with Board(place) as board:
        assert board.tries() == ("b", False)
        assert board.up() == ("b", OTHER)
        assert board.run("fw_printenv -n good") == "b"


def test_both_copies_torn_start_home_and_the_agent_says_so(place: Path) -> None:
    """B8, D20, D22: the compiled-in environment starts, nothing is guessed or written."""
    found = uboot.Environment(place / "disk.img")
    for which in range(2):
        found.tear(which)
    torn = disk.read(place / "disk.img", uboot.ENV, 8 * disk.MIB)
    with Board(place) as board:
        board.expect("sealift: environment lost", SECONDS)
        assert board.tries() == ("a", False)
        assert board.up() == ("a", HOME)
        said = board.run(f"python3 -I -c '{_ASK_THE_LOADER}'")
        assert said.startswith("device.boot"), said
        assert "provision" in said
        board.off()
    assert disk.read(place / "disk.img", uboot.ENV, 8 * disk.MIB) == torn


_ASK_THE_LOADER = """
from sealift.agent.boot.uboot import Tools, UbootBoot, UbootTools
from sealift.agent.clock import SystemClock
from sealift.core.errors import SealiftError
from sealift.core.types import Slot
clock = SystemClock()
tools = Tools("/usr/bin/fw_printenv", "/usr/bin/fw_setenv", "/etc/fw_env.config", 30)
boot = UbootBoot(UbootTools(tools, clock), lambda: Slot.A, clock.boot_id)
for verb in (boot.state, lambda: boot.mark_writing(Slot.B), boot.mark_good):
    try:
        verb()
    except SealiftError as error:
        print(error.code, error.message, error.hint)
    else:
        raise SystemExit("no error")
"""


ATTACK = {
    "bootargs": "console=ttyAMA0 init=/bin/sh",
    "bootcmd": "echo PWNED; run start",
    "altbootcmd": "echo PWNED",
    "start": "echo PWNED",
    "known": "echo PWNED",
    "lost": "echo PWNED",
    "bootlimit": "0",
    "bootdelay": "10",
    "preboot": "echo PWNED",
    "loadaddr": "0x40400000",
    "fit_first": "0x0",
    "trial": "7",
    "fdt_high": "0x0",
    ".flags": "bootcmd:sw,bootargs:sw",
    ".callbacks": "",
    "upgrade_available": "1",
    "slot": "b; echo PWNED",
}
"""What somebody with the disk in hand writes: no name and no value does anything."""


def test_variables_written_by_hand_have_no_effect(place: Path) -> None:
    """D15: of the stored environment six variables count, and only by their values."""
    found = uboot.Environment(place / "disk.img")
    found.change(**ATTACK)
    assert found.values()["bootcmd"] == ATTACK["bootcmd"]
    with Board(place) as board:
        # slot is neither a nor b: a lost environment, whatever else it says
        board.expect("sealift: environment lost", SECONDS, never="PWNED")
        assert board.tries() == ("a", False)
        assert board.up(never="PWNED") == ("a", HOME)
        assert (
            board.run("cat /proc/cmdline") == uboot_release.release(HOME).command_line
        )
        board.off()
    found = board.environment
    assert "PWNED" not in found.values()["bootcmd"]
    found.change(**{**ATTACK, "slot": "b", "bootcount": "0"})
    with Board(place) as board:
        assert board.tries() == ("b", True)
        assert board.runs(never="PWNED") == ("b", OTHER)


# ── without starting anything ────────────────────────────────────────────────────────
def test_the_prebuilt_u_boot_is_refused_for_counting() -> None:
    """D24: Debian's own has neither a counter nor an environment it reads back."""
    with pytest.raises(uboot.FirmwareError, match="it cannot count"):
        uboot.require_counting(toolbox.file(uboot.PREBUILT))
    uboot.require_counting(uboot.firmware())


def test_u_boot_believes_what_the_agent_writes_and_nothing_else() -> None:
    """The patch, and the backend's own list."""
    patch = uboot_build.PATCH.read_text("utf-8")
    added = "".join(line[1:] for line in patch.splitlines() if line.startswith("+"))
    lists = re.findall(r'"([a-z_:,]+)"', added.partition("LIST_STATIC")[2])
    flags = dict(word.split(":") for word in "".join(lists).split(","))
    assert set(flags) == set(WRITTEN)
    assert all(flag in {"sw", "dw"} for flag in flags.values())


def test_what_is_compiled_in_ends_every_failure_in_a_reset() -> None:
    """D22, D23: the limit, both commands, and no way back to a prompt."""
    found = uboot.compiled_in()
    assert set(LOOKED_AT) <= set(found)
    for name in ("bootcmd", "altbootcmd"):
        assert found[name].rstrip().endswith("reset")
    assert not set(found) & set(WRITTEN), "a lost environment must look like one"
    options = uboot_build.options((uboot_build.built() / "config").read_text("utf-8"))
    assert options["CONFIG_BOOTDELAY"] == "-2"


@pytest.mark.parametrize("lost", ["CONFIG_FIT_SIGNATURE", "CONFIG_ENV_WRITEABLE_LIST"])
def test_an_option_that_did_not_take_effect_is_told(lost: str) -> None:
    config = (uboot_build.built() / "config").read_text("utf-8")
    uboot_build.require(config)
    with pytest.raises(uboot_build.BuildError, match=lost):
        uboot_build.require(config.replace(f"{lost}=y", f"# {lost} is not set"))


def test_a_control_tree_requires_the_key_for_configurations() -> None:
    """D25: and it is the tree of the machine that runs."""
    tree = uboot_release.control()
    node = f"/signature/key-{uboot_release.KEY}"
    assert disk.run("fdtget", tree, node, "required").strip() == "conf"
    # With firmware this machine has no such device; a kernel told otherwise dies.
    assert "pl061" not in disk.run("fdtget", "-l", tree, "/")
