"""``sealift init``: the first key ceremony, at a desk without a network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.cli import output
from sealift.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from securesystemslib.signer import SSlibKey

    from sealift.core.hpke import Recipient
    from sealift.sign.ceremony import Plan
    from sealift.sign.desk import Desk

app = output.group("Set up a vendor's desk: offline keys and first metadata.")


@app.command()
def init(
    desk: Annotated[Path, typer.Argument(help="New directory for the desk.")],
    online: Annotated[
        Path, typer.Option(help="online-keys.json of the server, from its public/.")
    ],
    people: Annotated[int, typer.Option(help="How many people hold keys.")] = 3,
    threshold: Annotated[int, typer.Option(help="How many of them must agree.")] = 2,
    hybrid: Annotated[
        bool, typer.Option(help="Give everybody a second key, ML-DSA-65.")
    ] = False,
    external: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE.pub",
            help="Take this public key for NAME; its private half is elsewhere.",
        ),
    ] = None,
    content_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="content-key.json of the server, from its public/: for `pack --seal`.",
        ),
    ] = None,
    demo: Annotated[
        bool, typer.Option(help="Mark all keys as demo keys, refused elsewhere.")
    ] = False,
    passphrase_file: output.PassphraseFile = None,
    dry_run: output.DryRun = False,
    as_json: output.Json = False,
) -> None:
    """Make all offline keys, both first Roots and an empty Image Targets.

    Every key file is encrypted with one passphrase; afterwards move the files of
    DESK/keys to the media of the people who hold them.

    Example: sealift init desk --online srv/public/online-keys.json
    """
    from sealift.repo import online as online_keys
    from sealift.repo.files import read_as
    from sealift.sign import ceremony
    from sealift.sign.content_key import read_content_key
    from sealift.sign.desk import Policy

    public = read_as(
        online,
        online_keys.BYTES_MAX,
        partial(online_keys.from_json, allow_demo=demo),
    )
    recipient = None if content_key is None else read_content_key(content_key)
    plan = ceremony.Plan(
        people, threshold, hybrid, _external(external or [], demo=demo)
    )
    if dry_run:
        ceremony.check_plan(plan, public, Policy(demo=demo), output.now())
        _show_plan(plan, as_json=as_json)
        return
    passphrase = (
        None
        if demo and passphrase_file is None
        else output.read_secret(
            "passphrase for the key files", passphrase_file, twice=True
        )
    )
    with output.progress(as_json=as_json, unit="keys") as report:
        made = ceremony.hold(
            desk,
            public,
            plan,
            Policy(demo=demo),
            passphrase=passphrase,
            now=output.now(),
            content_key=recipient,
            progress=report,
        )
    _show_desk(made, plan, recipient, as_json=as_json)


def _external(pairs: list[str], *, demo: bool) -> dict[str, SSlibKey]:
    from sealift.sign import keys

    found = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not equals or name in found:
            raise InvalidConfigError(
                f"--external {pair!r} is not NAME=FILE.pub, each name once"
            )
        found[name] = keys.read_public(Path(file), allow_demo=demo)
    return found


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    found = {
        "keys": plan.names(),
        "people": plan.people,
        "threshold": plan.threshold,
        "hybrid": plan.hybrid,
        "written": False,
    }
    output.show(
        found,
        as_json=as_json,
        text=lambda: output.facts(
            {
                "keys": ", ".join(plan.names()),
                "agreement": f"{plan.threshold} of {plan.people} people",
                "hybrid": plan.hybrid,
                "written": "nothing (dry run)",
            }
        ),
    )


def _show_desk(
    desk: Desk, plan: Plan, recipient: Recipient | None, *, as_json: bool
) -> None:
    roots = {
        repository: f"version {root.version}, expires {root.expires:%Y-%m-%d}"
        for repository, root in desk.roots().items()
    }
    found = {
        "desk": str(desk.path),
        "keys": [
            {"name": name, "file": str(desk.keys / f"{name}.pem")}
            for name in plan.names()
            if name not in plan.external
        ],
        "threshold": plan.threshold,
        "people": plan.people,
        "hybrid": plan.hybrid,
        "roots": roots,
        "content_key": recipient and recipient.kid,
    }

    def text() -> None:
        output.facts(
            {
                "desk": desk.path,
                "keys": ", ".join(plan.names()),
                "agreement": f"{plan.threshold} of {plan.people} people sign",
                "image root": roots["image"],
                "director root": roots["director"],
                "seals for": recipient and f"key {recipient.kid} of the server",
            }
        )
        output.note(
            f"next: give each person their key files out of {desk.keys}, keep a copy "
            f"of every one in another place, then `sealift keys publish {desk.path}`"
        )

    output.show(found, as_json=as_json, text=text)
