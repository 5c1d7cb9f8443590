"""The patch of an order for a microcontroller: fetched whole, kept, paid for."""

from __future__ import annotations

from contextlib import closing, contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealift.agent.payload.ledger import Ledger
from sealift.agent.payload.stream import Stream
from sealift.core import mcu
from sealift.core.errors import DigestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.ports import SlotDevice, Transport, Workspace
    from sealift.core.types import Instruction, Patch

PATCH_FILE: Final = "mcu.patch"

_PIECE: Final = 16 * 1024


class PatchFile:
    """The patch of one order in a work file, which proves nothing by being there.

    Its bytes count against what the install may cost. It is an aid: as the whole image
    goes without it, what it costs must leave room for the container.
    """

    def __init__(
        self,
        order: Instruction,
        patch: Patch,
        transport: Transport,
        work: Workspace,
        bytes_max: int | None = None,
    ) -> None:
        self._order = order
        self._patch = patch
        self._transport = transport
        self._work = work
        limits = [it for it in (bytes_max, order.bytes_max) if it is not None]
        self._most = min(limits, default=None)

    def fetch(self) -> None:
        """Have the patch in its file, whole and with its digest.

        Raises:
            LimitError, PatchError: no such patch can be; nothing was fetched.
            RefusedError: it would cost more than is left. DigestError: wrong bytes.
            UnsafeNameError, SpaceError, SlotError, TransportError, NotFoundError: as
            named.
        """
        mcu.check(self._patch, self._order.artifact.length)
        with closing(self._work.open(PATCH_FILE, self._patch.length)) as file:
            if self._whole(file):
                return
            self._receive(file)
            file.flush()
            if not self._whole(file):
                raise DigestError("the patch is not the signed one")

    @contextmanager
    def opened(self) -> Iterator[SlotDevice]:
        """The fetched patch.

        Raises:
            LimitError, PatchError: no such patch can be. DigestError: it was not
            fetched, or changed since. SpaceError, SlotError: from the work file.
        """
        mcu.check(self._patch, self._order.artifact.length)
        with closing(self._work.open(PATCH_FILE, self._patch.length)) as file:
            if not self._whole(file):
                raise DigestError("the patch is not there any more")
            yield file

    def _receive(self, file: SlotDevice) -> None:
        length, order = self._patch.length, self._order
        offers = [it.length for it in (order.full, order.delta) if it is not None]
        with (
            closing(Ledger(self._work, order, self._most)) as ledger,
            closing(Stream(self._transport, self._patch, ledger)) as stream,
        ):
            ledger.require(length + min(offers))
            stream.open(0, length)
            for at in range(0, length, _PIECE):
                file.write(at, stream.take(min(_PIECE, length - at)))

    def _whole(self, file: SlotDevice) -> bool:
        found = sha256()
        for piece in pieces(file, self._patch.length):
            found.update(piece)
        return found.digest() == self._patch.sha256


def pieces(file: SlotDevice, length: int) -> Iterator[bytes]:
    """The first ``length`` bytes, in order, or as many as there are."""
    for at in range(0, length, _PIECE):
        yield file.read(at, min(_PIECE, length - at))
