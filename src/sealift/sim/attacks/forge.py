"""What an attacker does with metadata: change it, link it up again, sign it.

A :class:`Forger` starts from the files of a repository as they are served, and knows
some signers: stolen ones, his own, or the real ones where a row is about something else
than signatures, so that only the check in question can refuse. Files are plain JSON
here: nothing of what the vendor's tools refuse to write stands in the way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import starmap
from typing import TYPE_CHECKING, Any

from sealift.core import canonical
from sealift.core.errors import MalformedError, SealiftError
from sealift.core.metadata import encoded

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

__all__ = [
    "Change",
    "Forger",
    "Json",
    "bump",
    "dump",
    "info",
    "join",
    "load",
    "nothing",
    "put",
    "signatures",
]

Json = dict[str, Any]
Change = Callable[[Json], object]
"""Changes the ``signed`` member of a file in place."""


def load(raw: bytes) -> Json:
    """A metadata file as plain JSON."""
    found = json.loads(raw)
    if not isinstance(found, dict):
        raise MalformedError("not a metadata file")
    return found


def dump(file: Json) -> bytes:
    """The bytes of a metadata file."""
    return json.dumps(file, separators=(",", ":")).encode()


def signatures(signed: Json, signers: Iterable[Signer]) -> list[dict[str, str]]:
    """One signature per signer, over the canonical form, whatever it says."""
    try:
        payload = canonical.encode(signed)
    except SealiftError:  # a float has no canonical form; sign what a lax tool would
        payload = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    found = [signer.sign(payload) for signer in signers]
    return [{"keyid": it.keyid, "sig": it.signature} for it in found]


def join(signed: Json, signers: Iterable[Signer]) -> bytes:
    """A file with these signatures."""
    return dump({"signatures": signatures(signed, signers), "signed": signed})


def bump(signed: Json) -> None:
    """The next version."""
    signed["version"] += 1


def put(name: str, value: object) -> Change:
    """Set a member."""

    def change(signed: Json) -> None:
        signed[name] = value

    return change


def nothing(signed: Json) -> None:
    """No change."""
    del signed


@dataclass
class Forger:
    """Makes another set of files out of the one that is served.

    ``files`` are those of one repository by name; ``signers`` who signs which role now.
    ``spoil`` changes the bytes of a file after it was signed and before its parent
    lists it: what no JSON library would write, or what stands outside ``signed``.
    """

    files: Mapping[str, bytes]
    signers: Mapping[str, Sequence[Signer]]
    spoil: Mapping[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    number: Mapping[str, int] = field(default_factory=dict)
    """Versions by which a file is named and listed, whatever stands in it."""
    step: int = 1
    """How far Snapshot and Timestamp are ahead of the served ones."""
    strange: frozenset[str] = frozenset()
    """Roles that are not signed by whoever should."""
    plausible: set[bytes] = field(default_factory=set)
    """Files made here that were neither spoiled nor signed by strangers."""

    def newest(self, role: str) -> Json:
        """The newest file of a role."""
        if role == "timestamp":
            return load(self.files["timestamp.json"])
        named = f".{encoded(role)}.json"
        versions = [
            int(name.removesuffix(named)) for name in self.files if name.endswith(named)
        ]
        return load(self.files[f"{max(versions)}.{role}.json"])

    def role(self, role: str, *changes: Change) -> dict[str, bytes]:
        """One file, changed and signed, by its name. Nothing else follows it."""
        signed = self.newest(role)["signed"]
        version = signed["version"]
        for change in changes:
            change(signed)
            if type(signed.get("version")) is int and signed["version"] > 0:
                version = signed["version"]
        raw = join(signed, self.signers.get(role, ()))
        if role not in self.spoil and role not in self.strange:
            self.plausible.add(raw)
        raw = self.spoil.get(role, bytes)(raw)
        version = self.number.get(role, version)
        name = "timestamp" if role == "timestamp" else f"{version}.{encoded(role)}"
        return {f"{name}.json": raw}

    def chain(self, changes: Mapping[str, Change]) -> dict[str, bytes]:
        """Targets, delegated roles, Snapshot, Timestamp: changed, linked, signed anew.

        ``changes`` are applied after a file lists what is below it, so that they can
        also spoil the links. Snapshot and Timestamp get a later version by ``step``,
        Targets files keep theirs: whoever stole online keys only may not raise it, or
        the vendor could not follow. Delegated roles not in ``changes`` stay.
        """

        def step(signed: Json) -> None:
            signed["version"] += self.step

        made: dict[str, bytes] = {}
        delegated = [role for role in changes if role not in _TOP]
        listing: Json = {}
        for role in [*delegated, "targets"]:
            file = self.role(role, changes.get(role, nothing))
            [listing[f"{role}.json"]] = starmap(info, file.items())
            made |= file

        def list_targets(signed: Json) -> None:
            signed["meta"].update(listing)

        snapshot = self.role(
            "snapshot", step, list_targets, changes.get("snapshot", nothing)
        )
        [(name, raw)] = snapshot.items()

        def list_snapshot(signed: Json) -> None:
            signed["meta"] = {"snapshot.json": info(name, raw)}

        timestamp = self.role(
            "timestamp", step, list_snapshot, changes.get("timestamp", nothing)
        )
        return made | snapshot | timestamp


_TOP = ("targets", "snapshot", "timestamp")


def info(name: str, raw: bytes) -> Json:
    """What a parent says of a file."""
    digest = hashlib.sha256(raw).hexdigest()
    version = int(name.partition(".")[0])
    return {"version": version, "length": len(raw), "hashes": {"sha256": digest}}
