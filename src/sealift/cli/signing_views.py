"""What ``sealift release`` shows: releases, requests, and what a signature changes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sealift.cli import output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.core.types import Bootable
    from sealift.repo.entries import Listed
    from sealift.sign.release import Release
    from sealift.sign.review import Review
    from sealift.sign.travel import Letter

__all__ = ["print_review", "show_listed", "show_release", "show_status"]


def show_listed(entries: Sequence[Listed], *, as_json: bool) -> None:
    """Images that Targets vouches for, one row each."""
    rows = [
        {
            "name": entry.artifact.name,
            "version": entry.artifact.version,
            "counter": entry.artifact.release_counter,
            "sequence": entry.sequence,
            "length": entry.artifact.length,
            "hardware_ids": list(entry.artifact.hardware_ids),
            "sha256": entry.artifact.sha256.hex(),
            "sealed": entry.sealed,
            "boot": entry.artifact.bootable and entry.artifact.bootable.to_json(),
        }
        for entry in entries
    ]
    columns = (
        "sequence",
        "name",
        "counter",
        "length",
        "sealed",
        "boots",
        "hardware_ids",
    )

    def text() -> None:
        output.table(
            columns,
            [
                [
                    entry.sequence,
                    entry.artifact.name,
                    entry.artifact.release_counter,
                    output.size(entry.artifact.length),
                    entry.sealed,
                    entry.artifact.bootable and entry.artifact.bootable.kind.value,
                    ", ".join(entry.artifact.hardware_ids),
                ]
                for entry in entries
            ],
        )

    output.show(rows, as_json=as_json, text=text)


def _boots(found: Bootable | None) -> str | None:
    """How an image boots verified, in one line."""
    if found is None:
        return None
    return (
        f"verified: {found.kind.value} of {output.size(found.length)} at "
        f"{found.offset}, root hash {found.root_hash.hex()}"
    )


def print_review(found: Review) -> None:
    """What a signature would change, sentence by sentence."""
    print(output.clean(f"A signature makes this {found.title}:"))
    for finding in found.findings:
        mark = {"fact": " ", "danger": "!", "refused": "X"}[finding.level]
        word = f"  [--accept {finding.accept}]" if finding.accept else ""
        print(output.clean(f" {mark} {finding.text}{word}"))
    print(f"   sha256 of the signed bytes: {found.fingerprint}")


def show_status(letter: Letter, *, as_json: bool) -> None:
    """Who has signed a request, and who is still to."""
    from sealift.sign.travel import status as standing

    rows = standing(letter.request)
    found = {
        "request": str(letter.path),
        "repository": letter.request.repository,
        "role": letter.request.role,
        "metadata_version": letter.request.version,
        "signed_sha256": letter.request.fingerprint,
        "complete": letter.request.complete,
        "thresholds": rows,
    }

    def text() -> None:
        output.facts(
            {
                "proposed": f"{letter.request.repository} {letter.request.role} "
                f"version {letter.request.version}",
                "complete": letter.request.complete,
            }
        )
        output.table(
            ("by root", "threshold", "signed", "still open"),
            [
                [
                    row["root_version"],
                    row["threshold"],
                    ", ".join(row["signed"]),
                    ", ".join(row["open"]),
                ]
                for row in rows
            ],
        )

    output.show(found, as_json=as_json, text=text)


def show_release(
    release: Release, out: Path, bases: int | None = None, *, as_json: bool
) -> None:
    """A packed release; with the number of ``bases`` it was just packed against, what
    became of them, and what to do next.
    """
    artifact, container = release.listed.artifact, release.container
    found = {"release": str(out), "written": True, **release.to_json()}
    deltas = [
        f"{output.size(delta.length)} from {(delta.base_sha256 or b'').hex()[:12]}"
        for delta in release.deltas
    ]

    def text() -> None:
        output.facts(
            {
                "release": out,
                "name": artifact.name,
                "image": f"{output.size(artifact.length)}, {artifact.sha256.hex()}",
                "container": f"{container.name}, {output.size(container.length)}",
                "sealed": release.seal and f"for key {release.seal.wrap.kid}",
                "deltas": ", ".join(deltas) or None,
                "boots": _boots(artifact.bootable),
                "counter": artifact.release_counter,
                "hardware": ", ".join(artifact.hardware_ids),
            }
        )
        if bases is None:
            return
        if useless := bases - len(deltas):
            output.note(
                f"{useless} of {bases} deltas would not be worth it: thrown away"
            )
        output.note(f"next: sealift release review {out}, then sign {out} --key …")

    output.show(found, as_json=as_json, text=text)
