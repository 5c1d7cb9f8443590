"""How an image travels, in words: what was offered, what it took, why it is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.cli.output import size

if TYPE_CHECKING:
    from sealift.client.answers import Bytes, Installation

__all__ = ["drift", "way"]


def way(found: Installation) -> str | None:
    """One installation: ``delta 1.2 MiB, took 1.3 MiB``, ``held (budget): …``."""
    offer, done = found["offer"], found["done"]
    if offer is None:
        return None
    if offer["held"] is not None:
        return f"held ({offer['held']}): {offer['detail']}"
    words = [f"{offer['method']} {size(offer['bytes'])}"]
    if done is not None and done["transferred"] is not None:
        other = done["method"] not in {None, offer["method"]}
        method = f"{done['method']} " if other else ""
        words.append(f"took {method}{size(done['transferred'])}")
    if done is not None and done["repaired"]:
        words.append(f"{done['repaired']} segments of the base repaired")
    return ", ".join(words)


def drift(found: Bytes) -> str | None:
    """A deployment: expected against real bytes of those that told the latter."""
    if not found["installations"]:
        return None
    expected, real = found["expected"], found["transferred"]
    text = f"{size(real)} of {size(expected)} expected"
    if expected:
        text += f" ({(real - expected) * 100 / expected:+.1f} %)"
    if found["repaired"]:
        text += f", {found['repaired']} found a changed base"
    return text
