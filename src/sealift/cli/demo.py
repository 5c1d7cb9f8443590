"""``sealift demo``: the whole way of an update on this machine, with real parts.

What happens is ``sim.demo``; here it is asked for and shown.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.cli.output import Json, group, note, progress, table

if TYPE_CHECKING:
    from sealift.sim.demo import Done

__all__ = ["app"]

app = group("The whole way of an update on this machine, in minutes.")


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def demo(
    as_json: Json = False,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work",
            help="Where to work; packages and images are kept there for the next time. "
            "[default: ~/.cache/sealift/demo]",
        ),
    ] = None,
    keep: Annotated[
        bool,
        typer.Option("--keep", help="Keep keys, server, device and logs of this run."),
    ] = False,
    image_size: Annotated[
        str,
        typer.Option(
            "--image-size",
            help="full: 56 MiB with Python and OpenSSL; small: 32 MiB, busybox only.",
        ),
    ] = "full",
) -> int:
    """Build real images, sign, serve, install, attack, cut off and roll back.

    Exit status 0 only if every step ends as it must. With --json, one object per step
    and line: step, ok, detail, seconds.
    """
    from sealift.sim import demo as play

    for how in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(how, signal.default_int_handler)
    options = play.Options.checked(work or _default_work(), image_size, keep=keep)
    done: list[Done] = []
    with (
        progress(as_json=as_json) as report,
        closing(
            play.run(options, play.Watch(_quiet if as_json else note, report))
        ) as it,
    ):
        for one in it:
            done.append(one)
            _show(one, as_json=as_json)
    held = all(one.ok for one in done) and len(done) == len(play.STEPS)
    if not as_json:
        _summary(done)
    if not held:
        note(f"what was kept, logs included: {options.run}")
    return 0 if held else 1


def _show(one: Done, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(one.to_json()), flush=True)
    else:
        note(f"{'ok ' if one.ok else 'FAILED'}  {one.step}: {one.observed}")


def _summary(done: list[Done]) -> None:
    table(
        ["step", "required", "holds", "seconds"],
        [[d.step, d.required, d.ok, f"{d.seconds:.1f}"] for d in done],
    )


def _quiet(_: str) -> None:
    pass


def _default_work() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "sealift/demo"
