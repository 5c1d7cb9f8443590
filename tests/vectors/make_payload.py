"""Moved to ``tests.containers`` and ``tests.vectors.payload.generate``."""

from tests.containers import SEGMENT, Case, describe, noise, pack, text
from tests.vectors.payload import generate

__all__ = ["SEGMENT", "Case", "describe", "noise", "pack", "stored", "text"]


def stored() -> list[Case]:
    """The cases of full containers."""
    return [case for case in generate.stored() if not case.base]
