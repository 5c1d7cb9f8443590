"""``sealift token``: who else may use a server, as what, and until when."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.cli import output, remote
from sealift.cli.output import Json
from sealift.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from sealift.client.answers import Token

__all__ = ["app"]

app = output.group("Make, list and take back tokens of the operator API.")

Name = Annotated[str, typer.Argument(metavar="NAME")]


@app.command()
def create(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Who or what it is for; stands in the audit log."
        ),
    ],
    role: Annotated[
        list[str],
        typer.Option(
            "--role",
            help="viewer, releaser, deployer, security, auditor, factory, admin, or "
            "one of the server's own; repeat.",
        ),
    ],
    days: Annotated[
        int, typer.Option("--days", min=1, max=400, help="How long it lasts.")
    ] = 90,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Write it to this new file, mode 0600."),
    ] = None,
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """Make a token with roles; it is shown this once."""
    if out is not None and out.exists():
        raise InvalidConfigError(f"{out} is there already", hint="choose a new file")
    with remote.session(server, token_file, ca, profile) as operator:
        made = operator.create_token(name, role, days)
    found: dict[str, object] = {**made["token"], "secret": made["secret"]}
    if out is not None:
        try:
            remote.write_secret(out, made["secret"] + "\n")
        except InvalidConfigError as error:
            raise InvalidConfigError(
                error.message,
                hint=f"the token was made and is lost: sealift token revoke {name}",
            ) from error
        found["secret"] = None
        found["file"] = str(out)

    def text() -> None:
        output.facts(_facts(made["token"]))
        if out is None:
            output.facts({"token": made["secret"]})
            output.note("it is shown this once; the server keeps only its digest")
        else:
            output.note(f"written to {out}; use it with --token-file")

    output.show(found, as_json=as_json, text=text)


@app.command("list")
def list_tokens(
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """Every token there ever was, the newest first."""
    with remote.session(server, token_file, ca, profile) as operator:
        found = operator.tokens()

    def text() -> None:
        output.table(
            ("name", "roles", "made by", "made", "ends", "revoked"),
            [tuple(_facts(token).values()) for token in found],
        )

    output.show(found, as_json=as_json, text=text)


@app.command()
def revoke(
    name: Name,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the audit log.")
    ] = "",
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """Take a token back; the next request with it is refused."""
    with remote.session(server, token_file, ca, profile) as operator:
        found = operator.revoke_token(name, reason)
    output.show(found, as_json=as_json, text=lambda: output.facts(_facts(found)))


@app.command()
def whoami(
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """Whose token is in use, and what it allows."""
    with remote.session(server, token_file, ca, profile) as operator:
        found = operator.who_am_i()

    def text() -> None:
        output.facts(
            {
                "name": found["name"],
                "roles": ", ".join(found["roles"]),
                "may": ", ".join(found["permissions"]),
                "ends": found["expires_at"] or "never",
            }
        )

    output.show(found, as_json=as_json, text=text)


def _facts(token: Token) -> dict[str, str]:
    return {
        "name": token["name"],
        "roles": ", ".join(token["roles"]),
        "made by": token["created_by"],
        "made": token["created_at"],
        "ends": token["expires_at"] or "never",
        "revoked": token["revoked_at"] or "",
    }
