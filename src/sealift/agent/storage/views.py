"""Stores seen through something: commits kept in memory, damage taken for absence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.agent.seal import UNKEYED
from sealift.agent.storage.codec import DamagedError
from sealift.agent.storage.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sealift.agent.ports import Storage
    from sealift.agent.seal import Seal
    from sealift.core.errors import StateError


class Overlay:
    """A store whose commits stay in memory: what is on disk is only read.

    ``directory`` comes from :func:`look` or :func:`claim`; ``None`` is an empty one.
    """

    def __init__(self, directory: int | None, seal: Seal = UNKEYED) -> None:
        self._below = None if directory is None else Records(directory, seal=seal)
        self._above: dict[str, bytes | None] = {}

    def read(self, name: str) -> bytes | None:
        """The bytes of a record, ``None`` if there is none.

        Raises:
            StateError, TrustAnchorError: as :meth:`Records.read`.
        """
        if name in self._above or self._below is None:
            return self._above.get(name)
        return self._below.read(name)

    def commit(self, changes: Mapping[str, bytes | None]) -> None:
        """Remember the changes; nothing reaches the disk."""
        self._above |= changes

    def names(self, prefix: str = "") -> Sequence[str]:
        """The names in use that begin with ``prefix``, sorted."""
        below = self._below.names(prefix) if self._below else ()
        found = dict.fromkeys(below, b"") | self._above
        return sorted(
            n for n, d in found.items() if d is not None and n.startswith(prefix)
        )


class Forgiving:
    """A store in which a damaged record counts as absent (E6).

    For what can be fetched and verified anew: one rotten block must not end updates for
    ever. ``tell`` hears of each. Not for counters.
    """

    def __init__(self, below: Storage, tell: Callable[[StateError], None]) -> None:
        self._below = below
        self._tell = tell

    def read(self, name: str) -> bytes | None:
        """The bytes of a record, ``None`` if there is none, or none that is whole.

        Raises:
            StateError, TrustAnchorError: it cannot be read for another reason.
        """
        try:
            return self._below.read(name)
        except DamagedError as error:
            self._tell(error)
            return None

    def commit(self, changes: Mapping[str, bytes | None]) -> None:
        """As the store below.

        Raises:
            SpaceError, StateError: nothing changed.
        """
        self._below.commit(changes)

    def names(self, prefix: str = "") -> Sequence[str]:
        """As the store below."""
        return self._below.names(prefix)
