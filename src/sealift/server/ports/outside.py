"""What else the server needs of the world: blobs, keys, makers, time and chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sealift.server.domain.permissions import ROLES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from datetime import datetime
    from pathlib import Path

    from sealift.core.types import Artifact, Container, Patch, Wrap
    from sealift.payload.mcu import Recipe
    from sealift.repo.director import DirectorSigners
    from sealift.repo.image import ImageSigners
    from sealift.server.domain.permissions import Roles
    from sealift.server.ports.store import Store

__all__ = [
    "Asked",
    "Authority",
    "Blobs",
    "Chance",
    "Clock",
    "ContentOpener",
    "DeltaMaker",
    "Issued",
    "Made",
    "Means",
    "PayloadPolicy",
    "Side",
    "Task",
]


class Blobs(Protocol):
    """Large immutable files by flat names."""

    async def put(
        self, name: str, body: AsyncIterator[bytes], *, length: int, sha256: str
    ) -> None:
        """Store a body whole and durably, or not at all; names are never reused.

        Raises:
            TooLargeError, InvalidInputError: not ``length`` bytes of that digest.
            ConflictError: other bytes lie under that name. SpaceError: no room.
        """
        ...

    def read(self, name: str, start: int, stop: int) -> Iterator[bytes]:
        """Bytes ``[start, stop)`` in pieces.

        Raises:
            NotFoundError: no such blob, or it is shorter.
        """
        ...


@dataclass(frozen=True, slots=True)
class Issued:
    """A fresh certificate and what we keep of it."""

    pem: str
    sha256: str
    serial: str
    not_before: datetime
    not_after: datetime
    key_sha256: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a certificate request asks for, once it proved that it holds its key.

    ``names`` are the common names of its subject, ``key_sha256`` is of its public key.
    """

    names: tuple[str, ...]
    key_sha256: str


class Authority(Protocol):
    """The certificate authority devices belong to.

    Requests are PKCS #10, PEM or DER.
    """

    def asked(self, csr: bytes) -> Asked:
        """Read a request.

        Raises:
            InvalidInputError: malformed, not self-signed, or a key of a wrong kind.
        """
        ...

    def issue(self, device_id: str, csr: bytes, now: datetime) -> Issued:
        """A client certificate for the key in the request; names in it are ignored.

        Raises:
            InvalidInputError: as :meth:`asked`.
        """
        ...

    def chain(self) -> bytes:
        """The authority's own certificates, PKCS #7 without signers, DER."""
        ...

    def bundled(self, pem: str) -> bytes:
        """A certificate in the same form."""
        ...


class Clock(Protocol):
    """Time as the server has it."""

    def now(self) -> datetime:
        """UTC, whole seconds."""
        ...


class Chance(Protocol):
    """Unpredictable bytes."""

    def token_bytes(self, count: int) -> bytes:
        """``count`` bytes nobody can guess."""
        ...


class ContentOpener(Protocol):
    """The server's content-key key: what the desk wraps content keys to."""

    kem: str
    kid: str

    def open(self, wrap: Wrap, path: str, sealed_sha256: bytes) -> bytes:
        """A content key, for the moment it is needed; it is never written anywhere.

        ``path`` is the TUF target path, ``sealed_sha256`` that of the sealed file.

        Raises:
            DecryptError: wrapped to another key, for another file, or changed.
        """
        ...


@dataclass(frozen=True, slots=True)
class Side:
    """One image of a pair: its full container and, if that is sealed, what opens it."""

    artifact: Artifact
    full: Container
    content_key: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Task:
    """A delta to make. ``name`` is what its container is called.

    It is sealed with the content key of the new image, if that has one.
    """

    number: int
    name: str
    base: Side
    new: Side
    recipe: Recipe | None = None
    """By which to make a patch for a microcontroller, too."""


@dataclass(frozen=True, slots=True)
class Made:
    """A finished delta: its facts, the file it is in, CPU milliseconds it took."""

    container: Container
    file: Path
    cpu_ms: int
    patch: tuple[Patch, Path] | None = None
    """The patch that was wanted as well, if one came of it that is worth having."""


class DeltaMaker(Protocol):
    """Makes deltas, elsewhere: whatever happens there does not harm this process."""

    def make(
        self,
        task: Task,
        *,
        progress: Callable[[str, int], None],
        cancelled: Callable[[], bool],
    ) -> Made:
        """Make one, checked by the decoder devices have; blocks until that is done.

        ``progress(step, per cent)`` is called now and then. Once ``cancelled()`` the
        work is given up within a second. The file of the result is the caller's.

        Raises:
            DeltaError: it could not be made. PayloadError, FormatError: a container is
            not what it should be. SpaceError: no room.
        """
        ...


@dataclass(frozen=True, slots=True)
class PayloadPolicy:
    """How images travel, as the settings say.

    ``bases`` is how many deltas are made to one new image, ``wait_minutes`` how long a
    deployment waits for them if it does not say. ``must_seal`` are hardware ids whose
    images never travel in the open.
    """

    deltas: bool = False
    sealed_deltas: bool = False
    bases: int = 32
    wait_minutes: int = 0
    must_seal: frozenset[str] = frozenset()
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    """What types of microcontrollers, by hardware id, can decode."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every use case has at hand; made once by the composition root.

    ``director`` and ``image`` are the online keys: nothing signed with them makes a
    device accept what the vendor's offline keys did not sign.
    """

    store: Store
    blobs: Blobs
    authority: Authority
    clock: Clock
    chance: Chance
    director: DirectorSigners
    image: ImageSigners
    content: ContentOpener
    payload: PayloadPolicy = PayloadPolicy()
    roles: Roles = field(default_factory=lambda: dict(ROLES))
    """What each role of this server may do."""
    ecus_max: int = 256
    demo: bool = False
    """Whether throw-away keys are accepted; never in production."""
