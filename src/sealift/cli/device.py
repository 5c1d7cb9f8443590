"""``sealift device``: provision devices, list and show them, revoke them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.cli import costs, output, remote
from sealift.cli.output import Json
from sealift.core.errors import InvalidConfigError

if TYPE_CHECKING:
    from sealift.client.answers import Device, DeviceDetail, Ecu
    from sealift.client.provision import Anchors
    from sealift.core.types import Artifact

__all__ = ["app"]

app = output.group("Register devices, list and show them.")

DeviceId = Annotated[str, typer.Argument(metavar="DEVICE")]


@app.command()
def provision(
    device: DeviceId,
    hardware_id: Annotated[
        str, typer.Option("--hardware-id", help="Hardware of its component.")
    ],
    out: Annotated[Path, typer.Option("--out", help="New directory for the device.")],
    desk: Annotated[
        Path | None,
        typer.Option("--desk", help="The desk whose roots the device shall trust."),
    ] = None,
    image_root: Annotated[
        Path | None, typer.Option("--image-root", help="Or: the Image root, a file.")
    ] = None,
    director_root: Annotated[
        Path | None,
        typer.Option("--director-root", help="Or: the Director root, a file."),
    ] = None,
    ecu: Annotated[
        list[str] | None,
        typer.Option("--ecu", help="Id of its component. [default: DEVICE-main]"),
    ] = None,
    factory: Annotated[
        Path | None,
        typer.Option("--factory", help="The release in its slot: a release directory."),
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys", help="Its own keys: what `sealift-agent keys make --json` said."
        ),
    ] = None,
    device_url: Annotated[
        str | None,
        typer.Option("--device-url", help="Device listener. [default: ask the server]"),
    ] = None,
    enrol_url: Annotated[
        str | None,
        typer.Option("--enrol-url", help="Enrolment listener. [default: as above]"),
    ] = None,
    slot_a: Annotated[
        str, typer.Option("--slot-a", help="Slot a, a file or block device.")
    ] = "slot-a.img",
    slot_b: Annotated[
        str, typer.Option("--slot-b", help="Slot b, the other one.")
    ] = "slot-b.img",
    demo: Annotated[
        bool, typer.Option("--demo", help="Let the device accept throw-away keys.")
    ] = False,
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """Enrol a device and write everything its agent needs into a new directory.

    Keys are made here and never leave, unless the device made its own in TPM or token
    (--keys); the trust anchors come from the desk, because a
    device must not learn from a server whom to trust.

    Example: sealift device provision dev-0001 --hardware-id demo-board-r1 --desk desk
    --out dev-0001 --profile server.toml
    """
    from sealift.client import provision as provisioning

    ecu_id = _one(ecu or [f"{device}-main"])
    own_keys = None if keys is None else provisioning.read_keys(keys)
    made_with = None if factory is None else _factory(factory)
    anchors = _anchors(desk, image_root, director_root)
    with remote.session(server, token_file, ca, profile) as operator:
        wanted = provisioning.Plan(
            device_id=device,
            ecu_id=ecu_id,
            hardware_id=hardware_id,
            anchors=anchors,
            url=device_url or operator.status()["device_url"],
            enrol_url=enrol_url or operator.status()["enrol_url"],
            ca=operator.session.ca,
            slots=(slot_a, slot_b),
            factory=made_with,
            demo=demo,
            keys=own_keys,
        )
        found = provisioning.provision(wanted, operator, out)
    output.show(found, as_json=as_json, text=lambda: output.facts(found))


@app.command("list")
def list_devices(
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """Every device, what it runs and when it was heard of."""
    with remote.session(server, token_file, ca, profile) as operator:
        found = list(operator.devices())

    def text() -> None:
        columns = ("device", "state", "runs", "last seen", "reported", "time from")
        output.table(columns, [_row(device) for device in found])

    output.show(found, as_json=as_json, text=text)


@app.command()
def show(
    device: DeviceId,
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """One device: components, certificates, installations, reports."""
    with remote.session(server, token_file, ca, profile) as operator:
        found = operator.device(device)
    output.show(found, as_json=as_json, text=lambda: _print(found))


@app.command()
def revoke(
    device: DeviceId,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept in the audit log.")
    ] = "",
    yes: output.Yes = False,
    server: remote.Server = None,
    token_file: remote.TokenFile = None,
    ca: remote.CaFile = None,
    profile: remote.ProfileFile = None,
    as_json: Json = False,
) -> None:
    """Refuse a device from its next request on; its history stays."""
    output.confirm(f"Revoke {device} for ever?", yes=yes)
    with remote.session(server, token_file, ca, profile) as operator:
        found = operator.revoke(device, reason)
    output.show(found, as_json=as_json, text=lambda: _print(found))


def _one(ecus: list[str]) -> str:
    if len(ecus) == 1:
        return ecus[0]
    raise InvalidConfigError(
        f"a device has one component in this version, not {len(ecus)}",
        hint="give --ecu once; the agent cannot update several yet",
    )


def _factory(path: Path) -> Artifact:
    """The image of a release directory, or of the ``release.json`` in one."""
    from sealift.sign.release import read_release

    directory = path.parent if path.name == "release.json" else path
    return read_release(directory).listed.artifact


def _anchors(desk: Path | None, image: Path | None, director: Path | None) -> Anchors:
    from sealift.client.provision import Anchors, anchors_in, read_anchor

    if desk is not None and image is None and director is None:
        return anchors_in(desk)
    if desk is None and image is not None and director is not None:
        return Anchors(read_anchor(image), read_anchor(director))
    raise InvalidConfigError(
        "which roots shall the device trust?",
        hint="give --desk, or both --image-root and --director-root",
    )


def _row(device: Device) -> tuple[object, ...]:
    return (
        device["id"],
        device["state"],
        ", ".join(_running(ecu) for ecu in device["ecus"]),
        device["last_seen"],
        device["reported_at"],
        device["time_source"],
    )


def _running(ecu: Ecu) -> str:
    return ecu["installed"]["version"] or ecu["installed"]["name"] or "unknown"


def _key(device: Device) -> str | None:
    """The key sealed images are wrapped to, and whether the device has it."""
    key = device["decryption_key"]
    if key is None:
        return None
    told = key["reported"]
    if told == key["kid"]:
        return f"{key['kid']} ({key['kem']})"
    return f"{key['kid']} ({key['kem']}), the device reports {told or 'none'}"


def _print(found: DeviceDetail) -> None:
    device = found["device"]
    output.facts(
        {
            "device": device["id"],
            "state": device["state"],
            "enrolled": device["created_at"],
            "last seen": device["last_seen"],
            "last report": device["reported_at"],
            "report counter": device["counter"],
            "time from": device["time_source"],
            "can do": ", ".join(device["abilities"]) or None,
            "decryption key": _key(device),
        }
    )
    print()
    output.table(
        ("component", "hardware", "runs", "counter", "attack"),
        [
            (
                ecu["ecu_id"],
                ecu["hardware_id"],
                _running(ecu),
                ecu["installed"]["release_counter"],
                ecu["attack"],
            )
            for ecu in device["ecus"]
        ],
    )
    if found["installations"]:
        print()
        output.table(
            ("deployment", "artifact", "state", "bytes", "code", "changed"),
            [
                (
                    i["deployment"],
                    i["path"],
                    i["state"],
                    costs.way(i),
                    i["code"],
                    i["changed_at"],
                )
                for i in found["installations"]
            ],
        )
