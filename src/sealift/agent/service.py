"""``sealift-agent run``: the light parent and the children it sends to work."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from sealift.agent import child, log, runtime, wiring
from sealift.agent.clock import SystemClock
from sealift.agent.daemon import Daemon, Pace
from sealift.agent.signals import Signals
from sealift.agent.storage import Forgiving, Overlay, claim
from sealift.agent.trust import Verifier

if TYPE_CHECKING:
    from sealift.agent.child import Ended, Summary
    from sealift.agent.config import Config


def serve(config: Config) -> int:
    """Poll until told to stop; 0, or 75 when a restart is wanted.

    Raises:
        BusyError: another agent works with this state. SealiftError: configuration,
        trust anchors, keys or the state directory cannot be used.
    """
    clock = SystemClock()
    directory = claim(config.state)
    floor = wiring.BUILD_TIME.timestamp()
    way = wiring.transport(config, clock, lambda: floor)
    kept = Forgiving(Overlay(directory), lambda _: None)  # a child tells of it
    verifier = Verifier(way, kept, clock, wiring.provision(config))
    signals = Signals()

    def work() -> Ended:
        way.close()  # no child may talk on a connection of its parent
        ended = child.run(lambda own: _cycle(config, directory, own), signals)
        while ended.summary.get("leaves") and not signals.stopping:
            ended = child.run(
                lambda own: _cycle(config, directory, own, goes_on=True), signals
            )
        return ended

    log.info(
        "start", device=config.device_id, server=config.server.url, pid=os.getpid()
    )
    try:
        return Daemon(
            verifier.poll,
            work,
            clock,
            signals,
            Pace(config.server.poll_seconds, config.server.poll_jitter),
            _chance,
            lambda facts: runtime.note(config, facts),
        ).run()
    finally:
        signals.ignore_hints()
        os.close(directory)


def _chance() -> float:
    return int.from_bytes(os.urandom(7), "big") / 2**56


def _cycle(
    config: Config, directory: int, signals: Signals, *, goes_on: bool = False
) -> Summary:
    from sealift.agent.assembly import cycle

    check = signals.end_if_stopping
    return cycle(config, directory, check, frugal=True, goes_on=goes_on).run()
