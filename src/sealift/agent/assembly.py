"""The working process put together: everything one full cycle needs.

Imported where work is done only: in a child of ``run``, and in ``check``.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from sealift.agent import log, wiring
from sealift.agent.clock import SystemClock
from sealift.agent.cycle import Cycle, Parts, Stoppable
from sealift.agent.keyfile import FileKey
from sealift.agent.outbox import Outbox
from sealift.agent.ports import Progress
from sealift.agent.report import Reporter
from sealift.agent.storage import Forgiving, Store
from sealift.agent.trust import Verifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.config import Config


def cycle(
    config: Config,
    directory: int,
    check: Callable[[], None],
    progress: Progress | None = None,
) -> Cycle:
    """One cycle over the claimed state ``directory``.

    Raises:
        SealiftError: keys, anchors, state or configuration cannot be used.
    """
    clock, storage = SystemClock(), Store(directory)
    provision = wiring.provision(config)
    floor = provision.build_time.timestamp()
    way = Stoppable(wiring.transport(config, clock, lambda: floor), check)
    kept = Forgiving(storage, lambda error: log.failed("state", error))
    verifier = Verifier(way, kept, clock, provision)
    key = FileKey(config.report_key)
    outbox = Outbox(storage, int(verifier.standing().now.timestamp()))
    return Cycle(
        Parts(
            component=wiring.component(config, way, clock, progress or Progress()),
            journal=wiring.journal(config),
            floors=wiring.floors(config),
            storage=storage,
            way=way,
            verifier=verifier,
            reporter=Reporter(wiring.myself(config), key, outbox, secrets.token_bytes),
            outbox=outbox,
            clock=clock,
            policy=wiring.gate(config),
            check=check,
        )
    )
