"""Signing requests: propose, collect signatures from several machines, finish.

A request is one small JSON file that can travel on a stick. It holds the metadata that
is proposed, the version it starts from, and the Root whose keys decide, so that a
signer who has nothing but a key and this file can review it, sign it, and hand it on.
What the file says about itself (names, digests) is recomputed when it is read; who may
sign is decided by its Root, and whether that Root is the right one by the signer's own
copy of it (``sign.review``).

A new Root needs the threshold of the old Root *and* its own. A first Root has no old
one and vouches for itself, which is why devices get it in the factory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from securesystemslib.signer import Signature
from tuf.api.metadata import Metadata, Root, Targets

from sealift.core import canonical
from sealift.core.errors import (
    KeyUnreadableError,
    MalformedError,
    RefusedError,
    SignatureError,
)
from sealift.repo.policy import introduce, name_of
from sealift.repo.repository import Standing, read, sign_bytes, standing
from sealift.repo.signers import key_id_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from securesystemslib.signer import Signer

__all__ = [
    "REQUEST_BYTES_MAX",
    "SIGNATURES_BYTES_MAX",
    "Request",
    "add_signatures",
    "finish",
    "propose",
    "request_from_json",
    "request_to_json",
    "sign_request",
    "signatures_to_json",
]

REQUEST_KIND = "sealift-signing-request"
SIGNATURES_KIND = "sealift-signatures"
REQUEST_BYTES_MAX = 12_000_000
"""Twice the largest Targets file, the largest Root, and room."""
SIGNATURES_BYTES_MAX = 1 << 20
KINDS: dict[tuple[str, str], type[Root | Targets]] = {
    ("image", "root"): Root,
    ("image", "targets"): Targets,
    ("director", "root"): Root,
}
"""What people sign; everything else is signed online."""


@dataclass(frozen=True, slots=True)
class Request:
    """One proposed file and what is needed to judge it.

    ``base`` is the version before it, ``None`` for a first one. ``root`` is the Root in
    force, ``None`` only for a first Root. Values: every change makes a new request.
    """

    repository: str
    proposed: Metadata[Any]
    base: Metadata[Any] | None
    root: Metadata[Root] | None

    @property
    def role(self) -> str:
        """The role that is to sign."""
        return str(self.proposed.signed.type)

    @property
    def version(self) -> int:
        """The proposed version."""
        return int(self.proposed.signed.version)

    @property
    def payload(self) -> bytes:
        """The bytes that are signed."""
        return self.proposed.signed_bytes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the bytes that are signed, for signers to compare aloud."""
        return sha256(self.payload).hexdigest()

    @property
    def deciders(self) -> tuple[Root, ...]:
        """The Roots whose thresholds count: for a Root, the old one and itself."""
        roots = () if self.root is None else (self.root.signed,)
        return (*roots, self.proposed.signed) if self.role == "root" else roots

    def standings(self) -> tuple[Standing, ...]:
        """How far the signatures are, for each of :attr:`deciders`."""
        return tuple(
            standing(root, self.role, self.payload, self.proposed.signatures)
            for root in self.deciders
        )

    @property
    def complete(self) -> bool:
        """Every threshold is met."""
        return all(found.complete for found in self.standings())


def propose(
    repository: str,
    signed: Root | Targets,
    *,
    base: Metadata[Any] | None,
    root: Metadata[Root] | None,
) -> Request:
    """A request without signatures.

    Raises:
        RefusedError: nobody signs such a file by hand, it does not follow its base, or
            no Root says who decides.
    """
    if KINDS.get((repository, signed.type)) is not type(signed):
        raise RefusedError(f"{repository} {signed.type} is not signed by people")
    if root is None and (signed.type != "root" or signed.version != 1):
        raise RefusedError("only a first Root can be proposed without a Root")
    before = base.signed.version if base is not None else 0
    if signed.version <= before:
        raise RefusedError(
            f"version {signed.version} does not follow version {before}",
            hint="propose again from the newest version",
        )
    return Request(repository, Metadata(signed), base, root)


# ── signatures ───────────────────────────────────────────────────────────────────────
def sign_request(
    request: Request, signer: Signer, *, allow_demo: bool = False
) -> Request:
    """The request with one more signature; the same request if it was there.

    Raises:
        RefusedError: the key is not one of the role's, whatever else it may sign.
        KeyUnreadableError, PassphraseError: the key, token or service failed.
    """
    introduce(signer.public_key, allow_demo=allow_demo)
    ids = _listed_ids(request, signer)
    known = request.proposed.signatures
    if all(_counts(request, keyid, known.get(keyid)) for keyid in ids):
        return request
    made = sign_bytes(signer, request.payload)
    for keyid in ids:
        signature = Signature(keyid, made.signature)
        if not _counts(request, keyid, signature):
            raise KeyUnreadableError("the signer's signature does not verify")
        known = {**known, keyid: signature}
    return _with(request, known)


def add_signatures(request: Request, raw: bytes) -> Request:
    """The request with the signatures of a file :func:`signatures_to_json` made.

    Raises:
        MalformedError, LimitError: its form. RefusedError: it is for other bytes.
        SignatureError: a signature does not verify or is by a stranger.
    """
    found = canonical.parse_object(raw, SIGNATURES_BYTES_MAX)
    if (found.get("_type"), found.get("version")) != (SIGNATURES_KIND, 1):
        raise MalformedError("this is not a file of signatures, version 1")
    if found.get("signed_sha256") != request.fingerprint:
        raise RefusedError(
            "these signatures are for other bytes than this request",
            hint="was the request changed after it was sent out? compare fingerprints",
        )
    known = dict(request.proposed.signatures)
    for keyid, signature in _signatures(found).items():
        if not _counts(request, keyid, signature):
            raise SignatureError(
                f"the signature by key {keyid[:12]} does not verify, or the key is not "
                f"one of the {request.repository} {request.role} keys"
            )
        known[keyid] = signature
    return _with(request, known)


def finish(request: Request) -> bytes:
    """The file to publish.

    Raises:
        SignatureError: a threshold is not met yet.
    """
    for root, found in zip(request.deciders, request.standings(), strict=True):
        if not found.complete:
            waiting = ", ".join(name_of(root.keys[keyid]) for keyid in found.open)
            raise SignatureError(
                f"{request.repository} {request.role} version {request.version} has "
                f"{len(found.signed)} of {found.threshold} signatures by the keys of "
                f"root version {root.version}",
                hint=f"still to sign: {found.missing} of {waiting}",
                role=request.role,
            )
    return request.proposed.to_bytes()


# ── files ────────────────────────────────────────────────────────────────────────────
def request_to_json(request: Request) -> bytes:
    """The request as a file. Only ``proposed``, ``base`` and ``root`` mean anything."""
    return _encode(
        {
            "_type": REQUEST_KIND,
            "version": 1,
            "repository": request.repository,
            "role": request.role,
            "metadata_version": request.version,
            "signed_sha256": request.fingerprint,
            "proposed": request.proposed.to_dict(),
            "base": None if request.base is None else request.base.to_dict(),
            "root": None if request.root is None else request.root.to_dict(),
        }
    )


def request_from_json(raw: bytes) -> Request:
    """Read a request; signatures in it that do not count are dropped.

    Raises:
        MalformedError, LimitError: its form, or it says something else about itself
            than what is in it. RefusedError: as :func:`propose`.
    """
    found = canonical.parse_object(raw, REQUEST_BYTES_MAX)
    if (found.get("_type"), found.get("version")) != (REQUEST_KIND, 1):
        raise MalformedError(
            "this is not a signing request of version 1",
            hint="`sealift release pack` and `sealift keys rotate` make them",
        )
    repository, role = str(found.get("repository")), str(found.get("role"))
    kind = KINDS.get((repository, role))
    if kind is None:
        raise MalformedError(f"{repository} {role} is not signed by people")
    proposed = _part(found, "proposed", kind)
    if proposed is None:
        raise MalformedError("the request proposes nothing")
    request = propose(
        repository,
        proposed.signed,
        base=_part(found, "base", kind),
        root=_part(found, "root", Root),
    )
    if (found.get("metadata_version"), found.get("signed_sha256")) != (
        request.version,
        request.fingerprint,
    ):
        raise MalformedError("the request is not what it says it is")
    counted = {
        keyid: signature
        for keyid, signature in proposed.signatures.items()
        if _counts(request, keyid, signature)
    }
    return _with(request, counted)


def signatures_to_json(request: Request, keyids: Sequence[str]) -> bytes:
    """A file with only these signatures of a request, to be sent back."""
    known = request.proposed.signatures
    return _encode(
        {
            "_type": SIGNATURES_KIND,
            "version": 1,
            "repository": request.repository,
            "role": request.role,
            "metadata_version": request.version,
            "signed_sha256": request.fingerprint,
            "signatures": [known[keyid].to_dict() for keyid in keyids],
        }
    )


def _with(request: Request, signatures: Mapping[str, Signature]) -> Request:
    signed = request.proposed.signed
    return replace(request, proposed=Metadata(signed, dict(signatures)))


def _counts(request: Request, keyid: str, signature: Signature | None) -> bool:
    """The signature is valid and by a key that decides."""
    if signature is None:
        return False
    one = {keyid: signature}
    return any(
        keyid in standing(root, request.role, request.payload, one).signed
        for root in request.deciders
    )


def _listed_ids(request: Request, signer: Signer) -> set[str]:
    """The ids under which the signer's key stands for the role."""
    ids = set()
    elsewhere: str | None = None
    for root in request.deciders:
        keyid = key_id_in(root.keys, signer.public_key)
        if keyid is not None and keyid in root.roles[request.role].keyids:
            ids.add(keyid)
        elif keyid is not None:
            elsewhere = name_of(root.keys[keyid])
    if not ids:
        what = (
            f"{elsewhere}, a key of another role" if elsewhere else "a stranger's key"
        )
        raise RefusedError(
            f"{what}, cannot sign {request.repository} {request.role}",
            hint=f"use one of {', '.join(_names(request))}",
        )
    return ids


def _names(request: Request) -> list[str]:
    names = {
        name_of(root.keys[keyid])
        for root in request.deciders
        for keyid in root.roles[request.role].keyids
    }
    return sorted(names)


def _signatures(found: Mapping[str, object]) -> dict[str, Signature]:
    listed = found.get("signatures")
    if not isinstance(listed, list) or not 0 < len(listed) <= 64:
        raise MalformedError("a signature file holds 1 to 64 signatures")
    signatures = {}
    for entry in listed:
        keyid, sig = (
            (entry.get("keyid"), entry.get("sig"))
            if isinstance(entry, dict)
            else (None, None)
        )
        if not isinstance(keyid, str) or not isinstance(sig, str):
            raise MalformedError("a signature is not {keyid, sig}")
        signatures[keyid] = Signature(keyid, sig)
    return signatures


def _part(found: Mapping[str, object], name: str, kind: type[Any]) -> Any:
    value = found.get(name)
    if value is None:
        return None
    return read(json.dumps(value, separators=(",", ":")).encode(), kind)


def _encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, indent=1).encode() + b"\n"
