"""``sealift release``: pack an image, collect signatures, publish what was signed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealift.cli import output, remote, secure_boot, signing_views
from sealift.core.errors import RefusedError

if TYPE_CHECKING:
    from sealift.sign.desk import Desk
    from sealift.sign.payloads import Sealing
    from sealift.sign.review import Review
    from sealift.sign.travel import Letter

app = output.group("Pack, review, sign and publish releases; sign new Roots.")
app.add_typer(secure_boot.app, name="secure-boot")

RequestPath = Annotated[
    Path,
    typer.Argument(metavar="REQUEST", help="A request file, or a release directory."),
]
DeskOption = Annotated[Path, typer.Option(help="The desk's directory.")]
OwnDesk = Annotated[
    Path | None,
    typer.Option("--desk", help="Compare with this desk's own metadata."),
]
OwnRoot = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="N.root.json", help="Without a desk: your copy of the Root."
    ),
]
Accept = Annotated[
    list[str] | None,
    typer.Option(metavar="WORD", help="Consent to one danger `review` named."),
]
Add = Annotated[
    list[Path] | None,
    typer.Option(metavar="SIG.json", help="Signatures made on other machines."),
]
Demo = Annotated[bool, typer.Option(help="Take demo keys.")]


# ── making requests ──────────────────────────────────────────────────────────────────
@app.command()
def pack(
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="The image: a file or block device.")
    ],
    desk: DeskOption,
    product: Annotated[str, typer.Option(help="Product the image is for.")],
    component: Annotated[str, typer.Option(help="Component it replaces.")],
    version: Annotated[str, typer.Option(help="Version, above those released.")],
    hardware_id: Annotated[
        list[str], typer.Option(help="Hardware it fits; repeat for several.")
    ],
    counter: Annotated[
        int, typer.Option(min=0, help="Release counter; never goes down on a device.")
    ],
    out: Annotated[Path, typer.Option(help="New directory for the release.")],
    sbom: Annotated[
        Path | None, typer.Option(help="SBOM file; its SHA-256 is signed along.")
    ] = None,
    accept: Accept = None,
    seal: Annotated[
        bool,
        typer.Option(help="Encrypt it for the server whose key the desk has."),
    ] = False,
    content_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Encrypt it for this content-key.json, from a server's public/.",
        ),
    ] = None,
    base: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="OLD",
            help="Also make the delta from this image or release; repeat for several.",
        ),
    ] = None,
    bootable: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE.boot.json",
            help="How it boots verified: facts written by `secure-boot image`.",
        ),
    ] = None,
    preset: Annotated[
        int, typer.Option(min=0, max=9, help="LZMA effort; 9 is slow and small.")
    ] = 6,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Make the containers, the facts and the signing request of a release.

    Deltas are usually made by the server, of what its devices run. Sealed, without
    `--base`, devices fetch the full container unless the server may open content keys.

    Example: sealift release pack rootfs.img --desk desk --product demo-board
    --component rootfs --version 1.2.0 --hardware-id demo-board-r1 --counter 3
    --out rel-1.2.0
    """
    from sealift.sign import pack as packing
    from sealift.sign.desk import Desk
    from sealift.sign.payloads import Travel

    description = packing.Description(
        product, component, version, tuple(hardware_id), counter
    )
    opened = Desk.open(desk)
    sealing = _sealing(opened, content_key) if seal or content_key else None
    travel = Travel(preset, sealing, base or [])
    with output.progress(as_json=as_json) as report:
        release = packing.pack(
            image,
            out,
            description,
            opened,
            now=output.now(),
            accept=accept or [],
            sbom=sbom,
            bootable=bootable,
            travel=travel,
            dry_run=dry_run,
            progress=report,
        )
    if release is None:
        output.show(
            {"written": False, "name": description.path},
            as_json=as_json,
            text=lambda: output.note(f"{description.path} could be packed (dry run)"),
        )
    else:
        signing_views.show_release(release, out, len(base or []), as_json=as_json)


@app.command()
def propose(
    release: Annotated[Path, typer.Argument(metavar="RELEASE")],
    desk: DeskOption,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Propose a packed release again, from the desk's newest Targets.

    Needed when another release was published since it was packed; signatures are
    collected anew, the container stays.

    Example: sealift release propose rel-1.2.0 --desk desk
    """
    from sealift.sign import release as releases
    from sealift.sign.desk import Desk
    from sealift.sign.travel import Letter

    facts = releases.read_release(release)
    request = releases.propose(facts, Desk.open(desk), output.now())
    letter = Letter(release / "request.json", request)
    if not dry_run:
        letter.save()
    signing_views.show_status(letter, as_json=as_json)


@app.command()
def renew(
    desk: DeskOption,
    out: Annotated[Path, typer.Option(help="Where the signing request goes.")],
    remove: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An image to vouch for no longer."),
    ] = None,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Propose Targets with a later expiry; also the way to take images back.

    Example: sealift release renew --desk desk --out renew.json
    """
    from sealift.sign import release as releases
    from sealift.sign.desk import Desk
    from sealift.sign.travel import Letter

    request = releases.propose_renewal(Desk.open(desk), remove or [], output.now())
    letter = Letter(out, request) if dry_run else Letter.write(out, request)
    signing_views.show_status(letter, as_json=as_json)


# ── judging and signing ──────────────────────────────────────────────────────────────
@app.command()
def review(
    request: RequestPath,
    desk: OwnDesk = None,
    root: OwnRoot = None,
    image: Annotated[
        Path | None,
        typer.Option(help="Your own build of the image: must be the one proposed."),
    ] = None,
    add: Add = None,
    demo: Demo = False,
    as_json: output.Json = False,
) -> None:
    """Say in plain words what a signature would change.

    Everything is recomputed from the bytes to be signed. With --desk or --root they are
    compared with your own metadata; without, only with what the request brings along.

    Example: sealift release review rel-1.2.0 --desk desk --image rootfs.img
    """
    from sealift.sign.review import compare_image
    from sealift.sign.travel import Letter, status

    letter = Letter.open(request).with_signatures(add or [])
    found = _reviewed(letter, desk, root, demo=demo)
    if image is not None:
        found = found.with_finding(compare_image(letter.request, image))
    output.show(
        {**found.to_json(), "signatures": status(letter.request)},
        as_json=as_json,
        text=lambda: signing_views.print_review(found),
    )


@app.command()
def sign(
    request: RequestPath,
    key: Annotated[
        list[str],
        typer.Option(
            metavar="KEY", help="FILE.pem, pkcs11:… or hsm:…; repeat for several."
        ),
    ],
    desk: OwnDesk = None,
    root: OwnRoot = None,
    add: Add = None,
    accept: Accept = None,
    detached: Annotated[
        Path | None,
        typer.Option(help="Write the new signatures to this file instead."),
    ] = None,
    demo: Demo = False,
    passphrase_file: output.PassphraseFile = None,
    yes: output.Yes = False,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Review a request and sign it; dangers need --accept, each by its word.

    The signature goes into the request file, or alone into --detached. Compared is with
    the desk the key lies in, with --desk, or with --root.

    Example: sealift release sign rel-1.2.0 --key /media/alice/image-targets-1.pem
    """
    from sealift.repo.signers import load_signer
    from sealift.sign.review import require_consent
    from sealift.sign.travel import Letter, desk_of

    before = Letter.open(request)
    letter = before.with_signatures(add or [])
    if desk is None and root is None:
        desk = desk_of(key)
    found = _reviewed(letter, desk, root, demo=demo)
    if not as_json:
        signing_views.print_review(found)
    require_consent(found, accept or [])
    if not as_json and output.is_interactive():
        output.confirm("Sign exactly this?", yes=yes)
    allow_demo = demo or (desk is not None and _desk(desk).policy.demo)
    for address in key:
        signer = load_signer(
            address,
            lambda what: output.read_secret(what, passphrase_file),
            allow_demo=allow_demo,
        )
        letter = letter.signed_by(signer, allow_demo=allow_demo)
    if not dry_run and detached is not None:
        letter.save_signatures(detached, before.request)
    elif not dry_run:
        letter.save()
    signing_views.show_status(letter, as_json=as_json)


@app.command()
def status(request: RequestPath, add: Add = None, as_json: output.Json = False) -> None:
    """Who has signed, and who is still to sign.

    Example: sealift release status rel-1.2.0 --add alice.json
    """
    from sealift.sign.travel import Letter

    letter = Letter.open(request).with_signatures(add or [])
    signing_views.show_status(letter, as_json=as_json)


# ── publishing ───────────────────────────────────────────────────────────────────────
@app.command()
def publish(
    request: RequestPath,
    desk: DeskOption,
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    add: Add = None,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Upload the containers, then the signed Targets; keep them at the desk.

    The server checks everything again. Repeating it changes nothing.

    Example: sealift release publish rel-1.2.0 --desk desk
    --server https://ota.example:8444 --token-file operator.token --ca tls-ca.pem
    """
    from sealift.client.api import Publication
    from sealift.repo import signing
    from sealift.sign import release as releases
    from sealift.sign.travel import Letter

    opened = _desk(desk)
    letter = Letter.open(request).with_signatures(add or [])
    if letter.request.role != "targets":
        raise RefusedError(
            "this is a Root, not a release",
            hint="sealift keys accept DESK REQUEST, then sealift keys publish DESK",
        )
    raw = signing.finish(letter.request)
    facts = releases.read_release(request) if request.is_dir() else None
    containers = releases.containers_of(request) if request.is_dir() else []
    published = None
    if not dry_run:
        with (
            output.progress(as_json=as_json) as report,
            remote.session(server, token_file, ca, profile) as operator,
        ):
            for container, path in containers:
                operator.upload_container(container, path, report)
            operator.publish_targets(raw)
            if facts is not None:
                how = Publication(facts.container, facts.deltas, facts.seal)
                published = operator.publish_release({facts.listed.artifact.name: how})
        releases.keep(opened, letter.request, raw, output.now())
    found: dict[str, Any] = {
        "targets_version": letter.request.version,
        "container": None if facts is None else facts.container.name,
        "deltas": [] if facts is None else [delta.name for delta in facts.deltas],
        "release": None if published is None else published["id"],
        "published": not dry_run,
    }
    output.show(found, as_json=as_json, text=lambda: output.facts(found))


@app.command()
def show(
    release: Annotated[Path, typer.Argument(metavar="RELEASE")],
    as_json: output.Json = False,
) -> None:
    """The facts of a packed release: its image, how it travels, how it boots.

    Example: sealift release show rel-1.2.0
    """
    from sealift.sign import release as releases

    facts = releases.read_release(release)
    signing_views.show_release(facts, release, as_json=as_json)


@app.command("list")
def list_releases(
    desk: Annotated[Path, typer.Argument(metavar="DESK")], as_json: output.Json = False
) -> None:
    """What the desk's newest Image Targets vouches for.

    Example: sealift release list desk
    """
    from sealift.repo import image as images

    opened = _desk(desk)
    for text in opened.warnings(output.now()):
        output.warn(text)
    current = opened.targets()
    found = images.artifacts(current.signed) if current is not None else {}
    entries = sorted(found.values(), key=lambda entry: entry.sequence)
    signing_views.show_listed(entries, as_json=as_json)


# ── shared ───────────────────────────────────────────────────────────────────────────
def _desk(path: Path) -> Desk:
    from sealift.sign.desk import Desk

    return Desk.open(path)


def _sealing(desk: Desk, content_key: Path | None) -> Sealing:
    import secrets

    from sealift.sign.content_key import read_content_key
    from sealift.sign.payloads import Sealing

    recipient = read_content_key(content_key) if content_key else desk.content_key()
    return Sealing(recipient, secrets.token_bytes)


def _reviewed(
    letter: Letter, desk: Path | None, root: Path | None, *, demo: bool
) -> Review:
    from sealift.sign.review import review as judge
    from sealift.sign.travel import trusted_by, trusted_root

    own: dict[str, Any] = {"allow_demo": demo}
    if root is not None:
        own |= trusted_root(root)
    if desk is not None:
        own |= trusted_by(_desk(desk), letter.request)
    return judge(letter.request, now=output.now(), **own)
