"""The result of `benchmarks.delta` for people: one table per pair of images."""

from __future__ import annotations

from benchmarks._delta_trial import Figures
from benchmarks.common import Result, Value

HEAD = ("", "bytes", "create s", "MiB", "apply s", "MiB")
STEPS = (
    "create_cpu_s",
    "create_peak_rss_mib",
    "apply_cpu_s",
    "apply_peak_rss_mib",
)


def as_tables(result: Result) -> str:
    """Every pair, then what holds for all of them."""
    names = dict.fromkeys(
        name.split(".")[0] for name in result.figures if ".image_bytes" in name
    )
    blocks = [_pair(result, name) for name in names]
    overall = {**result.figures, **result.ratios}
    lines = [f"{name} {_cell(overall[name])}" for name in overall if "." not in name]
    for peer, found in result.peers.items():
        told = found.get("version", f"missing: {found.get('missing')}")
        lines.append(f"{peer}: {told}")
    lines += [f"{key}: {value}" for key, value in result.machine.items()]
    return "\n\n".join([result.benchmark, *blocks, "\n".join(lines)])


def _pair(result: Result, name: str) -> str:
    ours = _of(result.figures, name)
    rows = [
        ("Sealift delta", ours["delta_bytes"], *(ours.get(step) for step in STEPS)),
        (
            "Sealift full",
            ours["full_bytes"],
            *(ours.get(_of_full(step)) for step in STEPS),
        ),
    ]
    for peer, figures in result.peers.items():
        found = _of(figures, name)
        if "bytes" in found:
            rows.append((peer, found["bytes"], *(found.get(step) for step in STEPS)))
        elif found:
            rows.append((peer, found.get("not")))
    told = [f"{key} {_cell(value)}" for key, value in _of(result.ratios, name).items()]
    told += [
        f"{key} {_cell(ours.get(key))}"
        for key in ("image_bytes", "strategy", "delta.sealed_bytes", "new_sha256")
    ]
    return "\n".join([f"== {name}", *_aligned(rows), *told])


def _of_full(step: str) -> str:
    return step.replace("create", "pack_full").replace("apply", "apply_full")


def _of(found: Figures, name: str) -> Figures:
    start = f"{name}."
    return {
        key.removeprefix(start): value
        for key, value in found.items()
        if key.startswith(start)
    }


def _aligned(rows: list[tuple[Value, ...]]) -> list[str]:
    cells = [HEAD, *(tuple(map(_cell, row)) for row in rows)]
    return [
        f"{row[0]:<24}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in cells
    ]


def _cell(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "-" if value is None else str(value)
