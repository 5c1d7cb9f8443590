"""The initramfs of ``boards/initramfs``, built without root: compiled, ordered, packed.

The same inputs make the same bytes: one time, one owner, files in their order.
"""

from __future__ import annotations

import re
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench import toolbox

SOURCE = Path(__file__).parents[2] / "boards/initramfs"
_FLAGS = ("-std=c11", "-Os", "-Wall", "-Wextra", "-Werror", "-static", "-s")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_ALIGN = 4


def compile_verity_root(into: Path, compiler: Sequence[str] = ("cc",)) -> Path:
    """The static program; ``compiler`` with its own options for another machine."""
    source = SOURCE / "verity-root.c"
    words = [*compiler, *_FLAGS, "-o", str(into), str(source)]
    subprocess.run(words, env=toolbox.environment(), check=True)
    return into


def modules(tree: Path, names: Sequence[str]) -> list[Path]:
    """The modules ``names`` and what they depend on, each after what it needs.

    ``tree`` is ``lib/modules/VERSION``. A name that is not there is built in, or not
    to be had; the machine tells.
    """
    files = {_plain(path.stem): path for path in sorted(tree.rglob("*.ko"))}
    ordered: dict[str, Path] = {}

    def take(name: str) -> None:
        if name in ordered or name not in files:
            return
        found = _DEPENDS.search(files[name].read_bytes())
        for needed in (found[1].decode() if found else "").split(","):
            take(_plain(needed))
        ordered[name] = files[name]

    for name in names:
        take(_plain(name))
    return list(ordered.values())


def _plain(name: str) -> str:
    return name.replace("-", "_")


def pack(into: Path, busybox: Path, verity_root: Path, drivers: Sequence[Path]) -> Path:
    """The archive, compressed by ``zstd``, at ``into``."""
    files: dict[str, tuple[bytes, int]] = {
        "init": ((SOURCE / "init").read_bytes(), 0o755),
        "bin/busybox": (busybox.read_bytes(), 0o755),
        "bin/verity-root": (verity_root.read_bytes(), 0o755),
        "modules.order": ("".join(f"{p.name}\n" for p in drivers).encode(), 0o644),
    }
    files |= {f"modules/{p.name}": (p.read_bytes(), 0o644) for p in drivers}
    archive = b"".join(_newc(files, ("bin", "modules", "dev", "proc", "sys", "root")))
    words = ("-q", "-19", "--no-check", "-T1", "-c")
    zstd = toolbox.program("zstd")
    done = subprocess.run(
        [zstd, *words],
        input=archive,
        stdout=subprocess.PIPE,
        env=toolbox.environment(),
        check=True,
    )
    into.write_bytes(done.stdout)
    return into


def _newc(
    files: dict[str, tuple[bytes, int]], directories: Sequence[str]
) -> Iterator[bytes]:
    """A cpio archive in the format of the kernel, "newc", owned by root."""
    entries = [(name, b"", stat.S_IFDIR | 0o755) for name in directories]
    entries += [(n, data, stat.S_IFREG | mode) for n, (data, mode) in files.items()]
    entries.append(("TRAILER!!!", b"", 0))
    for number, (name, data, mode) in enumerate(entries, 1):
        raw = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields)
        yield _padded(head + raw)
        yield _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGN)
