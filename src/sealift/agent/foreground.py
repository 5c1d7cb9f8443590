"""The commands that end: ``check``, ``status``, ``history``, ``config-check``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sealift.agent import child, history, identity, keys, loaders, show, wiring
from sealift.agent.clock import SystemClock
from sealift.agent.cycle import settled
from sealift.agent.mounted import root_hash
from sealift.agent.ports import Progress
from sealift.agent.seal import UNKEYED, Seal
from sealift.agent.signals import Signals
from sealift.agent.status import Status, described, named
from sealift.agent.storage import Overlay, Records, claim, look
from sealift.agent.trust import Verifier
from sealift.core.errors import BootError, SealiftError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.agent.config import Config
    from sealift.agent.machine import State
    from sealift.core.types import Instruction

Json = dict[str, object]


# ── check ────────────────────────────────────────────────────────────────────────────
def check(config: Config, *, as_json: bool) -> int:
    """One full cycle now; 0, 75 if a restart is wanted, or the status of its error.

    Raises:
        BusyError: ``run`` works with this state; ``SIGUSR1`` makes it check.
    """
    from sealift.agent.assembly import cycle

    directory = claim(config.state)
    signals = Signals()
    try:
        found = cycle(
            config,
            directory,
            signals.end_if_stopping,
            _progress(quiet=as_json),
            seal=wiring.seal(config),
        )
        restart = 0
        try:
            found.run()
        except SystemExit as request:
            restart = request.code if isinstance(request.code, int) else 0
    finally:
        os.close(directory)
    _show_check(found.states, found.error, restart, as_json=as_json)
    return restart or (found.error.exit_status if found.error else 0)


def _show_check(
    states: Mapping[str, State],
    error: SealiftError | None,
    restart: int,
    *,
    as_json: bool,
) -> None:
    value: Json = {
        "components": {ecu: described(state) for ecu, state in states.items()},
        "restart": restart == child.RESTART,
        "error": error.to_json() if error else None,
    }
    if as_json:
        show.value(value)
        return
    show.facts({"components": value["components"], "restart wanted": value["restart"]})
    if error is not None:
        show.error(error, as_json=False)


def _progress(*, quiet: bool) -> Progress:
    """One line per tenth of a long step."""
    if quiet:
        return Progress()
    last: dict[str, int] = {}

    def report(step: str, done: int, total: int) -> None:
        tenth = 10 * done // total if total else 10
        if last.get(step) != tenth:
            last[step] = tenth
            show.note(f"{step}: {tenth * 10} % of {total} bytes")

    return Progress(report)


def dry_run(config: Config, *, as_json: bool) -> int:
    """Verify what the server orders and say what would be installed; writes nothing.

    Raises:
        SealiftError: why nothing of it would be installed.
    """
    clock, seal, directory = SystemClock(), wiring.seal(config), _reading(config)
    floor = wiring.BUILD_TIME.timestamp()
    way = wiring.transport(config, clock, lambda: floor)
    try:
        kept = Overlay(directory, seal)
        verifier = Verifier(way, kept, clock, wiring.provision(config))
        states = wiring.journal(config, seal).read()
        floors = wiring.floors(config, seal)
        floors.heed(states)
        lowest = {part.ecu_id: floors.floor(part.ecu_id) for part in config.components}
        orders = verifier.check(lowest, settled(states)).instructions
    finally:
        way.close()
        if directory is not None:
            os.close(directory)
    found: Json = {"would_install": [_order(order) for order in orders]}
    if as_json:
        show.value(found)
    elif orders:
        show.facts(found)
    else:
        show.note("nothing to install")
    return 0


def _order(order: Instruction) -> Json:
    return {
        "component": order.ecu_id,
        "release": order.artifact.version,
        "counter": order.artifact.release_counter,
        "image": order.artifact.name,
        "bytes": order.artifact.length,
        "sha256": order.artifact.sha256.hex(),
    }


# ── reading ──────────────────────────────────────────────────────────────────────────
def status(config: Config, *, as_json: bool) -> int:
    """Everything this device knows of itself, offline."""
    clock, directory = SystemClock(), _reading(config)
    seal, remark = _seal(config)
    facts = Status(config, _records(directory, seal), clock)
    facts.remarks += remark
    found = facts.collect(
        wiring.journal(config, seal).read,
        wiring.floors(config, seal),
        loaders.boot(config),
        lambda: _standing(config, directory, seal),
        root_hash,
    )
    if as_json:
        show.value(found)
    else:
        show.facts(found)
    return 0


def _seal(config: Config) -> tuple[Seal, list[str]]:
    """The seal; without it nothing of the state is shown, and the rest all the same."""
    try:
        return wiring.seal(config), []
    except SealiftError as error:
        return UNKEYED, [f"{error.message} [{error.code}]"]


def _standing(config: Config, directory: int | None, seal: Seal) -> Json:
    clock = SystemClock()
    way = wiring.Offline()
    found = Verifier(
        way, Overlay(directory, seal), clock, wiring.provision(config)
    ).standing()
    return {
        "now": found.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "time_source": found.time_source,
        **{name: dict(versions) for name, versions in found.versions.items()},
    }


def past(config: Config, *, as_json: bool) -> int:
    """The last attempts and refusals, oldest first."""
    entries = history.read(_records(_reading(config), wiring.seal(config)))
    if as_json:
        show.value(entries)
        return 0
    columns = ("at", "kind", "release", "verdict", "code", "detail")
    show.table(columns, [[entry.get(name) for name in columns] for entry in entries])
    return 0


def config_check(config: Config, *, as_json: bool) -> int:
    """Read everything ``run`` needs, and say that it can be used.

    With 5, device.boot, for a loader that lacks something for its duties (device-D23).

    Raises:
        SealiftError: the first thing that cannot.
    """
    wiring.provision(config)
    wiring.gate(config)
    for part in config.components:
        identity.factory_image(part)
    key = keys.report_key(config.report_key, config.tpm)
    place = config.decryption_key
    kid = keys.kid(keys.decryption_key(place, config.tpm)) if place else None
    seal = wiring.seal(config)
    for part in config.components:
        if counter := keys.counter(part.counter, config.tpm):
            counter.value()
    wiring.transport(config, SystemClock(), lambda: 0.0).close()
    remark = identity.certificate(config).remark(SystemClock().now())
    remarks = [remark] if remark else []
    loader, error = _loader(config, remarks)
    found: Json = {
        "config": config.path,
        "device_id": config.device_id,
        "key_store": keys.kind(config.report_key),
        "report_key_id": key.key_id,
        "decryption_key_id": kid,
        "store_key_id": seal.key_id.decode() or None,
        "loader": loader,
        "remarks": remarks,
        "error": error.to_json() if error else None,
    }
    if as_json:
        show.value(found)
    else:
        show.facts({name: it for name, it in found.items() if name != "error"})
        if error is not None:
            show.error(error, as_json=False)
    return error.exit_status if error else 0


def _loader(config: Config, remarks: list[str]) -> tuple[Json | None, BootError | None]:
    """What the loader of this board says, and why it cannot do its duties.

    That of a microcontroller is asked when it is there: not here.

    Raises:
        BootError, MissingToolError: it cannot be asked, or what runs is not known.
    """
    if config.components[0].link:
        return None, None
    boot = loaders.boot(config)
    state = boot.state()
    remarks += state.remarks
    running = None
    try:
        running = boot.current().value
    except BootError as unknown:
        if config.boot.kind != "file":  # whose loader says it when it starts the board
            raise
        remarks.append(unknown.message)
    found = named(state) | {
        "slots": {slot.value: state.slots[slot] for slot in state.slots},
        "running": running,
        "next_start": boot.next().value,
    }
    if not state.missing:
        return found, None
    return found, BootError(
        f"the boot loader cannot do its duties: {'; '.join(state.missing)}",
        hint="no update is begun with it; see docs/integrating.md",
    )


def _reading(config: Config) -> int | None:
    """The state directory for reading; ``None`` before the first start."""
    return look(config.state) if os.path.lexists(config.state) else None


def _records(directory: int | None, seal: Seal) -> Records | Overlay:
    if directory is None:
        return Overlay(directory)
    return Records(directory, seal=seal)
