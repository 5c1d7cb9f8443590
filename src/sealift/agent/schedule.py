"""When to poll next: the server's interval, jitter, back-off. Pure.

``chance`` is a number in [0, 1) drawn by the caller. All times are seconds.
"""

from __future__ import annotations

SHORTEST = 1.0
"""A server can ask for no shorter interval; it would be a flood of its own making."""

LONGEST = 86_400.0
"""A server can ask for no longer one; a device it could silence would be frozen."""

FIRST_RETRY = 15.0
"""The first wait after a failure, doubled with each further one."""


def interval(configured: float, dictated: float | None) -> float:
    """The time between polls: what the server asked for, within bounds."""
    wanted = configured if dictated is None else dictated
    return min(max(wanted, SHORTEST), LONGEST)


def wait(seconds: float, jitter: float, chance: float) -> float:
    """``seconds``, longer or shorter by up to ``jitter`` of it.

    A fleet that was switched on together does not stay together.
    """
    return seconds * (1 + jitter * (2 * chance - 1))


def retry(
    failures: int, interval_seconds: float, asked: float | None, chance: float
) -> float:
    """The wait after the ``failures``-th failure in a row, ``failures`` ≥ 1.

    Exponential with full jitter, never above the interval, never below what the server
    asked for by ``Retry-After``: after an outage nobody returns in step.
    """
    ceiling = min(FIRST_RETRY * 2.0 ** min(failures - 1, 20), interval_seconds)
    backed_off = ceiling * (0.5 + chance / 2)
    if asked is None:
        return backed_off
    floor = min(max(asked, 0.0), LONGEST)
    return max(backed_off, floor * (1 + chance / 4))
