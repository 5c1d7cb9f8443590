"""What a review says: sentences, how much each matters, the word of consent."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Level", "danger", "fact", "refused"]


class Level(StrEnum):
    """How much a finding matters."""

    FACT = "fact"
    DANGER = "danger"
    """Signed only with the signer's explicit consent."""
    REFUSED = "refused"
    """Never signed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about the request; ``accept`` is the word of consent to a danger."""

    level: Level
    text: str
    accept: str | None = None

    def to_json(self) -> dict[str, str | None]:
        """The finding as JSON values."""
        return {"level": self.level, "text": self.text, "accept": self.accept}


def fact(text: str) -> Finding:
    """Something to know."""
    return Finding(Level.FACT, text)


def danger(word: str, text: str) -> Finding:
    """Something to agree to, by its word."""
    return Finding(Level.DANGER, text, word)


def refused(text: str) -> Finding:
    """Something nobody signs."""
    return Finding(Level.REFUSED, text)
