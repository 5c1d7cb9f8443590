"""A made-up microcontroller program, for a pair of images that needs no network.

Functions of Thumb-like halfwords that call each other by relative branches and hold
absolute addresses of others, so that one inserted instruction changes bytes all over
the program, as in real firmware. The same revision always gives the same bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import accumulate
from random import Random

FLASH = 0x0800_0000
FUNCTIONS = 3000
CHANGED, ADDED = 25, 6  # per revision

_WORDS = Random("the halfwords that compilers like").sample(range(1 << 16), 500)


@dataclass(frozen=True, slots=True)
class Function:
    """Halfwords, then relative calls, then absolute addresses of other functions."""

    code: tuple[int, ...]
    calls: tuple[int, ...]
    pointers: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes, a multiple of four."""
        return 4 * ((len(self.code) + 1) // 2 + len(self.calls) + len(self.pointers))

    def encode(self, at: int, starts: list[int]) -> bytes:
        """The bytes of this function at offset `at` of the program."""
        code = [*self.code, *([0xBF00] if len(self.code) % 2 else [])]
        found = struct.pack(f"<{len(code)}H", *code)
        for callee in self.calls:
            found += _branch(starts[callee] - (at + len(found) + 4))
        pointers = [FLASH + starts[other] + 1 for other in self.pointers]
        return found + struct.pack(f"<{len(pointers)}I", *pointers)


def make_firmware(revision: int, functions: int = FUNCTIONS) -> bytes:
    """The program of one revision, each a small step from the one before."""
    program = [_function(Random(f"function {k}"), functions) for k in range(functions)]
    for step in range(1, revision):
        _edit(program, Random(f"revision {step}"))
    starts = [0, *accumulate(function.size for function in program)]
    return b"".join(
        function.encode(at, starts)
        for function, at in zip(program, starts, strict=False)
    )


def _function(chance: Random, functions: int) -> Function:
    # Squaring favours the first words, as compilers do.
    words = [
        int(chance.random() ** 2 * len(_WORDS)) for _ in range(chance.randint(8, 80))
    ]
    return Function(
        code=tuple(_WORDS[word] for word in words),
        calls=_some(chance, functions, 6),
        pointers=_some(chance, functions, 2),
    )


def _some(chance: Random, functions: int, most: int) -> tuple[int, ...]:
    """Up to so many functions; few of them are called from everywhere."""
    count = chance.randint(0, most)
    return tuple(int(chance.random() ** 4 * functions) for _ in range(count))


def _edit(program: list[Function], chance: Random) -> None:
    functions = len(program)
    for _ in range(CHANGED):
        at = chance.randrange(functions)
        before, fresh = program[at], _function(chance, functions)
        cut = chance.randrange(len(before.code))
        code = before.code[:cut] + fresh.code[:6] + before.code[cut + 2 :]
        program[at] = Function(code, before.calls, before.pointers)
    for _ in range(ADDED):
        program.insert(chance.randrange(functions), _function(chance, functions))


def _branch(distance: int) -> bytes:
    """A Thumb-2 BL (encoding T1) over `distance` bytes."""
    sign = (distance >> 24) & 1
    j1 = 1 ^ sign ^ ((distance >> 23) & 1)
    j2 = 1 ^ sign ^ ((distance >> 22) & 1)
    high = 0xF000 | sign << 10 | (distance >> 12) & 0x3FF
    low = 0xD000 | j1 << 13 | j2 << 11 | (distance >> 1) & 0x7FF
    return struct.pack("<HH", high, low)
