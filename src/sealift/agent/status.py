"""What `sealift-agent status` shows: offline, without a lock, beside a running agent.

Only reads. What cannot be read becomes a remark, so that one damaged record does not
hide the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from sealift.agent import history, identity, keys, machine, outbox, runtime
from sealift.agent.machine import Idle, State
from sealift.core.errors import SealiftError
from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sealift.agent.config import Component, Config
    from sealift.agent.journal import Floors
    from sealift.agent.ports import BootControl, BootState, Clock, Readable
    from sealift.core.types import Artifact

Json = dict[str, object]
T = TypeVar("T")


class Status:
    """Collects the facts; ``remarks`` are what could not be read, in words."""

    def __init__(self, config: Config, records: Readable, clock: Clock) -> None:
        self._config = config
        self._records = records
        self._clock = clock
        self.remarks: list[str] = []

    def collect(
        self,
        states: Callable[[], Mapping[str, State]],
        floors: Floors,
        boot: BootControl,
        versions: Callable[[], Json],
        root_hash: Callable[[], str | None] = lambda: None,
    ) -> Json:
        """Everything as one JSON object.

        ``root_hash`` tells the dm-verity root that runs, if the kernel was told one.
        """
        found = self._try(states) or {}
        floors.heed(found)
        self.remarks += self._try(lambda: floors.remarks(found)) or ()
        return {
            "device_id": self._config.device_id,
            "key_store": keys.kind(self._config.report_key),
            "components": [
                self._component(part, found.get(part.ecu_id, Idle()), floors, boot)
                for part in self._config.components
            ],
            "root_hash": self._try(root_hash),
            "trusted_versions": self._try(versions),
            "reports": self._try(self._reports),
            "certificate": self._try(self._certificate),
            "last_failure": self._try(self._last_failure),
            "agent": runtime.read(self._config),
            "remarks": self.remarks,
        }

    def _component(
        self,
        part: Component,
        state: State,
        floors: Floors,
        boot: BootControl,
    ) -> Json:
        loader = self._try(boot.state)
        if loader is not None:
            self.remarks.extend(loader.remarks)
            self.remarks.extend(f"the boot loader: {it}" for it in loader.missing)
        found: Json = {
            "ecu_id": part.ecu_id,
            "hardware_id": part.hardware_id,
            "running": self._try(lambda: str(boot.current())),
            "next_start": self._try(lambda: str(boot.next())),
            "slots": {str(s): loader.slots.get(s) for s in Slot} if loader else None,
            "loader": named(loader) if loader else None,
            "release_floor": self._try(lambda: floors.floor(part.ecu_id)),
        }
        if part.factory and state == Idle():
            self.remarks.append(
                f"what {part.ecu_id} holds is unknown: {part.factory} was not compared "
                "with the running slot yet, or is not what it holds"
            )
        return {**found, **described(state)}

    def _reports(self) -> Json:
        found = outbox.look(self._records)
        return {"waiting": found.waiting, "last_refusal": found.last_refusal}

    def _certificate(self) -> Json:
        found = identity.certificate(self._config)
        if remark := found.remark(self._clock.now()):
            self.remarks.append(remark)
        return {
            "subject": found.subject,
            "not_before": found.not_before.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "not_after": found.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }

    def _last_failure(self) -> Json | None:
        entries = history.read(self._records)
        failed = [e for e in entries if e.get("verdict") != "succeeded"]
        return failed[-1] if failed else None

    def _try(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except SealiftError as error:
            self.remarks.append(f"{error.message} [{error.code}]")
            return None


def named(loader: BootState) -> Json:
    """Which loader it is, and what it lacks for its duties."""
    return {
        "name": loader.loader,
        "version": loader.version or None,
        "counts_attempts": loader.counts_attempts,
        "missing": list(loader.missing),
    }


def described(state: State) -> Json:
    """A component's state in words and numbers."""
    found: Json = {
        "state": machine.name(state),
        "installed": _release(machine.installed(state)),
    }
    if isinstance(state, Idle):
        if state.refused is not None:
            found["refused_sha256"] = state.refused.sha256.hex()
        return found
    attempt = state.attempt
    found["pending"] = {
        **(_release(attempt.order.artifact) or {}),
        "into_slot": str(attempt.slot),
        "attempt": attempt.id,
    }
    return found


def _release(image: Artifact | None) -> Json | None:
    if image is None:
        return None
    return {
        "release": image.version,
        "counter": image.release_counter,
        "image": image.name,
        "sha256": image.sha256.hex(),
    }
