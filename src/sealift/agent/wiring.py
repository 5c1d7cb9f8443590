"""The composition root's parts list: configuration in, wired parts out.

Only here and in its neighbours ``service``, ``assembly`` and ``foreground`` do the
adapters meet. Each function makes one part and imports what it is made of, so a face
loads no more than it needs: ``status`` opens no socket, the polling parent has neither
``cryptography`` nor an installer in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sealift.agent import identity, life, loaders, log, runtime
from sealift.agent.seal import UNKEYED, Seal
from sealift.agent.surroundings import ENVIRONMENT
from sealift.agent.transport import HttpsTransport, Limits, TlsFiles
from sealift.agent.trust import Provision
from sealift.core.errors import (
    BootError,
    FailedTransferError,
    ForbiddenError,
    InvalidConfigError,
    SealiftError,
)
from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sealift.agent.config import Component as Part
    from sealift.agent.config import Config
    from sealift.agent.gate import Policy
    from sealift.agent.install.ab import AbInstaller
    from sealift.agent.install.mcu import McuInstaller
    from sealift.agent.journal import Floors, Journal
    from sealift.agent.ports import (
        Answer,
        Clock,
        Counter,
        Fill,
        Moved,
        Progress,
        SlotDevice,
        Transport,
    )
    from sealift.agent.record import Record
    from sealift.agent.report import Self
    from sealift.agent.shell import Component
    from sealift.agent.slot import PathSlots, WorkFiles
    from sealift.core.types import Artifact, Instruction

BUILD_TIME = datetime(2026, 11, 1, tzinfo=UTC)
"""When this agent was made, set with each release; the time is never believed to be
earlier (1.4 of ``uptane.md``)."""

AGENT = "sealift-agent 0.1.0"
"""What a report calls this agent; a test compares it with the distribution."""

RESTART_SECONDS = 60.0
"""How long the program that restarts the machine may take to return."""


def seal(config: Config) -> Seal:
    """What the state is sealed with.

    Raises:
        SealiftError: a key is configured, and cannot be had.
    """
    if not config.state_key:
        return UNKEYED
    from sealift.agent import keys

    return Seal(keys.store_key(config.state_key, config.tpm))


def journal(config: Config, seal: Seal = UNKEYED) -> Journal:
    """The states of all components."""
    from sealift.agent.journal import Journal

    return Journal(_record(config, "journal", "journal", seal))


def floors(
    config: Config,
    seal: Seal = UNKEYED,
    hardware: Mapping[str, Counter] | None = None,
) -> Floors:
    """The counter floors, kept in files and in what hardware counters there are.

    ``hardware`` stands for those that the configuration names.
    """
    from sealift.agent import keys
    from sealift.agent.journal import Floors

    if hardware is None:
        named = ((it.ecu_id, it.counter) for it in config.components)
        found = {ecu: keys.counter(place, config.tpm) for ecu, place in named}
        hardware = {ecu: it for ecu, it in found.items() if it is not None}
    return Floors(_record(config, "floors", "counter floors", seal), hardware)


def _record(config: Config, name: str, what: str, seal: Seal) -> Record:
    from sealift.agent.journal import JOURNAL_BYTES
    from sealift.agent.record import FileCells, Record

    cells = FileCells(config.state, name)
    return Record(cells, limit=JOURNAL_BYTES, what=what, seal=seal)


def provision(config: Config) -> Provision:
    """Whom this device believes.

    Raises:
        TrustAnchorError: a trust anchor cannot be used (B-14).
    """
    found = identity.anchors(config)
    return Provision(
        device_id=config.device_id,
        units={part.ecu_id: part.hardware_id for part in config.components},
        anchors={"director": found.director, "image": found.image},
        build_time=BUILD_TIME,
        demo_keys=config.demo_keys,
    )


def myself(config: Config) -> Self:
    """What every report says of this device. Loads ``cryptography``."""
    from importlib.util import find_spec

    from sealift.agent import keys
    from sealift.agent.report import Self

    pq = find_spec("cryptography.hazmat.primitives.asymmetric.mldsa")
    return Self(
        device_id=config.device_id,
        units={part.ecu_id: part.hardware_id for part in config.components},
        crypto="hybrid" if pq else "classic",
        agent=AGENT,
        key_store=keys.kind(config.report_key),
    )


def transport(
    config: Config, clock: Clock, floor: Callable[[], float]
) -> HttpsTransport:
    """The way to the server; ``floor`` is the least the time can be, Unix seconds.

    Raises:
        InvalidConfigError, KeyUnreadableError, TrustAnchorError: a TLS file is missing,
        wrong, or open to others.
    """
    return connection(config, clock, floor, config.server.url, tls_files(config))


def tls_files(config: Config) -> TlsFiles:
    """Whom to believe, and who we are, checked.

    Raises:
        InvalidConfigError, KeyUnreadableError, TrustAnchorError: see ``identity``.
    """
    identity.check_tls_files(config)
    return TlsFiles(config.server.ca, *identity.credentials(config))


def connection(
    config: Config,
    clock: Clock,
    floor: Callable[[], float],
    url: str,
    files: TlsFiles,
) -> HttpsTransport:
    """A way to ``url``, with the limits of this device.

    Raises:
        InvalidConfigError, KeyUnreadableError: a TLS file cannot be used.
    """
    limits = config.transfer
    return HttpsTransport(
        url,
        files,
        clock,
        floor=floor,
        limits=Limits(rate_min=limits.minimum_rate, rate_max=limits.rate_max),
    )


class Offline:
    """A way to nowhere, for faces that must not ask anybody."""

    def get(self, *_: Any, **__: Any) -> Answer:
        """Never an answer."""
        raise FailedTransferError("no server is asked here")

    def stream(self, *_: Any, **__: Any) -> Iterator[bytes]:
        """Never an answer."""
        raise FailedTransferError("no server is asked here")

    def put(self, *_: Any, **__: Any) -> bytes:
        """Never an answer."""
        raise FailedTransferError("no server is asked here")


def component(
    config: Config,
    way: Transport,
    clock: Clock,
    progress: Progress,
    seal: Seal = UNKEYED,
) -> Component:
    """The one component of this device: slots, an installer, health checks."""
    from sealift.agent.health import CommandCheck, CommandHealth
    from sealift.agent.payload import clear
    from sealift.agent.shell import Component
    from sealift.agent.slot import WorkFiles

    part, work = config.components[0], WorkFiles(config.state)
    checks = [CommandCheck(c.name, c.command, c.deadline) for c in config.health]
    installer, start_anew = (
        _behind_a_link(config, way, clock, seal) if part.link else _here(config)
    )
    return Component(
        ecu_id=part.ecu_id,
        installer=installer,
        fill=lambda order, base: _fill(config, way, work, progress, order, base),
        restart=start_anew,
        health=CommandHealth(checks, clock),
        factory=(lambda: _factory(part, installer)) if part.factory else None,
        trial_seconds=part.trial_seconds,
        moved=lambda order: _moved(work, order),
        clear=lambda: clear(work),
        on_board=not part.link,
        settled=lambda: _settle(config),
    )


def _settle(config: Config) -> None:
    """Leave word that this start is no trial, if the loader says so as well.

    A lost journal knows of no trial; the loader does.
    """
    if runtime.is_settled(config) or config.components[0].link:
        return
    try:
        loader = loaders.boot(config)
        if loader.state().slots[loader.current()] == "good":
            runtime.settle(config)
    except SealiftError as error:
        log.failed("settled", error)


def _here(config: Config) -> tuple[AbInstaller, Callable[[], None]]:
    """The installer of this device itself, and what restarts it."""
    from sealift.agent.install.ab import AbInstaller

    part, loader = config.components[0], loaders.boot(config)
    installer = AbInstaller(
        loader,
        _slots(part),
        loader.boot_id,
        tries=part.tries,
        files=loaders.boot_files(config),
        belongs=_belongs,
    )

    def start_anew() -> None:
        restart((*config.boot.restart, *loaders.restart_words(config)))

    return installer, start_anew


def _belongs(image: Artifact, slot: SlotDevice) -> None:
    """The boot file and the root in the slot are those of one release.

    Raises:
        BootError: they are not. SlotError: the slot's bytes changed.
    """
    if image.bootable is not None:
        from sealift.core.bootable import check

        check(image.bootable, slot.read, image.length)


def _behind_a_link(
    config: Config, way: Transport, clock: Clock, seal: Seal
) -> tuple[McuInstaller, Callable[[], None]]:
    """The installer of a microcontroller, and what restarts that."""
    from sealift.agent.boot.link import LinkBoot
    from sealift.agent.ciphertext import secret
    from sealift.agent.install.ab import AbInstaller
    from sealift.agent.install.mcu import Copies, Courier, McuInstaller
    from sealift.agent.payload import PATCH_FILE, PatchFile
    from sealift.agent.slot import WorkFiles

    work = secret(WorkFiles(config.state), {PATCH_FILE}, seal.of("work").derived())
    link, slots = loaders.link(config, clock), _slots(config.components[0])
    loader, copies = LinkBoot(link), Copies(slots)
    most = config.transfer.bytes_max or None
    courier = Courier(
        link,
        copies,
        lambda order, patch: PatchFile(order, patch, way, work, most),
        lambda: clock.sleep(loaders.LINK_PAUSE_SECONDS),
    )
    installer = McuInstaller(
        AbInstaller(loader, slots, loader.boot_id, tries=1),
        copies,
        courier,
        link,
        _record(config, "mcu", "image to go back to", seal),
    )
    return installer, installer.restart


def _slots(part: Part) -> PathSlots:
    from sealift.agent.slot import PathSlots

    return PathSlots(dict(zip(Slot, part.slots, strict=True)))


def _fill(
    config: Config,
    way: Transport,
    work: WorkFiles,
    progress: Progress,
    order: Instruction,
    base: Artifact | None,
) -> Fill:
    """How the slot is filled.

    Raises:
        ForbiddenError: the order is not sealed, and this device takes no other; nothing
            was touched. BootError: it does not boot verified, likewise.
    """
    from sealift.agent.payload import PayloadFill

    here = not config.components[0].link
    if here and config.boot.verified and order.artifact.bootable is None:
        raise BootError(
            "the release does not say how it boots verified, and this device boots "
            "nothing else",
            hint="pack it with --bootable, or see [boot] verified",
        )
    limits = config.transfer
    if limits.sealed_only and order.sealed is None:
        raise ForbiddenError(
            "the order is not sealed, and this device installs nothing else",
            hint="seal the release, or see [transfer] sealed_only",
        )
    return PayloadFill(
        order,
        way,
        work,
        base_image=base,
        content_key=lambda sealed: _content_key(config, sealed),
        progress=progress,
        bytes_max=limits.bytes_max or None,
        decoders=limits.decoders,
    )


def _content_key(config: Config, order: Instruction) -> bytes:
    """The key to a sealed order. Loads ``cryptography``."""
    from sealift.agent import keys
    from sealift.agent.unsealing import unseal

    key = keys.decryption_key(config.decryption_key, config.tpm)
    return unseal(order, config.device_id, key)


def _moved(work: WorkFiles, order: Instruction) -> Moved | None:
    """How the image came; a report does not wait for a file that cannot be read."""
    from sealift.agent.payload import moved

    try:
        return moved(work, order)
    except SealiftError as error:
        log.failed("ledger", error)
        return None


def _factory(part: Part, installer: AbInstaller | McuInstaller) -> Artifact | None:
    """The image the factory names, if it is what runs; a lie is logged and unknown."""
    named = identity.factory_image(part)
    if named is None:
        return None
    found = installer.recognised(named)
    log.write(
        "info" if found else "error",
        "factory",
        component=part.ecu_id,
        release=named.version,
        message=None if found else "the running slot holds something else",
    )
    return found


def gate(config: Config) -> Policy:
    """When this device may restart into a new slot.

    Raises:
        InvalidConfigError: the machine does not know the time zone.
    """
    from datetime import time, timedelta
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    from sealift.agent.gate import Policy, Window

    wanted = config.gate
    try:
        zone = UTC if wanted.zone == "UTC" else ZoneInfo(wanted.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidConfigError(
            f"{config.path}: [gate] zone {wanted.zone} is not known here",
            hint="install the time zone data, or give the windows in UTC",
        ) from error
    return Policy(
        windows=tuple(
            Window(w.days, time(w.hour, w.minute), timedelta(minutes=w.minutes))
            for w in wanted.windows
        ),
        zone=zone,
        expected=timedelta(seconds=wanted.expected_seconds),
        battery_percent_min=wanted.battery_percent_min,
        mains_needed=wanted.mains_needed,
    )


def restart(argv: tuple[str, ...]) -> None:
    """Have the machine restarted; by exiting with 75 if no program is configured.

    Raises:
        SystemExit: 75, the service manager or the board restarts.
        BootError: the program cannot be run, fails, or does not return.
    """
    if not argv:
        raise SystemExit(75)
    import subprocess

    try:
        with life.within(RESTART_SECONDS):
            ended = subprocess.run(
                argv,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=RESTART_SECONDS,
                check=False,
            )
    except (OSError, subprocess.SubprocessError) as error:
        raise BootError(f"the restart program {argv[0]} failed: {error}") from error
    if ended.returncode:
        raise BootError(
            f"the restart program {argv[0]} ended with status {ended.returncode}",
            hint="see [boot] restart in the configuration",
        )
