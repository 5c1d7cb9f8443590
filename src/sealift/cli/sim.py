"""``sealift sim``: the world in one process; today, the power-cut test as a command."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.cli.output import Json, facts, group, note, progress, show
from sealift.core.errors import BootError, InvalidInputError

if TYPE_CHECKING:
    from sealift.sim.device import Scene
    from sealift.sim.powercut import Survey

app = group("Run the system in simulation.")


@app.callback()
def _sim() -> None:
    """Keep the group a group while it has one command."""


@app.command()
def powercut(
    runs: Annotated[
        int | None, typer.Option("--runs", min=1, help="How many lives to live.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides all chance.")] = 0,
    quick: Annotated[
        bool, typer.Option("--quick", help="Single cuts and some more; seconds.")
    ] = False,
    cuts: Annotated[
        str | None,
        typer.Option(
            "--cuts",
            help="Live one life, cut at these steps, and show it: 3.5,7 or none.",
        ),
    ] = None,
    image: Annotated[str, typer.Option("--image", help="With --cuts.")] = "good",
    loader: Annotated[
        str,
        typer.Option(
            "--loader",
            help="Whose boot loader: file (counting and one-shot), script, uboot, "
            "systemd-boot, grub, tryboot; all: a share each.",
        ),
    ] = "file",
    weather: Annotated[str, typer.Option("--weather", help="With --cuts.")] = "mixed",
    spoil: Annotated[
        int, typer.Option("--spoil", min=0, help="With --cuts: bad slot write.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Cut the power at every durable write of an update and see what is left.

    The shipped agent runs on a simulated device. Exit status 0 means that no run left a
    brick or an untrue report; 5 that one did, with the command that replays it.
    """
    if cuts is not None:
        _replay(_scene(image, loader, weather, spoil, seed), cuts, as_json=as_json)
        return
    from sealift.sim.powercut import FULL_RUNS, QUICK_RUNS

    limit = runs or (QUICK_RUNS if quick else FULL_RUNS)
    found, seconds = _survey(limit, seed, loader, as_json=as_json)
    result = found.to_json() | {"seconds": round(seconds, 1)}
    show(result, as_json=as_json, text=lambda: _print(found, seconds))
    if not found.clean:
        raise BootError(
            f"{found.bricks} bricks and {found.untruths} untruths in {found.runs} runs",
            hint=str(found.findings[0]["replay"]),
        )


def _survey(
    limit: int, seed: int, loader: str, *, as_json: bool
) -> tuple[Survey, float]:
    from sealift.sim.powercut import cases, loaders, survey

    runs = cases(limit, seed, loaders(loader))
    began = time.monotonic()
    with progress(as_json=as_json, unit="runs") as report:

        def shown(done: int) -> None:
            if done % 250 == 0 or done == limit:
                report("power cuts", done, limit)

        found = survey(runs, seed=seed, progress=shown)
    return found, time.monotonic() - began


def _print(found: Survey, seconds: float) -> None:
    facts(
        {
            "runs": found.runs,
            "cuts": found.cuts,
            "states seen at a start": len(found.seen),
            "bricks": found.bricks,
            "untruths": found.untruths,
            "seconds": f"{seconds:.1f}",
        }
    )
    for finding in found.findings:
        note(f"{finding['faults']}")
        note(f"  {finding['replay']}")


def _scene(image: str, loader: str, weather: str, spoil: int, seed: int) -> Scene:
    from sealift.sim.device import Kind, Scene
    from sealift.sim.flash import Weather
    from sealift.sim.powercut import loaders

    world = loaders(loader)[0]
    try:
        return Scene(Kind(image), world, Weather(weather), spoil, seed)
    except ValueError as error:
        kinds = ", ".join([*Kind, *Weather])
        raise InvalidInputError(f"{error}", hint=f"known: {kinds}") from error


def _replay(scene: Scene, cuts: str, *, as_json: bool) -> None:
    from sealift.sim.device import Device
    from sealift.sim.powercut import parse_cuts

    device = Device(scene, parse_cuts(cuts)).settle()
    faults = device.faults()
    result = {
        "steps": device.door.steps,
        "boots": device.boots,
        "trace": device.trace,
        "reports": device.reports(),
        "faults": faults,
    }

    def text() -> None:
        for line in device.trace:
            note(line)
        told = "; ".join(
            f"{it['verdict']} {it['code'] or ''}" for it in device.reports()
        )
        facts({"steps": device.door.steps, "boots": device.boots, "reported": told})

    show(result, as_json=as_json, text=text)
    if faults:
        raise BootError("; ".join(faults))
