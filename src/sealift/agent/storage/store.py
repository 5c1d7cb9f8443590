"""The one writer of the store: commit, recovery, sweeping."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from sealift.agent.seal import UNKEYED
from sealift.agent.storage.codec import (
    FILE,
    INDEX,
    NAME,
    NEW_INDEX,
    RECORD_LIMIT,
    DamagedError,
    ForeignError,
    file_name,
    index_data,
    read_index,
    sealed,
    translated,
)
from sealift.agent.storage.records import Calls, Records
from sealift.core.errors import LimitError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.agent.seal import Seal


class Store(Records):
    """The one writer. ``directory`` comes from :func:`claim`.

    ``remarks`` tell what had to be repaired when it was opened.
    """

    def __init__(self, directory: int, calls: Calls = os, seal: Seal = UNKEYED) -> None:
        """Open it, and repair what a cut left.

        Raises:
            ForeignError: it was made with another key, or without the one there is.
            StateError, TrustAnchorError: it cannot be read.
        """
        super().__init__(directory, calls, seal)
        self.remarks: tuple[str, ...] = ()
        self._generation, self._records = self._recover()
        self._sweep()

    def commit(self, changes: Mapping[str, bytes | None]) -> None:
        """Write and delete (``None``) several records in one atomic, durable step.

        Raises:
            SpaceError, StateError: nothing changed. LimitError: a record is too long.
        """
        news = {n: d for n, d in changes.items() if self._differs(n, d)}
        if not news:
            return
        generation = self._generation + 1
        records = {n: g for n, g in self._records.items() if n not in news}
        records |= {n: generation for n, data in news.items() if data is not None}
        try:
            self._write(generation, news, records)
        except OSError as error:
            self._sweep()
            raise translated(error, "state cannot be written") from error
        self._sweep()

    def _index(self) -> Mapping[str, int]:
        return self._records

    def _differs(self, name: str, data: bytes | None) -> bool:
        if not NAME.fullmatch(name):
            raise StateError(f"{name!r} is no record name")
        if data is not None and len(data) > RECORD_LIMIT:
            raise LimitError(f"record {name} is longer than {RECORD_LIMIT} bytes")
        try:
            return self.read(name) != data
        except StateError:
            return True  # a damaged record may always be replaced

    def _write(
        self,
        generation: int,
        news: Mapping[str, bytes | None],
        records: dict[str, int],
    ) -> None:
        for name, data in news.items():
            if data is not None:
                file = file_name(name, generation)
                self._put(file, sealed(file, data, self.seal))
        index = index_data(generation, records)
        self._put(NEW_INDEX, sealed(INDEX, index, self.seal))
        # The names of the new files must last before an index can point to them.
        self._calls.fsync(self._directory)
        self._calls.rename(
            NEW_INDEX, INDEX, src_dir_fd=self._directory, dst_dir_fd=self._directory
        )
        self._generation, self._records = generation, records
        self._calls.fsync(self._directory)

    def _put(self, file: str, data: bytes) -> None:
        self._remove(file)  # what a cut left under this name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = self._calls.open(file, flags, 0o600, dir_fd=self._directory)
        try:
            self._calls.fchmod(descriptor, 0o600)  # whatever the umask took away
            while data:
                data = data[self._calls.write(descriptor, data) :]
            self._calls.fsync(descriptor)
        finally:
            self._calls.close(descriptor)

    def _remove(self, file: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._calls.unlink(file, dir_fd=self._directory)

    def _sweep(self) -> None:
        """Remove what no index names. Failing to is no loss: the next one tries."""
        wanted = {file_name(n, g) for n, g in self._records.items()} | {INDEX}
        try:
            for file in self._calls.listdir(self._directory):
                if file not in wanted and (FILE.fullmatch(file) or file == NEW_INDEX):
                    self._remove(file)
        except OSError:
            pass

    # ── recovery ─────────────────────────────────────────────────────────────────
    def _recover(self) -> tuple[int, dict[str, int]]:
        try:
            raw = self._file(INDEX)
            if raw is not None:
                return read_index(raw)
        except DamagedError:
            return self._rebuilt()
        files = self._files()
        # Without an index, generation 1 is what a cut in the first commit leaves.
        lost = any((m := FILE.fullmatch(f)) and int(m[2], 16) > 1 for f in files)
        return self._rebuilt() if lost else (0, {})

    def _rebuilt(self) -> tuple[int, dict[str, int]]:
        """Newest whole file per record: counters and floors never go down by it."""
        self.remarks = ("the index was lost and has been rebuilt",)
        newest: dict[str, int] = {}
        highest = 0
        for file in self._files():
            if match := FILE.fullmatch(file):
                name, generation = match[1], int(match[2], 16)
                highest = max(highest, generation)
                if generation > newest.get(name, 0) and self._is_whole(file):
                    newest[name] = generation
        return highest, newest

    def _is_whole(self, file: str) -> bool:
        try:
            return self._file(file) is not None
        except (DamagedError, ForeignError):
            return False  # an unreadable file is another matter: nothing is swept then

    def _files(self) -> list[str]:
        try:
            return self._calls.listdir(self._directory)
        except OSError as error:
            raise StateError(f"state directory: {error.strerror}") from error
