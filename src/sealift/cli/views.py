"""What ``sealift payload`` shows: containers, their insides, and findings on images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sealift.cli import drawing, output

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sealift.client.answers import Delta
    from sealift.core.types import Patch
    from sealift.payload.facts import Facts
    from sealift.payload.look.anatomy import Anatomy
    from sealift.payload.look.findings import Case, Finding, Trial
    from sealift.payload.look.survey import Volume
    from sealift.payload.making import Made
    from sealift.payload.rebuild import Rebuilt

CARRIERS = 10
"""Files or regions that are named with a trial."""
CARRIER_MIN = 0.001
"""The share of a delta below which nobody is named."""


# ── what was made ────────────────────────────────────────────────────────────────────
def print_made(out: Path, made: Made, *, written: bool) -> None:
    """A container that was just made, and what it took."""
    artifact, container = made.facts.artifact, made.facts.container
    share = 100 * container.length / artifact.length
    pairs: dict[str, object] = {
        "container": f"{out if written else 'not kept'}: {made.kind}, "
        f"{output.size(container.length)} ({container.length} bytes)",
        "of the image": f"{share:.2f} % of {output.size(artifact.length)}",
    }
    if made.full_length is not None:
        share = 100 * container.length / made.full_length
        pairs["of the full"] = f"{share:.1f} % of {output.size(made.full_length)}"
    if made.strategy is not None:
        pairs["strategy"] = made.strategy
    pairs["CPU"] = f"{made.cpu_seconds:.1f} s"
    pairs["memory"] = f"{output.size(made.memory)} at most"
    output.facts(pairs)
    print()
    output.table(
        ("segments", "count", "in the container"),
        [
            [op.name, count, output.size(length)]
            for op, (count, length) in made.kinds.items()
            if count
        ],
    )
    if made.full_length is not None and not made.worth:
        output.warn(
            "from 80 % of the full container on, no delta is offered to devices"
        )
    if written:
        output.note(f"next: sealift payload inspect {out}")


def print_patch(patch: Patch, image_length: int) -> None:
    """A patch for a microcontroller, and what its decoder takes."""
    from sealift.core.mcu import needs
    from sealift.payload.mcu import worth

    takes, share = needs(patch, image_length), 100 * patch.length / image_length
    pairs: dict[str, object] = {
        "patch": f"{patch.kind.value}, {patch.length} bytes",
        "of the image": f"{share:.2f} % of {output.size(image_length)}",
        "decoder": f"{takes.ram} bytes of RAM, {output.size(takes.flash)} of flash",
        "checked": "by detools and by the decoder of gateways",
    }
    output.facts(pairs)
    if not worth(patch, image_length):
        output.warn("above 80 % of the image, no patch is offered to devices")


# ── what was applied ─────────────────────────────────────────────────────────────────
def applied_json(out: Path, facts: Facts, done: Rebuilt) -> dict[str, Any]:
    """An image that came out of a container, as JSON values."""
    return {
        "image": str(out),
        "length": facts.artifact.length,
        "sha256": facts.artifact.sha256.hex(),
        "own_word": facts.own_word,
        "segments_made": done.made,
        "segments_kept": done.kept,
        "segments_repaired": done.repaired,
        "repair_bytes": done.repair_bytes,
    }


def print_applied(found: Mapping[str, Any]) -> None:
    """The same for a human."""
    made, kept, healed = (
        found[f"segments_{way}"] for way in ("made", "kept", "repaired")
    )
    pairs = {
        "image": f"{found['image'] if found['written'] else 'not kept'}: "
        f"{output.size(found['length'])}, verified",
        "  sha256": found["sha256"],
        "segments": f"{made} made, {kept} right already, {healed} healed",
    }
    if healed:
        pairs["healing"] = f"{output.size(found['repair_bytes'])} of the full container"
    output.facts(pairs)


# ── the inside of a container ────────────────────────────────────────────────────────
def show_sealed(
    container: Path, length: int, known: Facts | None, *, as_json: bool
) -> None:
    """All that can be seen of a sealed container without its key."""
    from sealift.core.encryption import plain_length

    found: dict[str, Any] = {
        "sealed": True,
        "length": length,
        "plain_length": plain_length(length),
    }
    if known is not None:
        found["artifact"] = known.to_json()["artifact"]
        found["head_length"] = known.container.head_length

    def text() -> None:
        output.facts(
            {
                "container": f"{container}: sealed, or no container at all",
                "sealed": f"{output.size(length)} ({length} bytes)",
                "opened": f"{output.size(plain_length(length))} of container",
            }
        )
        if known is not None:
            output.facts({"image": output.size(known.artifact.length)})
        output.note("without its content key nothing but its size can be seen")

    output.show(found, as_json=as_json, text=text)


def anatomy_json(found: Anatomy) -> dict[str, Any]:
    """A container's inside as JSON values."""
    facts = found.facts
    return {
        "sealed": False,
        "own_word": facts.own_word,
        **{key: value for key, value in facts.to_json().items() if key != "schema"},
        "segments": {
            op.name.lower(): {
                "count": share.count,
                "image_bytes": share.plain,
                "frame_bytes": share.frames,
            }
            for op, share in found.segments.items()
        },
        "ops": {
            op.name.lower(): {"count": share.count, "image_bytes": share.plain}
            for op, share in found.ops.items()
        },
        "streams": {
            name: {"plain": plain, "packed": packed}
            for name, (plain, packed) in found.streams.by_name().items()
        },
        "biggest": [
            {
                "segment": segment.index,
                "offset": segment.offset,
                "kind": segment.op.name.lower(),
                "frame_bytes": segment.frame_length,
            }
            for segment in found.biggest
        ],
        "map": {
            "cell_bytes": found.map.cell,
            "legend": {letter: name for name, letter in drawing.LETTERS.items()},
            "cells": drawing.letters(found.map),
        },
    }


def print_anatomy(path: Path, found: Anatomy) -> None:
    """A container's inside for a human, with its map."""
    artifact, container = found.facts.artifact, found.facts.container
    share = 100 * container.length / artifact.length
    delta = container.base_sha256 is not None
    pairs: dict[str, object] = {
        "container": f"{path}: {'delta' if delta else 'full'}, "
        f"{output.size(container.length)}, {share:.2f} % of the image",
        "image": output.size(artifact.length),
        "  sha256": artifact.sha256.hex(),
    }
    if container.base_sha256 is not None:
        pairs["base"] = output.size(container.base_length)
        pairs["  sha256 "] = container.base_sha256.hex()
    pairs["head"] = f"{output.size(container.head_length)}, all frames intact"
    output.facts(pairs)
    print()
    drawing.show_lines(drawing.draw_map(found.map, drawing.width()))
    print()
    _print_shares(found)
    if found.biggest:
        print()
        output.table(
            ("largest frames", "at", "kind", "bytes"),
            [
                [
                    f"segment {one.index}",
                    output.size(one.offset),
                    one.op.name,
                    one.frame_length,
                ]
                for one in found.biggest
            ],
        )


def _print_shares(found: Anatomy) -> None:
    rows: list[list[object]] = [
        [op.name, share.count, output.size(share.plain), output.size(share.frames)]
        for op, share in found.segments.items()
        if share.count
    ]
    output.table(("segments", "count", "of the image", "in the container"), rows)
    if any(share.count for share in found.ops.values()):
        print()
        output.table(
            ("ops in DELTA", "count", "of the image"),
            [
                [op.name, share.count, output.size(share.plain)]
                for op, share in found.ops.items()
                if share.count
            ],
        )
        print()
        output.table(
            ("streams in DELTA", "plain", "packed"),
            [
                [name, output.size(plain), output.size(packed)]
                for name, (plain, packed) in found.streams.by_name().items()
            ],
        )


# ── advice on an image ───────────────────────────────────────────────────────────────
def check_json(case: Case, findings: tuple[Finding, ...]) -> dict[str, Any]:
    """An image and what there is to say about it, as JSON values."""
    image = case.image
    return {
        "length": image.length,
        "zero_bytes": image.zero,
        "dense_bytes": image.dense,
        "slot_size": case.slot_size,
        "volumes": [
            {
                "name": volume.name,
                "offset": volume.offset,
                "length": volume.length,
                "kind": volume.kind,
                "codec": volume.packed.codec if volume.packed else None,
                "block_size": _block_size(volume),
                "files": len(volume.tree.files) if volume.tree else None,
            }
            for volume in image.volumes
        ],
        "trial": _trial_json(case.trial),
        "findings": [finding.to_json() for finding in findings],
    }


def _trial_json(trial: Trial | None) -> dict[str, Any] | None:
    if trial is None:
        return None
    carriers = [{"name": name, "bytes": count} for name, count in _named(trial)]
    return {
        "delta_bytes": trial.delta,
        "full_bytes": trial.full,
        "share": round(trial.share, 4),
        "carriers": carriers,
    }


def _named(trial: Trial) -> list[tuple[str, int]]:
    least = trial.delta * CARRIER_MIN
    return [one for one in trial.carriers[:CARRIERS] if one[1] > least]


def _block_size(volume: Volume) -> int | None:
    if volume.packed is not None:
        return int(volume.packed.block_size)
    return volume.tree.superblock.block_size if volume.tree is not None else None


def print_check(path: Path, case: Case, findings: tuple[Finding, ...]) -> None:
    """An image and what there is to say about it, for a human."""
    image = case.image
    pairs: dict[str, object] = {"image": f"{path}: {output.size(image.length)}"}
    for volume in image.volumes:
        pairs[volume.name if volume.name != "image" else "holds"] = _volume(volume)
    pairs["zero"] = f"{output.size(image.zero)} in segments of nothing else"
    pairs["dense"] = f"{output.size(image.dense)} look compressed or encrypted"
    output.facts({output.clean(name): value for name, value in pairs.items()})
    if case.trial is not None:
        _print_trial(case.trial)
    for finding in findings:
        print()
        drawing.show_lines(drawing.draw_finding(finding, drawing.width()))
    print()
    print(_verdict(findings))
    if case.base is None:
        output.note("with --base OLD, two builds are compared")


def _print_trial(trial: Trial) -> None:
    print()
    print(
        f"trial delta {output.size(trial.delta)}, {100 * trial.share:.1f} % of the "
        f"full container ({output.size(trial.full)}); its bytes are spent on"
    )
    for name, count in _named(trial):
        print(f"  {output.size(count).rjust(10)}  {output.clean(name)}")


def _volume(volume: Volume) -> str:
    told = [volume.kind]
    if volume.packed is not None:
        told.append(f"compressed by {volume.packed.codec or 'nothing'}")
    if (block := _block_size(volume)) is not None:
        told.append(f"blocks of {output.size(block)}")
    if volume.tree is not None:
        told.append(f"{len(volume.tree.files)} files and directories")
        told.append(f"{output.size(volume.tree.free)} free")
    if volume.verity is not None:
        told.append("dm-verity")
    return ", ".join(told)


def _verdict(findings: tuple[Finding, ...]) -> str:
    if not findings:
        return "nothing to change: a good image for deltas"
    counts = {
        str(level): sum(finding.severity == level for finding in findings)
        for level in ("error", "warning", "note")
    }
    return ", ".join(
        f"{count} {name}{'s' if count > 1 else ''}"
        for name, count in counts.items()
        if count
    )


# ── deltas on a server ───────────────────────────────────────────────────────────────
def print_deltas(found: list[Delta]) -> None:
    """The deltas a server makes or made."""
    output.table(
        ("id", "state", "to", "from", "devices", "bytes", "of the full", "why"),
        [
            [
                one["id"],
                _state(one),
                one["path"],
                one["base_path"] or one["base_sha256"][:16],
                one["devices"],
                None if one["length"] is None else output.size(one["length"]),
                _share(one),
                one["reason"],
            ]
            for one in found
        ],
    )


def _state(delta: Delta) -> str:
    if delta["step"] is None:
        return delta["state"]
    return f"{delta['state']}: {delta['step']} {delta['progress'] or 0} %"


def _share(delta: Delta) -> str | None:
    if delta["length"] is None or not delta["full_length"]:
        return None
    return f"{100 * delta['length'] / delta['full_length']:.1f} %"
