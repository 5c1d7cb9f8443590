"""A fence around a piece of code: which files it opened to write, what it started.

CPython tells an audit hook of every such event before it happens (PEP 578), whoever
causes it, so nothing has to be wrapped or replaced. A hook can never be removed: there
is one for all fences, and it is idle outside of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Fence", "fenced"]

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {
    "os.rename": 2,
    "os.link": 2,
    "os.symlink": 2,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rmdir": 1,
    "os.truncate": 1,
    "os.chmod": 1,
    "os.chown": 1,
}
"""Events that change a file system, and how many of their arguments are paths."""
_PROCESSES = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
        "subprocess.Popen",
    }
)


@dataclass(slots=True)
class Fence:
    """What was done outside of ``inside`` while the fence stood."""

    inside: Path
    outside: list[str] = field(default_factory=list)

    def see(self, event: str, args: tuple[object, ...]) -> None:
        """One audit event."""
        if event in _PROCESSES:
            self.outside.append(f"started a process ({event})")
        elif event == "open" and self._writes(args):
            self._judge(event, args[0])
        elif event in _PATHS:
            for path in args[: _PATHS[event]]:
                self._judge(event, path)

    def _writes(self, args: tuple[object, ...]) -> bool:
        flags = args[2]
        return isinstance(flags, int) and bool(flags & _WRITING)

    def _judge(self, event: str, path: object) -> None:
        if isinstance(path, int):
            return  # a descriptor: it was judged when it was opened
        name = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "?"
        if "__pycache__" in name:
            return  # the interpreter's own, at an import
        if name.startswith("/"):
            strayed = not Path(os.path.normpath(name)).is_relative_to(self.inside)
        else:  # beside a directory descriptor, which the event does not tell
            strayed = "/" in name or name in {"", ".", ".."}
        if strayed:
            self.outside.append(f"{event} {name}")


_standing: list[Fence] = []


def _hook(event: str, args: tuple[object, ...]) -> None:
    for fence in _standing:
        fence.see(event, args)


_hooked: list[bool] = []


@contextmanager
def fenced(inside: Path) -> Iterator[Fence]:
    """Note what happens outside of ``inside`` until the end of the block."""
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    fence = Fence(inside)
    _standing.append(fence)
    try:
        yield fence
    finally:
        _standing.remove(fence)
