"""Makes TUF and Uptane metadata for tests: bodies as plain JSON, signed as asked.

Unlike ``sealift.repo`` it makes wrong files as gladly as right ones. Keys come from
their labels, so that every run has the same ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealift.core import canonical
from sealift.core.delegation import Found, find
from sealift.core.keys import PublicKey
from sealift.core.trust import accept, wanted
from sealift.core.trusted import Complete, Trusted, Want

NOW = datetime(2030, 6, 1, 12, 0, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ROLES = ("root", "timestamp", "snapshot", "targets")
Body = dict[str, Any]


class Key:
    """An ed25519 key made from its label."""

    def __init__(self, label: str) -> None:
        seed = hashlib.sha256(label.encode()).digest()
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        raw = self._private.public_key().public_bytes_raw()
        self.public = PublicKey("ed25519", "ed25519", raw.hex())
        self.id = self.public.key_id

    def sign(self, data: bytes) -> str:
        """The signature in hex."""
        return self._private.sign(data).hex()


@cache
def key(label: str) -> Key:
    """The key of that label."""
    return Key(label)


def time(moment: datetime) -> str:
    """A time as metadata writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def signed(body: Body, signers: Iterable[Key]) -> bytes:
    """A role file: the body, and one signature of each signer."""
    data = canonical.encode(body)
    signatures = [{"keyid": k.id, "sig": k.sign(data)} for k in signers]
    return json.dumps({"signatures": signatures, "signed": body}).encode()


def unsigned(raw: bytes) -> Body:
    """What a file says, whoever signed it."""
    body: Body = json.loads(raw)["signed"]
    return body


def listing(version: int, raw: bytes | None) -> Body:
    """What a parent lists of a file; without ``raw`` only the version."""
    if raw is None:
        return {"version": version}
    digest = hashlib.sha256(raw).hexdigest()
    return {"version": version, "length": len(raw), "hashes": {"sha256": digest}}


def rule(keys: Iterable[Key], threshold: int = 1, **more: object) -> Body:
    """Who signs a role."""
    return {"keyids": [k.id for k in keys], "threshold": threshold, **more}


class Repository:
    """One repository: bodies to change, keys to exchange, files that were published.

    ``own`` makes it one of ours (hashes everywhere, ``issued``), ``device_id`` a
    Director. ``files`` holds what a client can fetch, by role and version in the name.
    ``asked`` lists what it fetched, in order.
    """

    def __init__(
        self, name: str = "image", *, own: bool = True, device_id: str | None = None
    ) -> None:
        self.name, self.own, self.device_id = name, own, device_id
        self.keys = {role: [key(f"{name} {role}")] for role in ROLES}
        self.rules: dict[str, Body] = {}
        self.files: dict[tuple[str, int | None], bytes] = {}
        self.asked: list[tuple[str, int | None]] = []
        self.bodies = {role: self._body(role) for role in ROLES}
        self._root_keys_before: list[Key] = []
        self.publish_root()
        self.publish("targets", "snapshot", "timestamp")

    def _body(self, role: str) -> Body:
        kind = role if role in ROLES else "targets"
        body: Body = {"_type": kind, "spec_version": "1.0.34", "version": 0}
        body["expires"] = time(NOW + 30 * DAY)
        if self.own and role != "root":
            body["issued"] = time(NOW - HOUR)
        if self.device_id is not None and role != "root":
            body["device_id"] = self.device_id
        if kind == "targets":
            body["targets"] = {}
        if kind == "snapshot":
            body["meta"] = {}
        return body

    # ── publishing ───────────────────────────────────────────────────────────────────
    def publish_root(self, signers: Iterable[Key] | None = None) -> bytes:
        """The next Root, by default signed by its own root keys and those before."""
        body = self.bodies["root"]
        body["version"] += 1
        body["consistent_snapshot"] = body.get("consistent_snapshot", True)
        everyone = [k for role in ROLES for k in self.keys[role]]
        body["keys"] = {k.id: k.public.to_json() for k in everyone}
        body["roles"] = {
            role: rule(self.keys[role]) | self.rules.get(role, {}) for role in ROLES
        }
        if signers is None:
            signers = dict.fromkeys([*self._root_keys_before, *self.keys["root"]])
        self._root_keys_before = list(self.keys["root"])
        return self._publish("root", body["version"], signed(body, signers))

    def publish(self, *roles: str) -> None:
        """The next version of each role, in order; listings are brought up to date."""
        for role in roles:
            self.bodies[role]["version"] += 1
            self.sign(role)

    def sign(self, role: str) -> bytes:
        """Sign a role as it stands, put it where clients look, list it in its parent."""
        body = self.bodies[role]
        raw = signed(body, self.keys[role])
        self._list(role, body["version"], raw)
        return self._publish(
            role, None if role == "timestamp" else body["version"], raw
        )

    def _publish(self, role: str, version: int | None, raw: bytes) -> bytes:
        self.files[role, version] = raw
        return raw

    def _list(self, role: str, version: int, raw: bytes) -> None:
        if role == "snapshot":
            meta = {"snapshot.json": listing(version, raw if self.own else None)}
            self.bodies["timestamp"]["meta"] = meta
        elif role != "timestamp":
            listed = listing(version, raw if self.own else None)
            self.bodies["snapshot"]["meta"][f"{role}.json"] = listed

    # ── content ──────────────────────────────────────────────────────────────────────
    def add_target(self, path: str, role: str = "targets", **custom: object) -> Body:
        """An entry for ``path``; the image is the path itself."""
        image = path.encode()
        entry: Body = {
            "length": len(image),
            "hashes": {"sha256": hashlib.sha256(image).hexdigest()},
        }
        if custom:
            entry["custom"] = custom
        self.bodies[role]["targets"][path] = entry
        return entry

    def delegate(self, parent: str, role: str, **more: Any) -> Body:
        """Let ``parent`` delegate to ``role``, made if it is not there."""
        if role not in self.bodies:
            self.bodies[role] = self._body(role)
            self.bodies[role]["version"] = 1
        signers = self.keys.setdefault(role, [key(f"{self.name} {role}")])
        body = self.bodies[parent]
        block = body.setdefault("delegations", {"keys": {}, "roles": []})
        block["keys"] |= {k.id: k.public.to_json() for k in signers}
        entry = {"name": role, "terminating": False, "paths": ["*/*"]}
        if "path_hash_prefixes" in more:
            del entry["paths"]
        block["roles"].append(entry | rule(signers) | more)
        return block["roles"][-1]  # type: ignore[no-any-return]

    def release(self) -> None:
        """Publish every Targets role, Snapshot and Timestamp."""
        delegated = [role for role in self.bodies if role not in ROLES]
        for role in delegated:
            self.sign(role)
        self.publish("targets", "snapshot", "timestamp")

    # ── a client ─────────────────────────────────────────────────────────────────────
    @property
    def anchor(self) -> bytes:
        """The first Root."""
        return self.files["root", 1]

    def fetch(self, want: Want) -> bytes | None:
        """The answer to a want; noted in ``asked``."""
        self.asked.append((want.role, want.version))
        return self.files.get((want.role, want.version))


class Client:
    """Drives ``core.trust`` against a repository and keeps what it accepts."""

    def __init__(self, repository: Repository, rules: Any) -> None:
        self.repository, self.rules = repository, rules
        self.anchor = repository.anchor
        self.kept: dict[str | int, bytes] = {}
        self.state: Trusted

    def refresh(self, now: datetime = NOW) -> Complete:
        """One check of the top-level roles."""
        from sealift.core.trust import resume

        self.state = resume(self.rules, self.anchor, self.kept.get)
        while isinstance(want := wanted(self.state), Want):
            self._step(want, now)
        return want

    def find(self, path: str, hardware_id: str | None = None) -> Found:
        """Search after :meth:`refresh`."""
        while isinstance(want := find(self.state, path, hardware_id), Want):
            self._step(want, NOW)
        return want

    def _step(self, want: Want, now: datetime) -> None:
        raw = self.repository.fetch(want) if want.kept is None else want.kept
        self.state = accept(self.state, want, raw, now)
        for name, file in self.state.changes.items():
            if file is None:
                self.kept.pop(name, None)
            else:
                self.kept[name] = file
