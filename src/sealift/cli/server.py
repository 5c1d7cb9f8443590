"""``sealift server``: set up and run a server in one process on one directory."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.cli import remote
from sealift.cli.output import (
    Json,
    PassphraseFile,
    facts,
    group,
    note,
    print_json,
    progress,
    read_secret,
    show,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket

    from sealift.server.app import Server
    from sealift.server.config import Config

__all__ = ["app"]

app = group("Set up and run a server.")
token_app = group("The operator's token.")
app.add_typer(token_app, name="token")

Directory = Annotated[Path, typer.Argument(help="The server's directory.")]
DeviceListen = Annotated[
    str | None,
    typer.Option(
        "--device-listen", help="HOST:PORT for devices (client certificates)."
    ),
]
OperatorListen = Annotated[
    str | None,
    typer.Option("--operator-listen", help="HOST:PORT for operators (token)."),
]
EnrolListen = Annotated[
    str | None,
    typer.Option("--enrol-listen", help="HOST:PORT for enrolment (EST)."),
]
HostNames = Annotated[
    list[str] | None,
    typer.Option("--host-name", help="Name or address in the TLS certificate; repeat."),
]


@app.command("init")
def init(
    directory: Directory,
    as_json: Json = False,
    device_listen: DeviceListen = None,
    operator_listen: OperatorListen = None,
    enrol_listen: EnrolListen = None,
    host_name: HostNames = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Make and accept throw-away keys only.")
    ] = False,
    save_profile: Annotated[
        Path | None,
        typer.Option(
            "--save-profile",
            help="Write server, CA and token to this new file, for --profile.",
        ),
    ] = None,
) -> None:
    """Make a server's directory with fresh keys; prints the operator token once."""
    from sealift.server.app import SystemChance, SystemClock, create
    from sealift.server.config import Config, Layout, url

    defaults = Config()
    config = Config(
        device_listen=device_listen or defaults.device_listen,
        operator_listen=operator_listen or defaults.operator_listen,
        enrol_listen=enrol_listen or defaults.enrol_listen,
        host_names=tuple(host_name or defaults.host_names),
        demo=demo,
    )
    token = create(directory, config, SystemClock(), SystemChance())
    layout = Layout(directory.absolute())
    if save_profile is not None:
        remote.save_profile(
            save_profile,
            server=url(config, config.operator_listen),
            ca=layout.certificate("tls-ca"),
            token=token,
        )
    found = {
        "directory": str(layout.root),
        "online_keys": str(layout.public / "online-keys.json"),
        "content_key": str(layout.content_key),
        "tls_ca": str(layout.certificate("tls-ca")),
        "operator_token": token,
    }

    def text() -> None:
        facts({name.replace("_", " "): value for name, value in found.items()})
        note("the token is shown this once and kept only as a digest; store it safely")
        note(f"next: sealift init DESK --online {found['online_keys']}")

    show(found, as_json=as_json, text=text)


@app.command("run")
def run(
    directory: Directory,
    as_json: Json = False,
    device_listen: DeviceListen = None,
    operator_listen: OperatorListen = None,
    enrol_listen: EnrolListen = None,
) -> None:
    """Serve devices and operators until interrupted."""
    from dataclasses import replace

    from sealift.server.app import SystemChance, SystemClock, build
    from sealift.server.directory import exclusive, open_directory

    clock = SystemClock()
    opened = open_directory(directory, clock.now())
    config = replace(
        opened.config,
        device_listen=device_listen or opened.config.device_listen,
        operator_listen=operator_listen or opened.config.operator_listen,
        enrol_listen=enrol_listen or opened.config.enrol_listen,
    )
    with exclusive(opened.layout), _bound(config) as bound:
        config = replace(
            config,
            device_listen=_name(bound["device"]),
            operator_listen=_name(bound["operator"]),
            enrol_listen=_name(bound["enrol"]),
        )
        server = build(replace(opened, config=config), clock, SystemChance())
        try:
            asyncio.run(_serve(server, bound, as_json=as_json))
        finally:
            server.close()


@contextmanager
def _bound(config: Config) -> Iterator[dict[str, socket]]:
    """A listening socket per listener."""
    from sealift.server.config import address
    from sealift.server.listen import bind

    with (
        bind(*address(config.device_listen)) as device,
        bind(*address(config.operator_listen)) as operator,
        bind(*address(config.enrol_listen)) as enrol,
    ):
        yield {"device": device, "operator": operator, "enrol": enrol}


def _name(bound: socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _serve(server: Server, bound: dict[str, socket], *, as_json: bool) -> None:
    from sealift.server import listen
    from sealift.server.config import url

    listen.prepare_process()
    layout, config = server.layout, server.config
    pair = layout.certificate("tls-server"), layout.key("tls-server")
    devices = layout.certificate("device-ca")
    contexts = {
        "device": listen.tls_context(*pair, client_authority=devices),
        "operator": listen.tls_context(*pair),
        "enrol": listen.tls_context(*pair, client_authority=devices, lenient=True),
    }
    apps = {
        "device": server.device,
        "operator": server.operator,
        "enrol": server.enrolment,
    }

    def ready() -> None:
        found = {
            "device": url(config, config.device_listen),
            "operator": url(config, config.operator_listen),
            "enrol": url(config, config.enrol_listen),
        }
        if as_json:
            print_json(found)
        else:
            facts({f"{name} listener": url for name, url in found.items()})
            note("stop with Ctrl-C")
        sys.stdout.flush()

    await listen.serve(
        *(
            listen.Listener(apps[name], at, contexts[name])
            for name, at in bound.items()
        ),
        background=server.background,
        ready=ready,
        stop=asyncio.Event(),
    )


@app.command("status")
def status(directory: Directory, as_json: Json = False) -> None:
    """Check a server's directory and show what it holds; it need not run."""
    from sealift.server.app import SystemChance, SystemClock, open_means
    from sealift.server.directory import open_directory
    from sealift.server.services import audit, devices, metadata, releases

    clock = SystemClock()
    opened = open_directory(directory, clock.now())
    means = open_means(opened, clock, SystemChance())
    session = means.store.reader
    found: dict[str, object] = {
        "directory": str(opened.layout.root),
        "device_listen": opened.config.device_listen,
        "operator_listen": opened.config.operator_listen,
        "enrol_listen": opened.config.enrol_listen,
        "devices": len(devices.all_devices(session)),
        "releases": len(releases.all_releases(session)),
        "audit_leaves": audit.size(session),
        "content_key_id": opened.content.kid,
    }
    for repository in ("director", "image"):
        root = metadata.newest(session, repository, "root")
        found[f"{repository}_root"] = None if root is None else root.version
    means.store.close()
    show(
        found,
        as_json=as_json,
        text=lambda: facts({n.replace("_", " "): v for n, v in found.items()}),
    )


@app.command("backup")
def back_up(
    directory: Directory,
    out: Annotated[
        Path,
        typer.Option("--out", help="A new directory, or one with an earlier backup."),
    ],
    without_keys: Annotated[
        bool,
        typer.Option("--without-keys", help="Leave the keys out: they lie elsewhere."),
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Keep all of a server in a directory elsewhere; it may run meanwhile.

    Private keys are encrypted with a passphrase. Into a directory with an earlier
    backup only new containers are copied.
    """
    from importlib.metadata import version

    from sealift.server.app import SystemChance, SystemClock
    from sealift.server.backup import backup

    secret = None
    if not without_keys:
        asked = "passphrase for the keys in the backup"
        secret = read_secret(asked, passphrase_file, twice=True)
    with progress(as_json=as_json) as report:
        found = backup(
            directory,
            out,
            SystemClock(),
            SystemChance(),
            version=version("sealift"),
            passphrase=secret,
            progress=report,
        )
    made = {
        "backup": str(out),
        "made_at": found.made_at,
        "files": len(found.files),
        "audit_leaves": found.leaves,
        "keys": found.keys,
    }

    def text() -> None:
        facts({name.replace("_", " "): value for name, value in made.items()})
        note(f"try it: sealift server restore {out} --drill")

    show(made, as_json=as_json, text=text)


@app.command("restore")
def bring_back(
    source: Annotated[Path, typer.Argument(help="The backup's directory.")],
    directory: Annotated[
        Path | None, typer.Argument(help="The server's new directory.")
    ] = None,
    is_drill: Annotated[
        bool,
        typer.Option("--drill", help="Restore, look at all of it, throw it away."),
    ] = False,
    passphrase_file: PassphraseFile = None,
    as_json: Json = False,
) -> None:
    """Make a server's directory out of a backup, or try whether it could be made."""
    import time

    from sealift.core.errors import InvalidConfigError
    from sealift.server.app import SystemChance, SystemClock
    from sealift.server.backup import drill, restore

    if is_drill == (directory is not None):
        raise InvalidConfigError(
            "restore to where?", hint="name the new directory, or give --drill"
        )
    secret = read_secret("passphrase of the keys in the backup", passphrase_file)
    began = time.monotonic()
    clock, chance = SystemClock(), SystemChance()
    with progress(as_json=as_json, unit="files") as report:
        if directory is None:
            found = drill(source, clock, chance, passphrase=secret, progress=report)
        else:
            found = restore(
                source, directory, clock, chance, passphrase=secret, progress=report
            )
    made = {
        "backup": str(source),
        "made_at": found.backup.made_at,
        "containers": found.containers,
        "audit_leaves": found.leaves,
        "seconds": round(time.monotonic() - began, 1),
        "directory": None if directory is None else str(directory),
        "operator_token": None if directory is None else found.operator_token,
    }

    def text() -> None:
        facts({name.replace("_", " "): value for name, value in made.items() if value})
        if directory is not None:
            note("the token is new, and shown this once; older ones are forgotten")
            note(
                "what was done since the backup is not in it: revoke again the devices "
                "and tokens that were revoked, and publish again what is missing"
            )

    show(made, as_json=as_json, text=text)


@token_app.command("rotate")
def rotate(directory: Directory, as_json: Json = False) -> None:
    """Make a new operator token; the old one ends at once."""
    from sealift.server.app import SystemChance, SystemClock, open_means
    from sealift.server.directory import open_directory
    from sealift.server.services import accounts, audit

    clock = SystemClock()
    means = open_means(open_directory(directory, clock.now()), clock, SystemChance())
    token = accounts.rotate_token(means, audit.SYSTEM)
    means.store.close()
    show(
        {"operator_token": token},
        as_json=as_json,
        text=lambda: print(token),
    )
