"""PKCS#11 tokens for one test: SoftHSM with a directory of its own (device-D32)."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.bench import toolbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PIN = "1234"
_MODULES = (
    "usr/lib/softhsm/libsofthsm2.so",
    "usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A directory of tokens, and the module that reads them."""

    directory: Path
    module: Path
    environ: dict[str, str] = field(repr=False)

    def add(self, label: str) -> None:
        """One more token, with the usual PIN."""
        util = toolbox.program("softhsm2-util", toolbox.TOKENS)
        init = ("--init-token", "--free", "--label", label, "--pin", PIN)
        subprocess.run(
            [util, *init, "--so-pin", "12345678", "--module", str(self.module)],
            env=self.environ,
            check=True,
            capture_output=True,
        )
        _again(self.module)

    def pin(self, text: str = PIN) -> Path:
        """A PIN file."""
        path = self.directory / f"pin-{text}"
        path.touch(mode=0o600)
        path.write_text(text + "\n")
        return path

    def address(self, label: str, token: str = "device", pin: str = PIN) -> str:
        """The address of an object; without ``token``, of any token's."""
        where = f"token={token};" if token else ""
        query = f"module-path={self.module}&pin-source=file:{self.pin(pin)}"
        return f"pkcs11:{where}object={label}?{query}"


@contextlib.contextmanager
def tokens(directory: Path) -> Iterator[Tokens]:
    """SoftHSM over ``directory``, with one token called ``device``."""
    (directory / "tokens").mkdir(parents=True)
    conf = directory / "softhsm2.conf"
    conf.write_text(
        f"directories.tokendir = {directory / 'tokens'}\n"
        "objectstore.backend = file\nlog.level = ERROR\n"
    )
    environ = {**toolbox.environment(toolbox.TOKENS), "SOFTHSM2_CONF": str(conf)}
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    try:
        found = Tokens(directory, _module(), environ)
        found.add("device")
        yield found
    finally:
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before


def _module() -> Path:
    for name in _MODULES:
        with contextlib.suppress(FileNotFoundError):
            return toolbox.file(name, toolbox.TOKENS)
    raise FileNotFoundError("libsofthsm2.so")


def _again(module: Path) -> None:
    """Have this process read the directory of tokens anew."""
    import pkcs11

    pkcs11.lib(str(module)).reinitialize()
