"""``sealift deployment``: send a release to devices, and see how far they are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.cli import costs, output, remote
from sealift.cli.output import Json
from sealift.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.client.answers import Deployment, DeploymentDetail
    from sealift.client.api import Operator

__all__ = ["app"]

app = output.group("Order devices to a release, see how far they are.")

WATCH_SECONDS = 2
_ENDS = ("succeeded", "failed", "rolled_back", "cancelled", "superseded")

DeploymentId = Annotated[str, typer.Argument(metavar="DEPLOYMENT")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the audit log.")]
Watch = Annotated[
    bool, typer.Option("--watch", help="Follow it until every installation has ended.")
]


@app.command()
def create(
    release: Annotated[str, typer.Option("--release", help="Id of the release.")],
    device: Annotated[
        list[str] | None, typer.Option("--device", help="A device; repeat.")
    ] = None,
    all_devices: Annotated[
        bool, typer.Option("--all", help="Every active device it fits.")
    ] = False,
    reason: Reason = "",
    bytes_max: Annotated[
        int | None,
        typer.Option(
            "--bytes-max", min=1, help="Most bytes one installation may transfer."
        ),
    ] = None,
    delta_wait: Annotated[
        int | None,
        typer.Option(
            "--delta-wait",
            min=0,
            help="Minutes to wait for deltas under way. [default: the server's]",
        ),
    ] = None,
    watch: Watch = False,
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """Send a release to devices."""
    if all_devices == bool(device):
        raise InvalidConfigError(
            "for which devices?", hint="give --device NAME (repeat it) or --all"
        )
    with remote.session(server, token_file, ca, profile) as operator:
        found = operator.create_deployment(
            release,
            None if all_devices else device,
            reason,
            bytes_max=bytes_max,
            delta_wait_minutes=delta_wait,
        )
        if watch:
            found = _watched(operator, found["deployment"]["id"], as_json=as_json)
    output.show(found, as_json=as_json, text=lambda: _print(found))


@app.command("list")
def list_deployments(
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """Every deployment, the newest first."""
    with remote.session(server, token_file, ca, profile) as operator:
        found = operator.deployments()

    def text() -> None:
        output.table(
            ("id", "release", "state", "created", "installations", "reason"),
            [_row(deployment) for deployment in found],
        )

    output.show(found, as_json=as_json, text=text)


@app.command()
def show(
    deployment: DeploymentId,
    watch: Watch = False,
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """One deployment with its installations."""
    with remote.session(server, token_file, ca, profile) as operator:
        found = (
            _watched(operator, deployment, as_json=as_json)
            if watch
            else operator.deployment(deployment)
        )
    output.show(found, as_json=as_json, text=lambda: _print(found))


@app.command()
def abort(
    deployment: DeploymentId,
    reason: Reason = "",
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """Take back what no device has switched to yet."""
    with remote.session(server, token_file, ca, profile) as operator:
        found = operator.abort_deployment(deployment, reason)
    output.show(found, as_json=as_json, text=lambda: _print(found))


def _watched(
    operator: Operator, deployment_id: str, *, as_json: bool
) -> DeploymentDetail:
    with output.progress(as_json=as_json, unit="installations") as report:
        while True:
            found = operator.deployment(deployment_id)
            counts = found["deployment"]["counts"]
            ended, total = _ended(counts), sum(counts.values())
            report(deployment_id, ended, total)
            if ended == total:
                return found
            time.sleep(WATCH_SECONDS)


def _ended(counts: Mapping[str, int]) -> int:
    return sum(counts.get(state, 0) for state in _ENDS)


def _row(deployment: Deployment) -> tuple[object, ...]:
    return (
        deployment["id"],
        deployment["release"],
        deployment["state"],
        deployment["created_at"],
        _shown(deployment["counts"]),
        deployment["reason"] or None,
    )


def _shown(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())


def _print(found: DeploymentDetail) -> None:
    deployment = found["deployment"]
    output.facts(
        {
            "deployment": deployment["id"],
            "release": deployment["release"],
            "state": deployment["state"],
            "created": deployment["created_at"],
            "reason": deployment["reason"] or None,
            "installations": _shown(deployment["counts"]),
            "bytes allowed": deployment["bytes_max"],
            "bytes": costs.drift(found["bytes"]),
        }
    )
    print()
    output.table(
        ("device", "component", "artifact", "state", "bytes", "code", "changed"),
        [
            (
                i["device"],
                i["ecu_id"],
                i["path"],
                i["state"],
                costs.way(i),
                i["code"],
                i["changed_at"],
            )
            for i in found["installations"]
        ],
    )
