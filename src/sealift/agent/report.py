"""What this device says of itself after a cycle: one signed manifest (M1 to M6, M11).

Only the facts are gathered here. Their form and their signature are ``core.reports``
and ``core.manifest``; storing and sending them is ``outbox``. There is one key, the
Primary's, and it signs for the components it installs itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.agent import machine
from sealift.agent.machine import Idle
from sealift.core.hpke import KEMS
from sealift.core.manifest import sign_manifest, sign_report
from sealift.core.reports import (
    NONCE_BYTES,
    EcuReport,
    Installed,
    Manifest,
    Pending,
    Result,
)
from sealift.core.types import SEAL_ALGORITHM

if TYPE_CHECKING:
    from sealift.agent.machine import State
    from sealift.agent.outbox import Link, Outbox
    from sealift.agent.ports import DeviceKey
    from sealift.agent.trust import Standing
    from sealift.core.errors import SealiftError
    from sealift.core.types import Artifact


ABILITIES = ("delta/1", SEAL_ALGORITHM, *KEMS)
"""What this agent can do with payloads; the server offers nothing else."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt of one component that is over: how, and what it runs now."""

    ecu_id: str
    result: Result
    installed: Artifact | None


@dataclass(frozen=True, slots=True)
class News:
    """What a report has to tell beside the standing facts; ``None`` is nothing."""

    error: SealiftError | None = None
    """What was refused in this cycle (M5)."""
    ended: Ended | None = None
    remarks: tuple[str, ...] = ()
    """Oddities of this cycle that were no errors (A-08)."""


@dataclass(frozen=True, slots=True)
class Self:
    """What never changes: the names of the device, and what it can verify."""

    device_id: str
    units: Mapping[str, str]
    """ECU id → hardware id; the first is the Primary."""
    crypto: str
    agent: str
    key_store: str = "file"


class Reporter:
    """Makes reports for the outbox. ``chance(n)`` gives n random bytes.

    ``kid`` names the decryption key there is now, if there is a usable one.
    """

    def __init__(
        self,
        who: Self,
        key: DeviceKey,
        outbox: Outbox,
        chance: Callable[[int], bytes],
        kid: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._who = who
        self._kid = kid
        self._key = key
        self._outbox = outbox
        self._chance = chance

    def produce(
        self,
        states: Mapping[str, State],
        standing: Standing,
        news: News,
        beside: dict[str, bytes | None] | None = None,
    ) -> None:
        """Make one report and store it, with ``beside`` in the same durable step.

        The counter is stored with the report, before it is used by sending (M6, M12).

        Raises:
            StateError, SpaceError: it was not stored. LimitError: it is too large.
        """
        link, nonce = self._outbox.link(), self._chance(NONCE_BYTES)
        reports = tuple(
            self._ecu(ecu_id, states.get(ecu_id, Idle()), standing, (link, nonce), news)
            for ecu_id in self._who.units
        )
        signed = {r.ecu_id: sign_report(r, self._key) for r in reports}
        manifest = Manifest(
            device_id=self._who.device_id,
            primary=next(iter(self._who.units)),
            counter=link.counter,
            nonce=nonce,
            previous=link.previous,
            gap=link.gap,
            now=standing.now,
            time_source=standing.time_source,
            versions=standing.versions,
            crypto=self._who.crypto,
            key_store=self._who.key_store,
            agent=self._who.agent,
            reports=reports,
            abilities=ABILITIES,
            kid=self._kid(),
        )
        self._outbox.add(link, sign_manifest(manifest, signed, self._key), beside)

    def _ecu(
        self,
        ecu_id: str,
        state: State,
        standing: Standing,
        once: tuple[Link, bytes],
        news: News,
    ) -> EcuReport:
        ended = news.ended
        if ended is not None and ended.ecu_id != ecu_id:
            ended = None
        image = ended.installed if ended else machine.installed(state)
        error = news.error
        return EcuReport(
            ecu_id=ecu_id,
            hardware_id=self._who.units[ecu_id],
            installed=None if image is None else _image(image),
            time=standing.metadata_time,
            counter=once[0].counter,
            nonce=once[1],
            attack=error.code if error else None,
            detail=error.message if error else "; ".join(news.remarks),
            pending=None if ended else _pending(state),
            results=(ended.result,) if ended else (),
        )


def _image(image: Artifact) -> Installed:
    return Installed(
        image.name, image.length, image.sha256, image.version, image.release_counter
    )


def _pending(state: State) -> Pending | None:
    if isinstance(state, Idle):
        return None
    order = state.attempt.order
    return Pending(
        order.artifact.sha256,
        order.director_version,
        machine.name(state),
        order.deployment,
    )
