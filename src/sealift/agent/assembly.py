"""The working process put together: everything one full cycle needs.

Imported where work is done only: in a child of ``run``, and in ``check``.
"""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from sealift.agent import keys, log, wiring
from sealift.agent.clock import SystemClock
from sealift.agent.cycle import Cycle, Parts, Stoppable
from sealift.agent.outbox import Outbox
from sealift.agent.ports import Progress
from sealift.agent.renewal import Renewal
from sealift.agent.report import Reporter
from sealift.agent.seal import UNKEYED, Seal
from sealift.agent.storage import Forgiving, Store
from sealift.agent.trust import Verifier
from sealift.core.errors import SealiftError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from sealift.agent.config import Config
    from sealift.agent.ports import Clock, Counter, DeviceKey, Storage, Transport
    from sealift.agent.renewal import Outcome
    from sealift.agent.trust import Provision


def cycle(
    config: Config,
    directory: int,
    check: Callable[[], None],
    progress: Progress | None = None,
    *,
    frugal: bool = False,
    goes_on: bool = False,
    seal: Seal = UNKEYED,
) -> Cycle:
    """One cycle over the claimed state ``directory``.

    A ``frugal`` one that has verified signatures ends before it would fill a slot, and
    wants to be followed by one that ``goes_on``: ``cryptography`` and the buffers of an
    install are never in one process.

    Raises:
        SealiftError: keys, anchors, state or configuration cannot be used.
    """
    clock, provision = SystemClock(), wiring.provision(config)
    floor = provision.build_time.timestamp()
    way = Stoppable(wiring.transport(config, clock, lambda: floor), check)
    around = Around(way, clock, check, secrets.token_bytes, progress or Progress())
    found = parts(config, provision, Store(directory, seal=seal), around)
    if frugal:
        found = replace(found, laden=lambda: _HEAVY in sys.modules)
    if not goes_on:  # a process that fills a slot does without cryptography
        found = replace(found, renew=_renewal(config, found.storage, clock, floor))
    return Cycle(found, goes_on=goes_on)


def _renewal(
    config: Config, storage: Storage, clock: Clock, floor: float
) -> Callable[[datetime, bool], Outcome]:
    renewal = Renewal(
        config,
        storage,
        lambda url, files: wiring.connection(config, clock, lambda: floor, url, files),
    )
    return lambda now, troubled: renewal.run(now, troubled=troubled)


_HEAVY = "cryptography.hazmat.bindings._rust"
"""What nearly all of cryptography's memory is, 9 MiB."""


@dataclass(frozen=True, slots=True)
class Around:
    """What the world around the agent is made of; a simulation has another one."""

    way: Transport
    clock: Clock
    check: Callable[[], None]
    chance: Callable[[int], bytes]
    progress: Progress
    hardware: Mapping[str, Counter] | None = None
    """Counters in place of those the configuration names."""


def parts(
    config: Config, provision: Provision, storage: Store, around: Around
) -> Parts:
    """The parts of one cycle; its records are sealed as the store is.

    Raises:
        SealiftError: the report key or the state cannot be used.
    """
    way, clock = around.way, around.clock
    kept = Forgiving(storage, lambda error: log.failed("state", error))
    verifier = Verifier(way, kept, clock, provision)
    key = _Later(lambda: keys.report_key(config.report_key, config.tpm))
    floors = wiring.floors(config, storage.seal, around.hardware)
    least = int(verifier.standing().now.timestamp())
    outbox = Outbox(storage, least, floors.counted)
    return Parts(
        component=wiring.component(config, way, clock, around.progress, storage.seal),
        journal=wiring.journal(config, storage.seal),
        floors=floors,
        storage=storage,
        way=way,
        verifier=verifier,
        reporter=Reporter(
            wiring.myself(config), key, outbox, around.chance, lambda: _kid(config)
        ),
        outbox=outbox,
        clock=clock,
        policy=wiring.gate(config),
        check=around.check,
    )


def _kid(config: Config) -> str | None:
    """The name of the decryption key; a spoilt one is no reason not to report."""
    if not config.decryption_key:
        return None
    try:
        return keys.kid(keys.decryption_key(config.decryption_key, config.tpm))
    except SealiftError as error:
        log.failed("decryption-key", error)
        return None


class _Later:
    """The device's key, read when it is first needed: a slot is filled without it."""

    def __init__(self, make: Callable[[], DeviceKey]) -> None:
        self._make = make

    @cached_property
    def _key(self) -> DeviceKey:
        return self._make()

    @property
    def key_id(self) -> str:
        return self._key.key_id

    def public(self) -> Mapping[str, object]:
        return self._key.public()

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data)
