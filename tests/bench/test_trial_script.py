"""``packaging/on-trial`` and ``restart-if-wanted``: shell, no Python, one rule."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.deb import PACKAGING

ON_TRIAL = PACKAGING / "on-trial"
COUNTED = "LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


def put(name: str, content: bytes = b"") -> Callable[[Path], None]:
    """A file below the directory that stands for ``/``."""

    def act(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    return act


def u_boot(value: str) -> Callable[[Path], None]:
    """A board with libubootenv, whose environment says this."""

    def act(root: Path) -> None:
        put("etc/fw_env.config")(root)
        put(
            "bin/fw_printenv",
            f'#!/bin/sh\n[ "$4" = upgrade_available ] && echo "{value}"\n'.encode(),
        )(root)
        (root / "bin/fw_printenv").chmod(0o755)

    return act


def status(root: Path) -> int:
    """What the script says of a machine."""
    environment = {"SEALIFT_ROOT": str(root), "PATH": f"{root}/bin:/usr/bin:/bin"}
    done = subprocess.run(
        ["/bin/sh", ON_TRIAL], env=environment, capture_output=True, check=False
    )
    assert done.stderr == b""
    return done.returncode


TRIALS = {
    "a note of the board": put("run/sealift/trial"),
    "a word to the kernel": put("proc/cmdline", b"quiet sealift.trial root=x\n"),
    "the last word": put("proc/cmdline", b"quiet sealift.trial"),
    "the device tree": put("proc/device-tree/chosen/sealift,trial"),
    "a Raspberry Pi": put("proc/device-tree/chosen/bootloader/tryboot", b"\0\0\0\1"),
    "systemd-boot": put(f"sys/firmware/efi/efivars/{COUNTED}"),
    "U-Boot": u_boot("1"),
}
NO_TRIALS = {
    "nothing said": put("proc/cmdline", b"quiet sealift.trial2 notsealift.trial\n"),
    "no command line": lambda _root: None,
    "an empty command line": put("proc/cmdline"),
    "a Raspberry Pi at home": put(
        "proc/device-tree/chosen/bootloader/tryboot", b"\0\0\0\0"
    ),
    "systemd-boot at home": put("sys/firmware/efi/efivars/LoaderInfo-x"),
    "U-Boot at home": u_boot("0"),
    "U-Boot without a word": u_boot(""),
}


@pytest.mark.parametrize("made", TRIALS.values(), ids=TRIALS)
def test_d06_a_trial_is_known_by_any_one_sign_until_it_is_settled(
    tmp_path: Path, made: Callable[[Path], None]
) -> None:
    """Each loader's own word is enough; the agent's outweighs them all."""
    made(tmp_path)
    assert status(tmp_path) == 0
    put("run/sealift/settled")(tmp_path)
    assert status(tmp_path) == 1


@pytest.mark.parametrize("made", NO_TRIALS.values(), ids=NO_TRIALS)
def test_d07_normal_life_is_no_trial(
    tmp_path: Path, made: Callable[[Path], None]
) -> None:
    """Nothing restarts a machine that is not on trial, with or without an agent."""
    made(tmp_path)
    assert status(tmp_path) == 1


def test_it_is_a_script_for_any_shell() -> None:
    """No bashism: Debian's dash reads it, and busybox has what it calls."""
    for name in ("on-trial", "restart-if-wanted", "postinst", "prerm", "postrm"):
        script = PACKAGING / name
        assert os.access(script, os.X_OK)
        text = script.read_text("utf-8")
        assert text.startswith("#!/bin/sh\n")
        assert not re.search(r"\[\[|\bfunction\b|==|\blocal\b", text)
        subprocess.run(["/bin/sh", "-n", script], check=True)


@pytest.mark.parametrize(
    ("ended", "asks"), [("75", True), ("0", False), ("2", False), ("", False)]
)
def test_only_status_75_restarts_the_machine(
    tmp_path: Path, ended: str, asks: bool
) -> None:
    """What ``ExecStopPost=`` hands over decides; a stop and a crash do not restart."""
    text = (PACKAGING / "restart-if-wanted").read_text("utf-8")
    called = tmp_path / "called"
    fake = tmp_path / "systemctl"
    fake.write_text(f'#!/bin/sh\necho "$@" > {called}\n')
    fake.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(text.replace("/usr/bin/systemctl", str(fake)))
    environment = {"EXIT_STATUS": ended} if ended else {}
    done = subprocess.run(["/bin/sh", script], env=environment, check=False)
    assert done.returncode == 0
    assert called.exists() is asks
    if asks:
        assert called.read_text() == "--no-block reboot\n"
