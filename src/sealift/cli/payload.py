"""``sealift payload``: make, apply, look into containers; check images for deltas."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.cli import output, remote, views
from sealift.core.errors import (
    DeltaError,
    DigestError,
    InvalidConfigError,
    RefusedError,
)

if TYPE_CHECKING:
    from sealift.payload.facts import Facts
    from sealift.payload.images import FileImage
    from sealift.payload.look.findings import Trial
    from sealift.payload.look.survey import Survey
    from sealift.payload.making import Made, Request
    from sealift.payload.rebuild import Source

app = output.group("Try deltas on the desk: make, apply, look inside, check images.")

ContainerFile = Annotated[
    Path, typer.Argument(metavar="CONTAINER", help="A full or delta container.")
]
FactsFile = Annotated[
    Path | None,
    typer.Option(
        "--facts",
        metavar="FILE.json",
        help="What it must be: written by `make`, or a release.json. "
        "[default: CONTAINER.json, else release.json beside it]",
    ),
]
BaseImage = Annotated[
    Path | None, typer.Option("--base", metavar="OLD", help="The image before it.")
]
SIZE_HINT = "a number of bytes, or one with KiB, MiB or GiB: 512MiB"
_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes of a size as people write it.

    Raises:
        InvalidConfigError: it is none.
    """
    digits = text.rstrip("BGKMibgkm ")
    factor = _UNITS.get(text[len(digits) :].strip().upper())
    try:
        if factor is not None and (found := int(float(digits) * factor)) > 0:
            return found
    except (ValueError, OverflowError):
        pass
    raise InvalidConfigError(f"{text!r} is no size", hint=SIZE_HINT)


# ── making and applying ──────────────────────────────────────────────────────────────
@app.command()
def make(
    new: Annotated[
        Path, typer.Argument(metavar="NEW", help="The image: a file or block device.")
    ],
    out: Annotated[Path, typer.Option(help="The container to make: a new file.")],
    base: BaseImage = None,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="What making a delta may take.")
    ] = "4GiB",
    seconds: Annotated[
        int, typer.Option(min=1, help="How long making a delta may take.")
    ] = 3600,
    quality: Annotated[
        str, typer.Option(help="quick, balanced or best: effort of the compressor.")
    ] = "balanced",
    compare: Annotated[
        bool,
        typer.Option(help="Pack the full container, too, to compare a delta with it."),
    ] = True,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Make the container of an image: full, or with --base the delta from another one.

    A delta is made in a process with limits and checked in a second one, by the decoder
    that devices have. OUT.json, beside it, holds the facts that apply and inspect
    compare with. Nothing here is signed: releases are made by `sealift release`.

    Example: sealift payload make new.img --base old.img --out new.delta
    """
    from sealift.payload.making import make_container

    request = _request(new, base, out, memory, seconds, quality)
    with output.progress(as_json=as_json) as report:
        made = make_container(request, compare=compare, keep=not dry_run, tell=report)
    if not dry_run:
        _write_facts(out, made)
    output.show(
        made.to_json() | {"container_file": str(out), "written": not dry_run},
        as_json=as_json,
        text=lambda: views.print_made(out, made, written=not dry_run),
    )


@app.command("mcu-patch")
def mcu_patch(
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The image: a file.")],
    base: Annotated[
        Path, typer.Option("--base", metavar="OLD", help="The image before it.")
    ],
    out: Annotated[Path, typer.Option(help="The patch to make: a new file.")],
    kind: Annotated[
        str, typer.Option(help="What the loader applies; the other one is in place.")
    ] = "detools-sequential-heatshrink",
    window: Annotated[int, typer.Option(help="heatshrink window, bits.")] = 8,
    lookahead: Annotated[int, typer.Option(help="heatshrink lookahead, bits.")] = 7,
    memory_size: Annotated[
        int, typer.Option(metavar="BYTES", help="In place: flash it may use.")
    ] = 0,
    segment_size: Annotated[
        int, typer.Option(metavar="BYTES", help="In place: what is erased at a time.")
    ] = 0,
    as_json: output.Json = False,
) -> None:
    """Try a patch for a microcontroller: how long it gets, what decoding it takes.

    It is made and checked as the server does it for the types in its settings; what it
    was made by goes there. See docs/microcontrollers.md.

    Example: sealift payload mcu-patch new.bin --base old.bin --out new.patch
    """
    from sealift.core.types import PatchKind
    from sealift.payload.draft import require_free
    from sealift.payload.fence.job import Job, Source
    from sealift.payload.fence.patching import make_patch
    from sealift.payload.mcu import Recipe

    if kind not in set(PatchKind):
        raise InvalidConfigError(
            f"{kind!r} is no kind of patch", hint=f"one of {', '.join(PatchKind)}"
        )
    sizes = memory_size, segment_size, segment_size
    recipe = Recipe(PatchKind(kind), window, lookahead, *sizes)
    require_free(out)
    patch = make_patch(Job(Source(base), Source(new)), recipe, out.name, out)
    length = new.stat().st_size
    output.show(
        {"patch": patch.to_json(), "image_length": length},
        as_json=as_json,
        text=lambda: views.print_patch(patch, length),
    )


def _request(
    new: Path, base: Path | None, out: Path, memory: str, seconds: int, quality: str
) -> Request:
    from sealift.payload.draft import require_free
    from sealift.payload.making import Limits, Quality, Request

    try:
        effort = Quality(quality)
    except ValueError as error:
        known = ", ".join(one.value for one in Quality)
        raise InvalidConfigError(f"{quality!r} is no quality", hint=known) from error
    for place in (out, _facts_beside(out)):
        require_free(place)
    return Request(new, base, out, Limits(parse_size(memory), seconds), effort)


def _write_facts(out: Path, made: Made) -> None:
    from sealift.repo.files import write_atomic

    raw = json.dumps(made.facts.to_json(), indent=2).encode() + b"\n"
    write_atomic(_facts_beside(out), raw, mode=0o644, replace=False)


@app.command()
def apply(
    container: ContainerFile,
    out: Annotated[
        Path, typer.Option(metavar="NEW", help="The image to make: a new file.")
    ],
    base: BaseImage = None,
    facts: FactsFile = None,
    full: Annotated[
        Path | None,
        typer.Option(
            "--full",
            metavar="FULL",
            help="The full container of the same image: heals what a modified base "
            "spoils.",
        ),
    ] = None,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Make the image of a container, with the decoder that devices have.

    Every segment is verified before it is written, the whole image at the end. While it
    is not finished it is NEW.part; a run that was stopped goes on with that file.

    Example: sealift payload apply new.delta --base old.img --out again.img
    """
    from sealift.payload.draft import Nowhere, draft, require_free
    from sealift.payload.images import opened
    from sealift.payload.rebuild import check_base, rebuild

    require_free(out)
    with ExitStack() as stack:
        report = stack.enter_context(output.progress(as_json=as_json))
        source = _source(stack.enter_context(opened(container)), container, facts)
        origin = healer = None
        if source.facts.container.base_sha256 is not None:
            old = stack.enter_context(opened(_required(base)))
            origin = check_base(old, source.facts, report)
        if full is not None:
            healer = _source(stack.enter_context(opened(full)), full, None)
        modified = origin is not None and not origin.pristine
        if modified:
            _require_healer(healer)
        if dry_run:
            done = rebuild(source, origin, Nowhere(), healer, report)
        else:
            target = stack.enter_context(draft(out, source.facts.artifact.length))
            done = rebuild(source, origin, target, healer, report)
            target.finish(out)
    found = views.applied_json(out, source.facts, done) | {
        "written": not dry_run,
        "base_modified": modified,
    }
    output.show(found, as_json=as_json, text=lambda: views.print_applied(found))


def _required(base: Path | None) -> Path:
    if base is None:
        raise InvalidConfigError(
            "this is a delta: it needs the image it starts from", hint="--base OLD"
        )
    return base


def _require_healer(healer: Source | None) -> None:
    if healer is None:
        raise DigestError(
            "the base is not the image this delta starts from, or was modified since",
            hint="--full FULL takes what it spoils from the full container",
        )
    output.warn("the base was modified; what it spoils comes from the full container")


# ── looking ──────────────────────────────────────────────────────────────────────────
@app.command()
def inspect(
    container: ContainerFile,
    facts: FactsFile = None,
    as_json: output.Json = False,
) -> None:
    """Show what a container holds, and a map of the image it makes.

    The head and every frame are compared with their digests; nothing is decoded but
    the list of ops. Of a sealed container only sizes can be seen.

    Example: sealift payload inspect new.delta
    """
    from sealift.payload.facts import looks_sealed
    from sealift.payload.images import opened
    from sealift.payload.look.anatomy import dissect

    with ExitStack() as stack:
        image = stack.enter_context(opened(container))
        if looks_sealed(image.read_at, image.length):
            known = _known_facts(container, facts)
            views.show_sealed(container, image.length, known, as_json=as_json)
            return
        source = _source(image, container, facts)
        report = stack.enter_context(output.progress(as_json=as_json))
        found = dissect(source.read_at, source.facts, report)
    output.show(
        views.anatomy_json(found),
        as_json=as_json,
        text=lambda: views.print_anatomy(container, found),
    )


@app.command("check-image")
def check_image(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="An image: a file or block device.")
    ],
    base: BaseImage = None,
    slot_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help=f"What a slot holds: {SIZE_HINT}."),
    ] = None,
    trial: Annotated[
        bool, typer.Option(help="With --base: make the delta, see what carries it.")
    ] = True,
    memory: Annotated[
        str, typer.Option(metavar="SIZE", help="What the trial may take.")
    ] = "4GiB",
    strict: Annotated[
        bool,
        typer.Option("--strict", help="End with status 6 if it finds more than notes."),
    ] = False,
    as_json: output.Json = False,
) -> int:
    """Tell what makes deltas of an image large, what it costs, and what to change.

    With --base two builds are compared, what differs though nobody changed it, and the
    delta between them is made to see which files carry its bytes.

    Example: sealift payload check-image rootfs.img --base rootfs-1.1.img --slot-size
    512MiB
    """
    from sealift.payload.images import opened
    from sealift.payload.look.advice import advise
    from sealift.payload.look.findings import Case, Severity
    from sealift.payload.look.survey import survey

    limit = None if slot_size is None else parse_size(slot_size)
    allowed = parse_size(memory)
    before = tried = None
    with ExitStack() as stack:
        report = stack.enter_context(output.progress(as_json=as_json))
        new = stack.enter_context(opened(image))
        found = survey(new.read_at, new.length, report)
        if base is not None:
            old = stack.enter_context(opened(base))
            before = survey(old.read_at, old.length, _of_base(report))
            if trial:
                tried = _tried(base, image, found, allowed, report)
    case = Case(found, before, limit, tried)
    findings = advise(case)
    output.show(
        views.check_json(case, findings),
        as_json=as_json,
        text=lambda: views.print_check(image, case, findings),
    )
    bad = any(finding.severity is not Severity.NOTE for finding in findings)
    return RefusedError.exit_status if strict and bad else 0


def _of_base(report: output.Report) -> output.Report:
    return lambda step, done, total: report(f"{step} the base", done, total)


def _tried(
    base: Path, image: Path, found: Survey, memory: int, report: output.Report
) -> Trial | None:
    """The trial delta; ``None``, with a warning, if none can be made."""
    from sealift.payload.look.trial import try_delta

    try:
        return try_delta(base, image, found.owners, memory, report)
    except DeltaError as error:
        output.warn(f"no delta to try: {error.message}; all else was checked")
        return None


# ── deltas on a server ───────────────────────────────────────────────────────────────
@app.command()
def deltas(
    retry: Annotated[
        int | None,
        typer.Option(metavar="ID", help="Make one that failed or was cancelled."),
    ] = None,
    cancel: Annotated[
        int | None,
        typer.Option(metavar="ID", help="Do not make one, or stop making it."),
    ] = None,
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: output.Json = False,
) -> None:
    """Show the deltas a server wants, makes or made for the images devices run.

    Example: sealift payload deltas --profile server.toml
    """
    with remote.session(server, token_file, ca, profile) as operator:
        if retry is not None:
            operator.retry_delta(retry)
        if cancel is not None:
            operator.cancel_delta(cancel)
        found = list(operator.deltas())
    output.show(found, as_json=as_json, text=lambda: views.print_deltas(found))


# ── containers and their facts ───────────────────────────────────────────────────────
def _known_facts(container: Path, facts: Path | None) -> Facts | None:
    """Facts from the file that was named, else from one beside the container."""
    from sealift.payload.facts import FACTS_MAX, Facts
    from sealift.repo.files import read_as

    places = [_facts_beside(container), container.with_name("release.json")]
    found = facts or next((place for place in places if place.is_file()), None)
    if found is None:
        return None
    return read_as(found, FACTS_MAX, lambda raw: Facts.decode(raw, container.name))


def _facts_beside(container: Path) -> Path:
    return container.with_name(container.name + ".json")


def _source(image: FileImage, path: Path, facts: Path | None) -> Source:
    """A container and its facts; its own word, with a warning, where there are none."""
    from sealift.payload.facts import Facts
    from sealift.payload.rebuild import Source

    known = _known_facts(path, facts)
    if known is None:
        known = Facts.of_itself(image.read_at, image.length)
        output.warn(f"nothing to compare {path} with: it is taken by its own word")
    return Source(image.read_at, known)
