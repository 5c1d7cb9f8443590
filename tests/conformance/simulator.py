"""A TUF repository made with python-tuf, served over plain http on loopback.

It publishes what a test tells it to, right or wrong, and notes which files were asked
for. Metadata is made and signed by python-tuf and securesystemslib, never by us.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Key,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

SAFE = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)  # noqa: TID251
PAST = SAFE - timedelta(days=35)
TOP = ("root", "timestamp", "snapshot", "targets")


@dataclass
class Simulator:
    """The repository. Change ``bodies`` or ``signers``, then publish.

    ``hashes`` makes parents list length and hashes of their children. ``asked`` lists
    the metadata that was fetched, as (role, version or ``None``).
    """

    hashes: bool = False
    asked: list[tuple[str, int | None]] = field(default_factory=list)
    files: dict[tuple[str, int | None], bytes] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    signers: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    bodies: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bodies = {
            "root": Root(1, expires=SAFE),
            "timestamp": Timestamp(1, expires=SAFE),
            "snapshot": Snapshot(1, expires=SAFE),
            "targets": Targets(1, expires=SAFE),
        }
        for role in TOP:
            self.bodies[role].version = 0  # python-tuf makes none below 1
            self.signers[role] = []
            self.add_key(role)
        self.publish("root", "targets", "snapshot", "timestamp")

    @property
    def anchor(self) -> bytes:
        """The first Root."""
        return self.files["root", 1]

    # ── keys ─────────────────────────────────────────────────────────────────────────
    def add_key(self, role: str, signer: CryptoSigner | None = None) -> CryptoSigner:
        """One more key for a top-level role."""
        signer = signer or CryptoSigner.generate_ed25519()
        self.signers[role].append(signer)
        self.bodies["root"].add_key(signer.public_key, role)
        return signer

    def rotate(self, role: str) -> None:
        """A new key instead of all old ones. A Root stays signed by both."""
        self.bodies["root"].roles[role].keyids.clear()
        if role != "root":
            self.signers[role].clear()
        self.add_key(role)

    # ── publishing ───────────────────────────────────────────────────────────────────
    def publish(self, *roles: str, bump: bool = True) -> None:
        """The next version of each role, in order."""
        for role in roles:
            if bump:
                self.bodies[role].version += 1
            raw = self.sign(role)
            self._list(role, raw)
            version = None if role == "timestamp" else self.bodies[role].version
            self.files[role, version] = raw

    def sign(self, role: str) -> bytes:
        """The role as it stands, signed by its signers."""
        metadata: Metadata[Any] = Metadata(self.bodies[role])
        for signer in self.signers[role]:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def _list(self, role: str, raw: bytes) -> None:
        version = self.bodies[role].version
        algorithms = ["sha256"] if self.hashes else []
        info = (
            MetaFile.from_data(version, raw, algorithms)
            if algorithms
            else MetaFile(version)
        )
        if role == "snapshot":
            self.bodies["timestamp"].snapshot_meta = info
        elif role not in {"root", "timestamp"}:
            self.bodies["snapshot"].meta[f"{role}.json"] = info

    def release(self, *more: str) -> None:
        """Publish ``more``, Targets, Snapshot and Timestamp."""
        self.publish(*more, "targets", "snapshot", "timestamp")

    # ── content ──────────────────────────────────────────────────────────────────────
    def add_artifact(
        self,
        path: str,
        data: bytes,
        role: str = "targets",
        algorithms: tuple[str, ...] = ("sha256",),
    ) -> TargetFile:
        """An artifact, listed by ``role`` and served."""
        entry = TargetFile.from_data(path, data, list(algorithms))
        self.bodies[role].targets[path] = entry
        folder, slash, name = path.rpartition("/")
        for digest in entry.hashes.values():
            self.artifacts[f"{folder}{slash}{digest}.{name}"] = data
        return entry

    def delegate(self, parent: str, role: str, **more: Any) -> None:
        """Let ``parent`` delegate to ``role``, made and published if it is not there."""
        if role not in self.bodies:
            self.bodies[role] = Targets(1, expires=SAFE)
            self.signers[role] = [CryptoSigner.generate_ed25519()]
            self.publish(role, bump=False)
        keys: list[Key] = [signer.public_key for signer in self.signers[role]]
        body: Targets = self.bodies[parent]
        if body.delegations is None:
            body.delegations = Delegations({}, {})
        assert body.delegations.roles is not None
        given: dict[str, Any] = {"terminating": False, "paths": ["*"]} | more
        body.delegations.roles[role] = DelegatedRole(
            role, [k.keyid for k in keys], 1, **given
        )
        body.delegations.keys |= {k.keyid: k for k in keys}

    # ── serving ──────────────────────────────────────────────────────────────────────
    def answer(self, path: str) -> bytes | None:
        """The bytes behind a request path."""
        kind, _, rest = path.lstrip("/").partition("/")
        if kind == "targets":
            return self.artifacts.get(unquote(rest))
        first, _, second = rest.removesuffix(".json").partition(".")
        versioned = first.isdecimal() and bool(second)
        name = second if versioned else rest.removesuffix(".json")
        version = int(first) if versioned else None
        self.asked.append((name, version))
        role = unquote(name)
        return self.files.get((role, version)) if quote(role, safe="") == name else None


@contextlib.contextmanager
def served(repository: Simulator) -> Iterator[str]:
    """Serve on a free loopback port; the base URL without a slash at its end."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = repository.answer(self.path)
            self.send_response(200 if body is not None else 404)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
