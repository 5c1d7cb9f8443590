"""``sealift keys``: look at keys, make them, change who may sign, rehearse, publish."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sealift.cli import output, remote
from sealift.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from securesystemslib.signer import Key

    from sealift.sign.desk import Desk
    from sealift.sign.rotation import Change

app = output.group("Show, make, rotate, recover, rehearse and publish keys.")

DeskPath = Annotated[Path, typer.Argument(metavar="DESK", help="The desk's directory.")]
Repository = Annotated[
    str, typer.Argument(metavar="REPOSITORY", help="image or director")
]
Out = Annotated[Path, typer.Option("--out", help="Where the signing request goes.")]
Algorithm = Annotated[str, typer.Option(help="ed25519, ecdsa-p256 or ml-dsa-65.")]


# ── looking ──────────────────────────────────────────────────────────────────────────
@app.command("list")
def list_keys(desk: DeskPath, as_json: output.Json = False) -> None:
    """Every key of both newest Roots: role, threshold, algorithm, where it is.

    Example: sealift keys list desk
    """
    from sealift.sign.desk import Desk

    opened = Desk.open(desk)
    for text in opened.warnings(output.now()):
        output.warn(text)
    rows = [
        row
        for repository, root in opened.roots().items()
        for role in root.roles
        for row in _rows(opened, repository, role)
    ]
    columns = ("repository", "role", "agree", "key", "algorithm", "id", "file")
    output.show(
        rows,
        as_json=as_json,
        text=lambda: output.table(
            columns, [[row[column] for column in columns] for row in rows]
        ),
    )


@app.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="KEY.pub")],
    as_json: output.Json = False,
) -> None:
    """Show one public key file.

    Example: sealift keys show desk/keys/image-root-1.pub
    """
    from sealift.sign import keys

    _show_key(keys.read_public(file, allow_demo=True), as_json=as_json)


@app.command()
def check(
    address: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="FILE.pem, pkcs11:token=T;id=%01?module-path=M, or hsm:2?label=T",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What people call the key.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the public half to this .pub file.")
    ] = None,
    demo: Annotated[bool, typer.Option(help="Take demo keys.")] = False,
    passphrase_file: output.PassphraseFile = None,
    as_json: output.Json = False,
) -> None:
    """Open a private key, sign a test message with it, and show its public half.

    Example: sealift keys check hsm:2?label=desk --name image-targets-3
    --out image-targets-3.pub
    """
    from sealift.repo.files import write_atomic
    from sealift.repo.policy import labelled, under_its_id
    from sealift.sign import keys

    signer = _signer(address, passphrase_file, demo=demo)
    keys.prove(signer)
    key = under_its_id(signer.public_key)
    if name is not None:
        keys.check_name(name)
        key = labelled(key, name)
    if out is not None:
        write_atomic(out, keys.public_to_json(key), mode=0o644, replace=False)
    _show_key(key, as_json=as_json)


# ── making ───────────────────────────────────────────────────────────────────────────
@app.command()
def generate(
    out: Annotated[Path, typer.Argument(metavar="NAME.pem", help="New key file.")],
    name: Annotated[str | None, typer.Option(help="Default: the file's name.")] = None,
    algorithm: Algorithm = "ed25519",
    demo: Annotated[bool, typer.Option(help="Mark it as a demo key.")] = False,
    passphrase_file: output.PassphraseFile = None,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Make one key: NAME.pem, encrypted and closed to others, and NAME.pub beside it.

    Example: sealift keys generate image-root-4.pem
    """
    from sealift.sign import keys

    called = name or out.stem
    keys.check_name(called)
    if dry_run:
        output.note(f"would make {algorithm} key {called} in {out}")
        return
    passphrase = (
        None
        if demo and passphrase_file is None
        else output.read_secret(
            f"passphrase for {out.name}", passphrase_file, twice=True
        )
    )
    made = keys.generate(out, called, algorithm, passphrase, demo=demo)
    _show_key(made.public_key, as_json=as_json)


# ── changing who may sign ────────────────────────────────────────────────────────────
@app.command()
def rotate(
    desk: DeskPath,
    repository: Repository,
    out: Out,
    role: Annotated[str, typer.Option(help="root, targets, snapshot or timestamp")],
    remove: Annotated[
        list[str] | None, typer.Option(help="A key's name; repeat for several.")
    ] = None,
    add: Annotated[
        list[Path] | None, typer.Option(metavar="KEY.pub", help="A new public key.")
    ] = None,
    threshold: Annotated[int | None, typer.Option(help="New threshold.")] = None,
    min_per_family: Annotated[
        int | None, typer.Option(help="For hybrids: this many of each family.")
    ] = None,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Propose the next Root with other keys or another threshold for one role.

    The request must be signed by the threshold of the old Root and of the new one:
    `sealift release sign` on each machine, then `sealift keys accept`.

    Example: sealift keys rotate desk image --role targets
    --remove image-targets-3 --add hsm.pub --out root.json
    """
    from sealift.sign import keys, rotation
    from sealift.sign.desk import Desk

    opened = Desk.open(desk)
    demo = opened.policy.demo
    added = tuple(keys.read_public(file, allow_demo=demo) for file in add or [])
    change = rotation.Change(
        role, tuple(remove or []), added, threshold, min_per_family
    )
    _propose(opened, repository, [change], out, dry_run=dry_run, as_json=as_json)


@app.command("rotate-online")
def rotate_online(
    desk: DeskPath,
    repository: Repository,
    out: Out,
    online: Annotated[
        Path, typer.Option(help="online-keys.json with the server's new keys.")
    ],
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Propose the next Root with a new set of online keys, after a theft or a move.

    Example: sealift keys rotate-online desk image
    --online new/online-keys.json --out root.json
    """
    from sealift.repo import online as online_keys
    from sealift.repo.files import read_as
    from sealift.sign import rotation
    from sealift.sign.desk import Desk

    opened = Desk.open(desk)
    public = read_as(
        online,
        online_keys.BYTES_MAX,
        partial(online_keys.from_json, allow_demo=opened.policy.demo),
    )
    changes = rotation.online_changes(opened, _known(repository), public)
    _propose(opened, repository, changes, out, dry_run=dry_run, as_json=as_json)


@app.command()
def renew(
    desk: DeskPath,
    repository: Repository,
    out: Out,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Propose the next Root with the same keys and a later expiry.

    Example: sealift keys renew desk director --out root.json
    """
    from sealift.sign.desk import Desk

    opened = Desk.open(desk)
    _propose(opened, repository, [], out, dry_run=dry_run, as_json=as_json)


@app.command()
def recover(
    desk: DeskPath,
    repository: Repository,
    out: Out,
    lost: Annotated[
        list[str], typer.Option(help="A lost or stolen key's name; repeat for several.")
    ],
    passphrase_file: output.PassphraseFile = None,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Replace lost or stolen keys: make new ones, propose the Root that names them.

    Works as long as enough of the old root keys are left to sign. If not, it says so:
    then only a new trust anchor on the devices helps.

    Example: sealift keys recover desk image --lost image-root-2 --out root.json
    """
    from sealift.sign import rotation
    from sealift.sign.desk import Desk

    opened = Desk.open(desk)
    _known(repository)
    rotation.check_recoverable(opened, repository, lost)
    if dry_run:
        output.note(f"could be replaced: {', '.join(lost)}")
        return
    passphrase = output.read_secret(
        "passphrase for the new key files", passphrase_file, twice=True
    )
    made = rotation.make_replacements(opened, repository, lost, passphrase)
    changes = rotation.replacements(opened, repository, lost, made)
    _propose(opened, repository, changes, out, dry_run=False, as_json=as_json)


@app.command()
def accept(
    desk: DeskPath,
    request: Annotated[Path, typer.Argument(metavar="REQUEST")],
    add: Annotated[
        list[Path] | None,
        typer.Option(metavar="SIG.json", help="Signatures of other machines."),
    ] = None,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Put a fully signed Root into the desk, ready for `sealift keys publish`.

    Example: sealift keys accept desk root.json --add alice.json --add bob.json
    """
    from sealift.repo import signing
    from sealift.sign import rotation
    from sealift.sign.desk import Desk
    from sealift.sign.travel import Letter

    opened = Desk.open(desk)
    letter = Letter.open(request).with_signatures(add or [])
    if dry_run:
        signing.finish(letter.request)
        output.note("complete; nothing was written (dry run)")
        return
    root = rotation.accept_root(opened, letter.request)
    found = {"repository": letter.request.repository, "root_version": root.version}
    output.show(found, as_json=as_json, text=lambda: output.facts(found))


# ── rehearsing and publishing ────────────────────────────────────────────────────────
@app.command()
def drill(
    desk: Annotated[
        Path | None, typer.Argument(metavar="[DESK]", help="Take this desk's shape.")
    ] = None,
    people: Annotated[int, typer.Option(help="Without DESK: how many people.")] = 3,
    threshold: Annotated[int, typer.Option(help="Without DESK: who must agree.")] = 2,
    hybrid: Annotated[bool, typer.Option(help="Without DESK: hybrid keys.")] = False,
    as_json: output.Json = False,
) -> None:
    """Rehearse rotation, loss and recovery with throw-away keys and a real verifier.

    Nothing of the desk is changed, and no private key of it is opened. Exit status 8 if
    a step fails.

    Example: sealift keys drill desk
    """
    import secrets
    import tempfile

    from sealift.sign import ceremony
    from sealift.sign import drill as rehearsal
    from sealift.sign.desk import Desk

    plan = (
        ceremony.Plan(people, threshold, hybrid)
        if desk is None
        else rehearsal.shape_of(Desk.open(desk))
    )
    results = []
    with tempfile.TemporaryDirectory(prefix="sealift-drill-") as scratch:
        for result in rehearsal.drill(
            Path(scratch),
            plan,
            now=output.now(),
            clock=time.perf_counter,
            passphrase=secrets.token_hex(16),
        ):
            results.append(result)
            if not as_json:
                mark = "ok    " if result.ok else "FAILED"
                print(f"{mark} {result.seconds:6.2f} s  {output.clean(result.step)}")
                print(f"                 {output.clean(result.detail)}")
    if as_json:
        output.print_json([result.to_json() for result in results])
    if not all(result.ok for result in results):
        raise typer.Exit(8)


@app.command()
def publish(
    desk: DeskPath,
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Upload every Root of the desk, then its newest Image Targets.

    What the server has already is left alone, so this can be repeated.

    Example: sealift keys publish desk --server https://ota.example:8444
    --token-file operator.token --ca srv/public/tls-ca.pem
    """
    from sealift.sign.desk import REPOSITORIES, Desk

    opened = Desk.open(desk)
    roots = {name: opened.root_chain(name) for name in REPOSITORIES}
    targets = opened.targets_bytes()
    found: dict[str, Any] = {
        "roots": {name: len(chain) for name, chain in roots.items()},
        "targets": targets is not None,
        "published": not dry_run,
    }
    if not dry_run:
        with remote.session(server, token_file, ca, profile) as operator:
            for name, chain in roots.items():
                operator.publish_roots(name, chain)
            if targets is not None:
                operator.publish_targets(targets)
    output.show(
        found,
        as_json=as_json,
        text=lambda: output.facts(
            {
                "image roots": len(roots["image"]),
                "director roots": len(roots["director"]),
                "image targets": "newest" if targets is not None else "none",
                "published": not dry_run,
            }
        ),
    )


# ── shared ───────────────────────────────────────────────────────────────────────────
def _signer(address: str, passphrase_file: Path | None, *, demo: bool) -> Any:
    from sealift.repo.signers import load_signer

    return load_signer(
        address, lambda what: output.read_secret(what, passphrase_file), allow_demo=demo
    )


def _known(repository: str) -> str:
    from sealift.sign.desk import REPOSITORIES

    if repository not in REPOSITORIES:
        raise InvalidConfigError(
            f"there is no repository {repository!r}", hint="image or director"
        )
    return repository


def _propose(
    desk: Desk,
    repository: str,
    changes: list[Change],
    out: Path,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from sealift.sign import rotation
    from sealift.sign.review import review
    from sealift.sign.travel import Letter, trusted_by

    request = rotation.propose_change(
        desk, _known(repository), changes, now=output.now()
    )
    if not dry_run:
        Letter.write(out, request)
    found = review(request, now=output.now(), **trusted_by(desk, request))

    def text() -> None:
        for finding in found.findings:
            print(output.clean(f"- {finding.text}"))
        output.note(f"next: sealift release sign {out} --key …, on each machine")

    output.show(
        {"request": str(out), "written": not dry_run, **found.to_json()},
        as_json=as_json,
        text=text,
    )


def _rows(desk: Desk, repository: str, role: str) -> list[dict[str, Any]]:
    from sealift.repo.policy import is_demo, name_of
    from sealift.repo.roots import role_keys

    rule = role_keys(desk.root(repository).signed, role)
    return [
        {
            "repository": repository,
            "role": role,
            "agree": f"{rule.threshold} of {len(rule.keys)}",
            "key": name_of(key),
            "algorithm": key.scheme,
            "id": key.keyid[:12],
            "file": _where(desk, name_of(key)),
            "demo": is_demo(key),
        }
        for key in rule.keys
    ]


def _where(desk: Desk, name: str) -> str:
    if (desk.keys / f"{name}.pem").is_file():
        return f"keys/{name}.pem"
    return "on the server" if "-online" in name else "elsewhere"


def _show_key(key: Key, *, as_json: bool) -> None:
    from sealift.repo.policy import is_demo, name_of

    found = {
        "name": name_of(key),
        "algorithm": key.scheme,
        "id": key.keyid,
        "demo": is_demo(key),
    }
    output.show(
        {**found, "key": key.to_dict()},
        as_json=as_json,
        text=lambda: output.facts(found),
    )
