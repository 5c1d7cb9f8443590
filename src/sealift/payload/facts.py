"""What is known of a container before it is opened: from a file, or from itself.

On a device these facts come from signed metadata. On a desk they come from the small
JSON file that ``sealift payload make`` writes beside a container, or ``release.json``,
which has the same members. Where there is neither, the container's own words are taken
for facts: that proves that it agrees with itself, and nothing about who made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealift.core.canonical import parse_object
from sealift.core.container import DIGEST_SIZE, ENTRY_MAX, HEADER_SIZE, MAGIC, Header
from sealift.core.encryption import plain_length
from sealift.core.errors import ContainerError, LengthError, LimitError
from sealift.core.fields import as_object, count, digest, items, member
from sealift.core.types import Artifact, Container
from sealift.payload.density import BLOCK, is_dense

if TYPE_CHECKING:
    from sealift.core.container import ReadAt

FACTS_MAX: Final = 1 << 20
"""Bytes of the largest file of facts; that of a release may hold more than we read."""

DELTAS_MAX: Final = 256

_PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Facts:
    """An image and its container; ``own_word`` if nobody but the container says so."""

    artifact: Artifact
    container: Container
    own_word: bool = False

    def to_json(self) -> dict[str, object]:
        """The facts as JSON values."""
        artifact = self.artifact
        return {
            "schema": 1,
            "artifact": {
                "length": artifact.length,
                "sha256": artifact.sha256.hex(),
                "segment_size": artifact.segment_size,
                "segment_root": artifact.segment_root.hex(),
            },
            "container": self.container.to_json(),
        }

    @classmethod
    def decode(cls, raw: bytes, name: str = "") -> Facts:
        """Read a file of facts; members that are not named here are passed over.

        A release has several containers; the one called ``name`` is taken, else the
        full one.

        Raises:
            MalformedError, LimitError: it is none.
        """
        found = parse_object(raw, FACTS_MAX)
        count(found, "schema", 1, 1)
        image = member(found, "artifact")
        artifact = bare_artifact(
            count(image, "length"),
            digest(image, "sha256", DIGEST_SIZE),
            count(image, "segment_size"),
            digest(image, "segment_root", DIGEST_SIZE),
        )
        deltas = items({"deltas": [], **found}, "deltas", DELTAS_MAX)
        containers = [member(found, "container")]
        containers += [as_object(delta, "delta") for delta in deltas]
        chosen = [one for one in containers if one.get("name") == name]
        return cls(artifact, Container.from_json((chosen or containers)[0]))

    @classmethod
    def of_itself(cls, read_at: ReadAt, length: int) -> Facts:
        """What a container of ``length`` bytes says of itself.

        Raises:
            ContainerError, LimitError: it is none, or not as long as it says.
        """
        header = Header.decode(read_at(0, HEADER_SIZE))
        largest = HEADER_SIZE + (DIGEST_SIZE + ENTRY_MAX) * header.count
        if not HEADER_SIZE < header.head_length <= largest:
            raise LimitError("container: no head of this image has this length")
        if header.head_length + header.frames_length != length:
            raise ContainerError("container: it is not as long as it says")
        artifact = bare_artifact(
            header.image_length,
            header.image_sha256,
            header.segment_size,
            header.segment_root,
        )
        container = Container(
            name="",
            length=length,
            sha256=digest_of(read_at, length),
            head_length=header.head_length,
            head_sha256=sha256(read_at(0, header.head_length)).digest(),
            base_length=header.base_length,
            base_sha256=header.base_sha256,
        )
        return cls(artifact, container, own_word=True)


def bare_artifact(
    length: int, image_sha256: bytes, segment_size: int, segment_root: bytes
) -> Artifact:
    """An artifact of which only the bytes are known."""
    return Artifact(
        name="",
        length=length,
        sha256=image_sha256,
        sha512=None,
        segment_size=segment_size,
        segment_root=segment_root,
        hardware_ids=(),
        release_counter=0,
        version="",
    )


def looks_sealed(read_at: ReadAt, length: int) -> bool:
    """Whether this may be a sealed container: not one in plain, of a length they have.

    Sealed bytes are like chance, so no more can be said without the key.
    """
    try:
        plain_length(length)
    except LengthError:
        return False
    begin = read_at(0, BLOCK)
    return begin[: len(MAGIC)] != MAGIC and (len(begin) < BLOCK or is_dense(begin))


def digest_of(read_at: ReadAt, length: int) -> bytes:
    """SHA-256 of ``length`` bytes.

    Raises:
        LengthError: there are fewer.
    """
    found = sha256()
    for offset in range(0, length, _PIECE):
        want = min(_PIECE, length - offset)
        piece = read_at(offset, want)
        if len(piece) != want:
            raise LengthError("the file became shorter while it was read")
        found.update(piece)
    return found.digest()
