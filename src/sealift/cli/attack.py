"""``sealift attack``: the threat model's catalogue, run against the real code.

Rows and rules are in ``sim.attacks``; here they are asked for and shown.
"""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.cli.output import Json, group, note, progress, show, table
from sealift.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.sim.attacks.catalogue import Row
    from sealift.sim.attacks.run import Result

__all__ = ["app"]

app = group("Run the catalogue of attacks against the real code.")


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def attack(
    as_list: Annotated[
        bool, typer.Option("--list", help="Show the catalogue, run nothing.")
    ] = False,
    all_rows: Annotated[
        bool, typer.Option("--all", help="Run every row there is code for.")
    ] = False,
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", help="Run this row, e.g. A-04; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Attack a device, a vendor and the network between them, and compare what comes.

    Each row builds its own world in a temporary directory: a vendor with real keys, the
    agent as it is shipped, and an attacker. A row holds if exactly the required outcome
    is observed and nothing else was touched. Exit status 0 if every row that was run
    holds, else 1. Rows of later capabilities are shown with the reason.
    """
    from sealift.sim.attacks.run import chosen

    for how in (signal.SIGTERM, signal.SIGHUP):  # leave no directory behind
        signal.signal(how, signal.default_int_handler)
    if as_list + all_rows + bool(ids) != 1:
        raise InvalidConfigError(
            "say what to do", hint="one of --list, --all or --id A-04"
        )
    rows = chosen(ids or [])
    if as_list:
        _list(rows, as_json=as_json)
        return 0
    return _run(rows, as_json=as_json)


def _list(rows: Sequence[Row], *, as_json: bool) -> None:
    value = [
        {
            "id": row.id,
            "name": row.name,
            "actor": str(row.actor),
            "demand": row.demand,
            "required": row.required or None,
            "later": row.later or None,
        }
        for row in rows
    ]
    cells = [[r.id, r.name, r.actor, r.required or f"later: {r.later}"] for r in rows]
    columns = ["id", "attack", "by", "required"]
    show(value, as_json=as_json, text=lambda: table(columns, cells))


def _run(rows: Sequence[Row], *, as_json: bool) -> int:
    from sealift.sim.attacks.run import run

    began, results = time.monotonic(), []
    with progress(as_json=as_json, unit="attacks") as report:
        for count, result in enumerate(run(rows), start=1):
            results.append(result)
            report("attacks", count, len(rows))
    value = [result.to_json() for result in results]
    show(value, as_json=as_json, text=lambda: _print(results))
    failed = [result for result in results if result.ok is False]
    if not as_json:
        _sum_up(results, failed, time.monotonic() - began)
    return 1 if failed else 0


def _print(results: Sequence[Result]) -> None:
    run = [result for result in results if result.ok is not None]
    later = [result for result in results if result.ok is None]
    table(
        ["id", "attack", "holds", "observed", "s"],
        [[r.row.id, r.row.name, r.ok, r.observed, f"{r.seconds:.1f}"] for r in run],
    )
    if later:
        rows = [[r.row.id, r.row.name, r.row.later] for r in later]
        table(["id", "attack", "later, because"], rows)


def _sum_up(
    results: Sequence[Result], failed: Sequence[Result], seconds: float
) -> None:
    for result in failed:
        note(f"FAILED {result.row.id}: required {result.row.required}")
        note(f"       observed {result.observed}")
    run = sum(result.ok is not None for result in results)
    note(
        f"{run - len(failed)} of {run} rows hold, {len(results) - run} come later, "
        f"{seconds:.0f} s"
    )
