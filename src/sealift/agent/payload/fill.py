"""The steps of one install, in their order."""

from __future__ import annotations

from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

from sealift.agent.payload.box import PlainBox
from sealift.agent.payload.ledger import LEDGER_FILE, Ledger
from sealift.agent.payload.method import usable_delta
from sealift.agent.payload.passes import (
    DELTA_HEAD_FILE,
    HEAD_FILE,
    Site,
    by_delta,
    by_full,
)
from sealift.agent.payload.patch import PATCH_FILE
from sealift.agent.payload.workers import Workers
from sealift.agent.ports import Moved, Progress
from sealift.core.container import check_bounds
from sealift.core.delta import Base
from sealift.core.errors import KeyUnreadableError, SlotTooSmallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.agent.payload.box import Box
    from sealift.agent.ports import SlotDevice, Transport, Workspace
    from sealift.core.types import Artifact, Container, Instruction

_HEADS: Final = (HEAD_FILE, DELTA_HEAD_FILE)


class PayloadFill:
    """:class:`~sealift.agent.ports.Fill` for one instruction.

    ``base_image`` is the image *recorded* as installed in the running slot, if one is:
    a delta is used only if it starts from that. ``content_key`` unwraps the key of a
    sealed order. ``bytes_max`` is this device's own cap on the body bytes of one
    install (``None``: none); that of the instruction holds as well. ``decoders`` is how
    many threads hash and decode; memory is bounded whatever the image.

    ``moved`` tells what it did, restarts included.
    """

    def __init__(
        self,
        order: Instruction,
        transport: Transport,
        work: Workspace,
        *,
        base_image: Artifact | None = None,
        content_key: Callable[[Instruction], bytes] | None = None,
        progress: Progress | None = None,
        bytes_max: int | None = None,
        decoders: int = 1,
    ) -> None:
        self._order = order
        self._transport = transport
        self._work = work
        self._base_image = base_image
        self._content_key = content_key
        self._progress = progress or Progress()
        self._bytes_max = _least(bytes_max, order.bytes_max)
        self._decoders = decoders
        self.moved = Moved("none", 0, 0)

    def __call__(self, into: SlotDevice, base: SlotDevice | None, /) -> None:
        """Have every segment of the image in ``into``, verified and flushed.

        Raises:
            SlotTooSmallError: as it says. SlotError: from the slot.
            DigestError, LengthError, ContainerError, PatchError, LimitError: the bytes
            are not the signed ones, twice in a row where that may be the network's
            fault. What only a delta cannot make is no error, it comes from the full
            container. UnsafeNameError: the container's name.
            KeyUnreadableError: the order is sealed, and there is no key to open it.
            DecryptError: the key was wrapped for another, or chunks do not open.
            RefusedError: more bytes would be needed than allowed (``reason`` is
            ``budget``): known before anything is written, unless the network's
            mistakes or repairs cost the rest of the budget.
            TransportError, NotFoundError, AuthRequiredError, RevokedError: as named.
        """
        artifact = self._order.artifact
        with _boxes(self._order, self._content_key) as box:
            check_bounds(artifact, box(self._order.full).plain)
            if into.size < artifact.length:
                raise SlotTooSmallError(
                    "the slot is smaller than the image", size=into.size
                )
            with closing(Ledger(self._work, self._order, self._bytes_max)) as ledger:
                try:
                    self._install(into, base, ledger, box)
                finally:
                    self.moved = ledger.moved
        for name in _HEADS:
            self._work.remove(name)

    def _install(
        self,
        into: SlotDevice,
        base: SlotDevice | None,
        ledger: Ledger,
        box: Callable[[Container], Box],
    ) -> None:
        delta = usable_delta(self._order, self._base_image, base)
        with Workers(self._decoders) as workers:
            site = Site(
                self._order.artifact,
                self._order.full,
                into,
                self._transport,
                self._work,
                ledger,
                workers,
                self._progress,
                box,
            )
            left = None
            if delta is not None and base is not None:
                left = by_delta(site, delta, Base(base.read, delta.base_length))
            if left is None or left:
                by_full(site, left)
        into.flush()
        ledger.settle()


def moved(work: Workspace, order: Instruction) -> Moved | None:
    """What the install of an order took so far, if there is a ledger of it.

    Raises:
        SlotError, SpaceError: the work file cannot be used.
    """
    with closing(Ledger(work, order, None)) as ledger:
        return ledger.moved if ledger.found else None


def clear(work: Workspace) -> None:
    """Nothing is under way: leave nothing behind (``crypto-and-identity.md`` 7.1).

    Raises:
        SlotError: a work file cannot be deleted.
    """
    for name in (*_HEADS, LEDGER_FILE, PATCH_FILE):
        work.remove(name)


@contextmanager
def _boxes(
    order: Instruction, content_key: Callable[[Instruction], bytes] | None
) -> Iterator[Callable[[Container], Box]]:
    """How the containers of an order are read; its key is gone at the end."""
    if order.sealed is None:
        yield PlainBox
        return
    from sealift.agent.payload.sealed import SealedBox, held

    if content_key is None:
        raise KeyUnreadableError(
            "the release is sealed, and this device has no decryption key",
            hint="provision the device with one, or order a release that is not sealed",
        )
    with held(content_key(order)) as key:
        yield lambda container: SealedBox(container, order.artifact, key)


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
