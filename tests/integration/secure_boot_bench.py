"""What the tests of the boot chain share: the real tools, keys, and things to boot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sealift.sign.secure_boot import fit, keys, uki, verity
from sealift.sign.secure_boot.keys import SigningKey
from sealift.sign.secure_boot.tools import Tools
from sealift.sim.boot_files import tree_file
from tests.bench import toolbox
from tests.vendor import NOW

SEALIFT = Path(sys.executable).parent / "sealift"
STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
LOADER = "usr/lib/systemd/boot/efi/systemd-bootx64.efi"
STORE = "usr/share/OVMF/OVMF_VARS_4M.fd"
LOAD = 0x40400000


@dataclass(frozen=True)
class Bench:
    """A directory with keys, a kernel, a RAM disk, a device tree and a root."""

    home: Path

    @cached_property
    def tools(self) -> Tools:
        return Tools(toolbox.environment())

    @cached_property
    def root(self) -> verity.Root:
        made = self.home / "root.verity"
        return verity.append(
            self.home / "root", made, verity.salt_of("demo-1"), self.tools
        )

    @property
    def line(self) -> str:
        return " ".join(["quiet", *self.root.words])

    def key(self, name: str) -> SigningKey:
        place = self.home / "keys"
        return SigningKey(str(place / f"{name}.key"), place / f"{name}.crt")

    def uki(self, out: str, key: SigningKey | None, line: str = "") -> uki.Signed:
        parts = uki.Uki(
            self.home / "kernel",
            self.home / "initrd",
            line or self.line,
            uki.os_release("demo", "1.0"),
            "6.1.0",
            toolbox.file(STUB),
        )
        return uki.make(parts, self.home / out, key, self.tools)

    def fit(self, out: str, key: SigningKey, line: str = "", **more: Any) -> fit.Made:
        parts = fit.Fit(
            self.home / "kernel",
            self.home / "board.dtb",
            self.home / "initrd",
            line or self.line,
            LOAD,
        )
        more = {"name": "fit", **more}
        return fit.make(parts, self.home / out, key, self.tools, **more)

    def tool(self, name: str, *arguments: object) -> str:
        return self.tools.run(name, *map(str, arguments))

    def cli(self, *arguments: object, status: int = 0) -> Any:
        """``sealift release``; its JSON."""
        done = subprocess.run(
            [str(SEALIFT), "release", *map(str, arguments), "--json"],
            cwd=self.home,
            env=toolbox.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout)


def prepared(home: Path) -> Bench:
    """A new bench."""
    keys.make(home / "keys", ["PK", "KEK", "db", "fit", "foreign"], NOW)
    for name, size in (("kernel", 300_001), ("initrd", 100_001), ("root", 700_001)):
        (home / name).write_bytes(os.urandom(size))
    (home / "board.dtb").write_bytes(tree_file({"compatible": "demo,board"}))
    return Bench(home)
