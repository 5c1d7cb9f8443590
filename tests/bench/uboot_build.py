"""Our own U-Boot for QEMU's arm64 board, out of Debian's source package, without root.

Debian's prebuilt one neither counts attempts nor stores an environment that it can read
back (device-D24). This one is the same version with Debian's patches, ours from
``boards/uboot`` and the configuration there. It is kept by the digest of all that; the
cross compiler and its helpers come from the toolbox.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench import cache, sources, toolbox

BOARD = Path(__file__).parents[2] / "boards/uboot"
PATCH = BOARD / "sealift.patch"
CONFIG = BOARD / "qemu-arm64.config"
ENVIRONMENT = BOARD / "sealift.env"
DEFCONFIG = "qemu_arm64_defconfig"
CROSS = "aarch64-linux-gnu-"

COMPILER = ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross")
TOOLS = (
    *COMPILER,
    "make",
    "bison",
    "flex",
    "m4",
    "bc",
    "patch",
    "xz-utils",
    "libssl-dev",
    "libssl3",
)

_LINE = re.compile(r"(?:# )?(CONFIG_\w+)(?:=(.*)| is not set)")


class BuildError(Exception):
    """U-Boot was not built; the text has the end of what was said."""


def built() -> Path:
    """A directory with ``u-boot.bin`` and the ``config`` it was built with."""
    return cache.built(
        "u-boot", cache.digest(_RECIPE, PATCH, CONFIG, ENVIRONMENT), _build
    )


def environment() -> dict[str, str]:
    """The environment of the build: toolbox, headers and libraries it brought."""
    content = toolbox.root(TOOLS)
    triple = f"{platform.machine()}-linux-gnu"
    headers = [content / "usr/include", content / "usr/include" / triple]
    return {
        **toolbox.environment(),
        "CPATH": os.pathsep.join(map(str, headers)),
        "LIBRARY_PATH": str(content / "usr/lib" / triple),
        "BISON_PKGDATADIR": str(content / "usr/share/bison"),
        "M4": toolbox.program("m4", TOOLS),
        "SOURCE_DATE_EPOCH": "1672531200",
    }


def compiler() -> str:
    """The cross compiler, for what else runs on the board."""
    return toolbox.program(f"{CROSS}gcc", COMPILER)


def _build(into: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sealift-u-boot-") as desk:
        tree, out = Path(desk, "source"), Path(desk, "out")
        out.mkdir()
        version = _unpack(Path(desk), tree)
        (tree / ENVIRONMENT.name).write_bytes(ENVIRONMENT.read_bytes())
        before, after = steps(str(out), str(CONFIG))
        for step in before:
            _run(step, tree)
        config = out / ".config"
        require(config.read_text("utf-8"))
        _run((*after, f"-j{(os.cpu_count() or 1) + 1}"), tree)
        (into / "u-boot.bin").write_bytes((out / "u-boot.bin").read_bytes())
        (into / "config").write_bytes(config.read_bytes())
        (into / "version").write_text(version + "\n", "utf-8")


Command = tuple[str, ...]


def steps(out: str, config: str) -> tuple[tuple[Command, ...], Command]:
    """What configures U-Boot, and what builds it, in its patched tree."""
    make = ("make", "--silent", f"O={out}", f"CROSS_COMPILE={CROSS}")
    merge = ("scripts/kconfig/merge_config.sh", "-m", "-O", out, f"{out}/.config")
    before = ((*make, DEFCONFIG), (*merge, config), (*make, "olddefconfig"))
    return before, (*make, "u-boot.bin")


def _unpack(desk: Path, tree: Path) -> str:
    """Debian's tree with Debian's patches and ours; its version."""
    files = desk / "files"
    files.mkdir()
    tree.mkdir()
    version = sources.fetch("u-boot", files)
    (upstream,) = files.glob("*.orig.tar.*")
    (debian,) = files.glob("*.debian.tar.*")
    _run(("tar", "-xf", str(upstream), "--strip-components=1"), tree)
    _run(("tar", "-xf", str(debian)), tree)
    series = (tree / "debian/patches/series").read_text("utf-8").splitlines()
    names = [line.split("#")[0].strip() for line in series]
    patches = [tree / "debian/patches" / name for name in names if name]
    for one in (*patches, PATCH):
        _run(("patch", "--silent", "--strip=1", f"--input={one}"), tree)
    return version


def require(config: str) -> None:
    """Refuse a configuration in which a line of ours did not take effect (D24).

    Raises:
        BuildError: an option is not there, or another one switches it on again.
    """
    wanted, got = options(CONFIG.read_text("utf-8")), options(config)
    lost = [name for name in wanted if got.get(name, "n") != wanted[name]]
    if lost:
        raise BuildError(f"{', '.join(lost)} did not take effect")


def options(config: str) -> dict[str, str]:
    """The options of a configuration; what is not set is ``n``."""
    found = filter(None, map(_LINE.fullmatch, config.splitlines()))
    return {one[1]: one[2] or "n" for one in found}


def _run(command: Sequence[str], place: Path) -> None:
    done = subprocess.run(
        command,
        cwd=place,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = "\n".join(done.stdout.strip().splitlines()[-20:])
        raise BuildError(
            f"{' '.join(command[:3])} ended with {done.returncode}:\n{said}"
        )


_RECIPE = (DEFCONFIG, CROSS, "1")
"""Raise the last one when this module builds otherwise."""
