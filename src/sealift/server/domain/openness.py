"""What the first bytes of an upload show in the open, if they show anything.

A container names the images it is of and starts from in its first 144 bytes, so a plain
one of a sealed image is refused before more of it is stored. The claim is not verified
here: a lie makes a container no device takes.
"""

from __future__ import annotations

from sealift.core.container import MAGIC

__all__ = ["LOOK", "images"]

LOOK = 104
"""Bytes that must be there to tell; a shorter file is no container."""
_IMAGE, _BASE = slice(40, 72), slice(72, 104)


def images(prefix: bytes) -> tuple[str, ...] | None:
    """Digests (lower hex) of the images a plain container is about; ``None``: sealed.

    What begins with anything but the magic of a container is sealed or worthless.
    """
    if not prefix.startswith(MAGIC):
        return None
    found = prefix[_IMAGE], prefix[_BASE]
    return tuple(digest.hex() for digest in found if any(digest))
