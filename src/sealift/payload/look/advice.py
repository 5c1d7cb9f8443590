"""What makes deltas of an image large, what it costs, and what to change.

Pure: facts of a survey (and of the image before it, and of a trial delta) in, findings
out. Each finding says its cause in the image's own numbers, what devices will pay, and
the change in the build that cures it. Measured costs are those of the design page
``payload.md``, sections 7 and 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sealift.payload.look import builds, compressed
from sealift.payload.look.findings import (
    LISTED,
    NOTABLE,
    Case,
    Finding,
    Severity,
    amount,
    percent,
    trees,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

POOR: Final = 0.5
"""A delta of this share of the full container or more has a cause worth finding."""

_STALE_NOTABLE: Final = 1 << 20
_GOOD_BLOCK: Final = 4096


def advise(case: Case) -> tuple[Finding, ...]:
    """Everything there is to say about an image, what matters most first."""
    found = [finding for rule in _RULES for finding in rule(case)]
    return tuple(
        sorted(found, key=lambda finding: list(Severity).index(finding.severity))
    )


# ── does it fit ──────────────────────────────────────────────────────────────────────
def _slot(case: Case) -> Iterator[Finding]:
    limit, length = case.slot_size, case.image.length
    if limit is not None and length > limit:
        yield Finding(
            "slot.too-small",
            Severity.ERROR,
            f"the image has {amount(length)}, the slot {amount(limit)}",
            "no device can install it",
            f"{length - limit} bytes must go: a smaller file system or fewer packages",
        )


def _truncated(case: Case) -> Iterator[Finding]:
    for volume in case.image.volumes:
        if volume.claimed > volume.length:
            yield Finding(
                "filesystem.truncated",
                Severity.ERROR,
                f"{volume.name}: the {volume.kind} has {amount(volume.claimed)}, "
                f"only {amount(volume.length)} are there",
                "a device that installs it cannot mount it",
                "build or copy the image anew, to its end",
            )


def _unreadable(case: Case) -> Iterator[Finding]:
    for volume in case.image.volumes:
        if volume.trouble is not None:
            yield Finding(
                "filesystem.unreadable",
                Severity.NOTE,
                f"{volume.name}: {volume.trouble}",
                "the checks of its files and free blocks are left out",
                "run e2fsck -fn on the image if this is not what you expect",
            )


# ── how the file system was made ─────────────────────────────────────────────────────
def _small_blocks(case: Case) -> Iterator[Finding]:
    for volume, tree in trees(case):
        size = tree.superblock.block_size
        if size < _GOOD_BLOCK:
            yield Finding(
                "ext4.small-blocks",
                Severity.WARNING,
                f"{volume.name}: ext4 with blocks of {size} bytes; mke2fs picks "
                "them below 512 MiB",
                "equal files rarely lie at equal places: 24 instead of 150 of 316 MB "
                "are found cheaply, so making a delta takes far more memory",
                "mke2fs -b 4096",
            )


def _stale(case: Case) -> Iterator[Finding]:
    for volume, tree in trees(case):
        if tree.stale:
            heavy = tree.stale >= _STALE_NOTABLE
            yield Finding(
                "ext4.stale-blocks",
                Severity.WARNING if heavy else Severity.NOTE,
                f"{volume.name}: {amount(tree.stale)} of {amount(tree.free)} free "
                "space hold old content",
                "it is shipped with every full download, and with every delta where it "
                "differs, to be of no use",
                "build from a directory into a new file (mke2fs -d), or zerofree, or "
                "fstrim before the image is taken",
            )


def _journal(case: Case) -> Iterator[Finding]:
    for volume, tree in trees(case):
        if tree.superblock.journal:
            yield Finding(
                "ext4.journal",
                Severity.NOTE,
                f"{volume.name}: a journal of {amount(tree.journal)}",
                "a read-only root never uses it; what the build wrote through it "
                "differs from build to build",
                "mke2fs -O ^has_journal",
            )


def _writable(case: Case) -> Iterator[Finding]:
    for volume, tree in trees(case):
        options = tree.root_options
        if options is not None and "ro" not in options:
            yield Finding(
                "root.writable",
                Severity.WARNING,
                f"{volume.name}: /etc/fstab mounts the root as {','.join(options)}",
                "devices change the base of the next delta: each touched segment is "
                "fetched whole (one mount: 4.5 % more; a habit: the whole saving)",
                "mount it ro; what changes belongs in another partition or an overlay",
            )
        if tree.superblock.mounts:
            yield Finding(
                "ext4.mounted",
                Severity.NOTE,
                f"{volume.name}: it was mounted {tree.superblock.mounts} times "
                "since it was made",
                "each mount writes: times, counts, freed blocks with old content",
                "take the image before anything mounts it; mke2fs -d needs no mount",
            )


def _poor(case: Case) -> Iterator[Finding]:
    trial = case.trial
    if trial is not None and trial.share >= POOR:
        yield Finding(
            "delta.poor",
            Severity.WARNING,
            f"the delta has {amount(trial.delta)}, {percent(trial.share)} of the full "
            f"container ({amount(trial.full)})",
            "from 80 % on no delta is offered and devices fetch the full container",
            "see what carries the bytes, and the findings beside this one",
            tuple(
                f"{amount(count)} {name}"
                for name, count in trial.carriers[:LISTED]
                if count >= trial.delta * NOTABLE
            ),
        )


_RULES: Final = (
    _slot,
    _truncated,
    _poor,
    *compressed.RULES,
    _small_blocks,
    _stale,
    *builds.RULES,
    _writable,
    _journal,
    _unreadable,
)
