#!/usr/bin/env python3
"""The neutral TUF client command line around ``sealift.core``.

```
client.py --metadata-dir DIR init TRUSTED_ROOT
client.py --metadata-url URL --metadata-dir DIR refresh
client.py --metadata-url URL --metadata-dir DIR --target-name PATH [--target-name …]
          --target-dir DIR --target-base-url URL download
```

Exit status 0 if all was done, else exactly 1. The public suite tuf-conformance drives
any client by this interface. TUF's rules alone hold here: no ``issued``, no device id,
no mandatory hashes, no build-time floor, no path rules of ours (``uptane.md`` 12).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

# A suite starts this file by its first line; what it needs is in the checkout's .venv.
if find_spec("cryptography") is None and (ROOT / ".venv/bin/python").exists():
    python = str(ROOT / ".venv/bin/python")
    os.execv(python, [python, str(Path(__file__).resolve()), *sys.argv[1:]])

from sealift.core.delegation import find
from sealift.core.errors import (
    DigestError,
    FailedTransferError,
    LengthError,
    SealiftError,
)
from sealift.core.metadata import Target, encoded
from sealift.core.trust import accept, resume, wanted
from sealift.core.trusted import Name, Trusted, Want, foreign_rules

TIMEOUT_SECONDS = 20
KNOWN = {"sha256", "sha512"}
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(url: str, limit: int) -> bytes | None:
    """At most ``limit`` bytes of ``url`` (one more shows there were more), or ``None``.

    Raises:
        FailedTransferError: no answer, or another status than 200, 403 and 404.
    """
    try:
        with DIRECT.open(url, timeout=TIMEOUT_SECONDS) as answer:
            body: bytes = answer.read(limit + 1)
            return body
    except urllib.error.HTTPError as error:
        if error.code in {403, 404}:
            return None
        raise FailedTransferError(f"status {error.code} for {url}") from error
    except OSError as error:
        raise FailedTransferError(f"no answer from {url}: {error}") from error


def write(file: Path, data: bytes) -> None:
    """Replace a file in one step. Power cuts are another test's matter: no fsync."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".new-")
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
    Path(name).replace(file)


class Client:
    """One run: a directory of trusted metadata and the repository it comes from."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self._url = url if url.endswith("/") else f"{url}/"
        self._now = datetime.now(UTC)  # noqa: TID251  the suite shifts this clock
        anchor = (directory / "root.json").read_bytes()
        self._state: Trusted = resume(foreign_rules(), anchor, self._kept)

    def refresh(self) -> None:
        """Bring the top-level roles up to date."""
        while isinstance(want := wanted(self._state), Want):
            self._bring(want)

    def download(self, path: str, base: str, directory: Path) -> None:
        """Find an artifact and have it, verified, in ``directory``.

        Raises:
            LengthError, DigestError: the bytes are not the signed ones.
        """
        while isinstance(found := find(self._state, path), Want):
            self._bring(found)
        place, target = directory / quote(path, safe=""), found.target
        if place.is_file() and is_signed(place.read_bytes(), target):
            return
        data = fetch(self._artifact_url(base, path, target), target.length)
        if data is None:
            raise FailedTransferError(f"{path} is missing")
        if len(data) != target.length:
            raise LengthError(f"{path} has another length than the signed one")
        if not is_signed(data, target):
            raise DigestError(f"{path} has another hash than the signed one")
        write(place, data)

    def _bring(self, want: Want) -> None:
        raw = want.kept
        if raw is None:
            version = "" if want.version is None else f"{want.version}."
            url = f"{self._url}{version}{encoded(want.role)}.json"
            raw = fetch(url, want.limit)
        self._state = accept(self._state, want, raw, self._now)
        for name, file in self._state.changes.items():
            if file is None:
                self._place(name).unlink(missing_ok=True)
            else:
                write(self._place(name), file)

    def _artifact_url(self, base: str, path: str, target: Target) -> str:
        folder, slash, name = path.rpartition("/")
        if self._state.root.body.consistent_snapshot:
            name = f"{next(iter(target.hashes.values()))}.{name}"
        return f"{base.rstrip('/')}/{quote(folder + slash + name)}"

    def _place(self, name: Name) -> Path:
        """Any Root is the trust anchor of the next run: it was reached by a chain."""
        role = "root" if isinstance(name, int) else encoded(name)
        return self._directory / f"{role}.json"

    def _kept(self, name: Name) -> bytes | None:
        if isinstance(name, int):
            return None
        try:
            return self._place(name).read_bytes()
        except OSError:
            return None


def is_signed(data: bytes, target: Target) -> bool:
    """Whether these are the bytes an entry describes, by every hash it lists."""
    return len(data) == target.length and all(
        name in KNOWN and hashlib.new(name, data).hexdigest() == listed
        for name, listed in target.hashes.items()
    )


def initialise(directory: Path, root: Path) -> None:
    """Take a Root as the trust anchor, unread; ``refresh`` verifies it."""
    directory.mkdir(parents=True, exist_ok=True)
    write(directory / "root.json", root.read_bytes())


def arguments(line: Sequence[str]) -> argparse.Namespace:
    """The command line as it was given."""
    parser = argparse.ArgumentParser(description=__doc__, exit_on_error=False)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    parser.add_argument("--target-name", action="append", default=[])
    parser.add_argument("--target-dir", type=Path)
    parser.add_argument("--target-base-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    given = parser.parse_args(line)
    if given.command != "init" and given.metadata_url is None:
        parser.error("--metadata-url is missing")
    if given.command == "download" and None in {
        given.target_dir,
        given.target_base_url,
    }:
        parser.error("--target-dir or --target-base-url is missing")
    return given


def main(line: Sequence[str]) -> int:
    """Run one command; 0 if all was done, else 1."""
    try:
        given = arguments(line)
        if given.command == "init":
            initialise(given.metadata_dir, given.trusted_root)
            return 0
        client = Client(given.metadata_dir, given.metadata_url)
        client.refresh()
        if given.command == "download":
            for path in given.target_name:
                client.download(path, given.target_base_url, given.target_dir)
    except SealiftError as error:
        print(f"error: {error.message} [{error.code}]", file=sys.stderr)
        return 1
    except (OSError, argparse.ArgumentError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except SystemExit as end:  # argparse has said why, or showed its help
        return min(int(end.code or 0), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
