"""A container as it lies on the server, and how its bytes are read.

Everything above works with places in the plain container. What lies on the server may
be sealed (``payload.sealed``); then other bytes are fetched, and opened on the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sealift.agent.payload.stream import Stream
    from sealift.agent.ports import SlotDevice
    from sealift.core.container import ReadAt
    from sealift.core.types import Container


class Reader(Protocol):
    """Plain bytes of a container, in order; errors are those of the stream below."""

    def open(self, start: int, stop: int) -> None:
        """From now on the plain bytes [start, stop) come."""
        ...

    def take(self, length: int) -> bytes:
        """Exactly the next ``length`` plain bytes.

        Raises:
            DecryptError: a chunk does not open; nothing of it is given.
        """
        ...


class Box(Protocol):
    """One container: where its plain bytes lie in the file, and how they are opened."""

    plain: Container
    """The facts of the plain container."""

    def wire(self, start: int, stop: int) -> tuple[int, int]:
        """Where in the file the plain bytes [start, stop) are."""
        ...

    def head(self, file: SlotDevice) -> ReadAt:
        """How to read the head that was fetched into ``file``.

        Raises:
            DecryptError: this is no beginning of the sealed file.
        """
        ...

    def reader(self, stream: Stream) -> Reader:
        """Who reads the rest; asked after the head was read."""
        ...


class PlainBox:
    """A container that is not sealed: :class:`Box`."""

    def __init__(self, container: Container) -> None:
        self.plain = container

    def wire(self, start: int, stop: int) -> tuple[int, int]:
        """The same places."""
        return start, stop

    def head(self, file: SlotDevice) -> ReadAt:
        """As it is."""
        return file.read

    def reader(self, stream: Stream) -> Reader:
        """As it comes."""
        return stream
