"""Seconds that a bench measured, for the documents: one line each where somebody asks.

``SEALIFT_BENCH_FIGURES=FILE`` collects them; without it they go to the test's output.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager


def figure(what: str, seconds: float) -> None:
    """Tell how long something took."""
    line = f"{what}: {seconds:.1f} s"
    print(line)
    if path := os.environ.get("SEALIFT_BENCH_FIGURES"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Tell how long what is inside took, if it came to its end."""
    began = time.monotonic()
    yield
    figure(what, time.monotonic() - began)
