"""``sealift-agent run``: the light parent and the children it sends to work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sealift.agent import child, life, log, runtime, wiring
from sealift.agent.clock import SystemClock
from sealift.agent.daemon import Daemon, Pace
from sealift.agent.seal import UNKEYED, Seal
from sealift.agent.signals import Signals
from sealift.agent.storage import Forgiving, Overlay, claim
from sealift.agent.trust import Verifier
from sealift.agent.watchdog import DeviceDog, Dog, Guard, ManagerDog
from sealift.core.errors import SealiftError, StateError

if TYPE_CHECKING:
    from sealift.agent.child import Ended, Summary
    from sealift.agent.config import Config
    from sealift.agent.daemon import Facts
    from sealift.agent.notify import Manager
    from sealift.agent.transport import HttpsTransport


def serve(config: Config, manager: Manager | None = None) -> int:
    """Poll until told to stop; 0, or 75 when a restart is wanted.

    ``manager`` is the service manager that started us. It hears that we are ready as
    soon as configuration and keys were read and the state is ours.

    Raises:
        BusyError: another agent works with this state. SealiftError: configuration,
        trust anchors, keys or the state directory cannot be used.
    """
    clock = SystemClock()
    directory = claim(config.state)
    floor = wiring.BUILD_TIME.timestamp()
    way = wiring.transport(config, clock, lambda: floor)
    signals = Signals()
    guard = Guard(_dogs(config, manager), clock.monotonic)
    life.listen(guard)
    seal = _seal(config, signals, guard)
    kept = Forgiving(Overlay(directory, seal), lambda _: None)  # a child tells of it
    verifier = Verifier(way, kept, clock, wiring.provision(config))
    tell = manager.tell if manager else _nobody

    def work() -> Ended:
        tell("STATUS=working")
        way.close()  # no child may talk on a connection of its parent
        ended = child.run(
            lambda own: _cycle(config, directory, seal, own), signals, guard
        )
        while ended.summary.get("leaves") and not signals.stopping:
            ended = child.run(
                lambda own: _cycle(config, directory, seal, own, goes_on=True),
                signals,
                guard,
            )
        if ended.summary.get("renewed"):
            _reload(config, way)
        return ended

    def note(facts: Facts) -> None:
        runtime.note(config, facts)
        tell(f"STATUS={_status(facts)}")

    log.info(
        "start", device=config.device_id, server=config.server.url, pid=os.getpid()
    )
    tell("READY=1", "STATUS=started")
    try:
        status = Daemon(
            verifier.poll,
            work,
            clock,
            signals,
            Pace(config.server.poll_seconds, config.server.poll_jitter),
            _chance,
            note,
        ).run()
        if not status:
            guard.end()
        return status
    finally:
        tell("STOPPING=1")
        life.listen(None)
        signals.ignore_hints()
        os.close(directory)


def _reload(config: Config, way: HttpsTransport) -> None:
    """Poll under the certificate that the child has just brought into use."""
    try:
        way.reload(wiring.tls_files(config))
    except SealiftError as error:
        log.failed("renewal", error)


def _dogs(config: Config, manager: Manager | None) -> list[Dog]:
    dogs: list[Dog] = []
    if manager is not None and manager.seconds:
        dogs.append(ManagerDog(manager.seconds, manager.tell))
    if config.watchdog.device:
        dogs.append(DeviceDog(config.watchdog.device, config.watchdog.seconds))
    return dogs


def _nobody(*_: str) -> None:
    """No service manager: nobody is told."""


def _status(facts: Facts) -> str:
    said = "waiting for the next poll" if facts.next_poll else "started"
    return said + (f"; last error {facts.last_error}" if facts.last_error else "")


def _chance() -> float:
    return int.from_bytes(os.urandom(7), "big") / 2**56


def _seal(config: Config, signals: Signals, guard: Guard) -> Seal:
    """The seal of the state. A child asks file, TPM or token: we stay small.

    Raises:
        StateError: a key is configured, and cannot be had.
    """
    if not config.state_key:
        return UNKEYED
    ended = child.run(
        lambda _: {"key": (wiring.seal(config).key or b"").hex()}, signals, guard
    )
    key = ended.summary.get("key")
    if not isinstance(key, str):
        raise StateError(
            "the key the state is sealed with cannot be had",
            hint="the log says why; sealift-agent config-check says it, too",
            reason=str(ended.summary.get("error")),
        )
    return Seal(bytes.fromhex(key))


def _cycle(
    config: Config,
    directory: int,
    seal: Seal,
    signals: Signals,
    *,
    goes_on: bool = False,
) -> Summary:
    from sealift.agent.assembly import cycle

    check = signals.end_if_stopping
    return cycle(
        config, directory, check, frugal=True, goes_on=goes_on, seal=seal
    ).run()
