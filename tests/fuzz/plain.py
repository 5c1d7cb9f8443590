"""Fuzzing without tools: a corpus, small random changes, seeded chance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

from tests.fuzz.choices import Choices
from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def corpus(name: str) -> list[bytes]:
    """The committed inputs of a target, in a fixed order."""
    return [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]


def inputs(name: str, seed: int) -> Iterator[bytes]:
    """Inputs for ever: those of the corpus changed a little, and random ones."""
    rng, known = Random(seed), corpus(name)
    while True:
        data = rng.choice(known) if known and rng.random() < 0.9 else b""
        for _ in range(rng.randrange(5)):
            data = Choices(rng.randbytes(64)).edited(data)
        yield data or rng.randbytes(rng.randrange(200))


def run(name: str, count: int, seed: int = 0) -> None:
    """So many executions; raises what a target complains of."""
    made = inputs(name, seed)
    for _ in range(count):
        data = next(made)
        try:
            TARGETS[name](data)
        except Exception as error:
            error.add_note(f"input of {name}: {data.hex()}")
            raise
