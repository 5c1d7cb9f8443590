"""From the network to instructions: both repositories fetched, verified, cross-checked.

Everything is decided in ``core``; here files are fetched and kept, and the time is set.
A check takes one time (``uptane.md`` 1.4), the Director first, then the Image
repository, and ends with one atomic commit of what was verified. Director Targets is
kept only when all its orders were vouched for: what is in force never was in doubt.

:meth:`Verifier.poll` asks whether a check is worth it, without any cryptography, so
that an idle device never imports it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sealift.agent.ports import Clock, Storage, Transport
from sealift.agent.repository import Repository, path, record
from sealift.core import uptane
from sealift.core.delegation import Found
from sealift.core.errors import (
    FailedTransferError,
    FormatError,
    SealiftError,
    TrustAnchorError,
)
from sealift.core.metadata import (
    DIRECTOR,
    IMAGE,
    Limits,
    Root,
    Targets,
)
from sealift.core.trust import resume
from sealift.core.trusted import (
    Held,
    Name,
    Rules,
    Want,
    director_rules,
    image_rules,
)
from sealift.core.types import Instruction

SANE_CLOCK = timedelta(days=20 * 365)
"""A clock later than this after the build is not believed."""

Settled = Mapping[str, Collection[bytes]]
"""ECU id → SHA-256 of images that need no instruction: confirmed, or failed before."""

_DIRECTOR, _IMAGE = "director", "image"


@dataclass(frozen=True, slots=True)
class Provision:
    """Who this device is and whom it believes: fixed when built and provisioned.

    ``anchors`` maps ``director`` and ``image`` to the bytes of a Root from the
    read-only image. ``build_time`` (UTC) is when the agent was built: time never is
    earlier.
    """

    device_id: str
    units: uptane.Units
    anchors: Mapping[str, bytes]
    build_time: datetime
    director_limits: Limits = DIRECTOR
    image_limits: Limits = IMAGE
    demo_keys: bool = False

    def rules(self, repository: str) -> Rules:
        """The rules for one of the two repositories."""
        if repository == _DIRECTOR:
            return director_rules(
                self.device_id, self.director_limits, demo_keys=self.demo_keys
            )
        return image_rules(self.image_limits, demo_keys=self.demo_keys)

    def anchor(self, repository: str) -> bytes:
        """The trust anchor of one repository.

        Raises:
            TrustAnchorError: there is none (B-14).
        """
        anchor = self.anchors.get(repository)
        if not anchor:
            raise TrustAnchorError(
                f"the trust anchor of the {repository} repository is missing or empty",
                hint="provision the device again: without it nothing can be verified",
            )
        return anchor


@dataclass(frozen=True, slots=True)
class Polled:
    """What a poll found. ``news`` asks for a check and promises nothing."""

    news: bool
    poll_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What this device believes at the moment, for its reports (M5, M11).

    ``now`` is the time it goes by, ``time_source`` is ``clock``, ``build`` or
    ``metadata``. ``metadata_time`` is the newest time a verified file vouches for, the
    build time if there is none. ``versions`` are by repository and role.
    """

    now: datetime
    time_source: str
    metadata_time: datetime
    versions: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Checked:
    """A check that went well.

    ``instructions`` are the orders in force that the Image repository vouches for,
    those that already run included; none if ``quiet``: nothing changed and all is
    settled, or nothing is ordered. ``now`` is the time the check went by. ``remarks``
    are oddities that were no errors.
    """

    instructions: tuple[Instruction, ...]
    quiet: bool
    now: datetime
    remarks: tuple[str, ...] = ()
    poll_seconds: int | None = None


class Verifier:
    """Asks the server, believes nothing, and says what may be installed.

    It remembers nothing a restart would miss: between calls only the ETag of the
    Director's Timestamp and the interval the server asks for.
    """

    def __init__(
        self, transport: Transport, storage: Storage, clock: Clock, provision: Provision
    ) -> None:
        self._transport = transport
        self._storage = storage
        self._clock = clock
        self._provision = provision
        self._tag: tuple[str, bytes] | None = None
        self._poll_seconds: int | None = None

    # ── the cheap question ───────────────────────────────────────────────────────────
    def poll(self, settled: Settled) -> Polled:
        """Ask whether a check is worth it. Nothing is verified, nothing is written.

        There is news if the server has a newer Root or another Timestamp; if what is
        kept is missing, unreadable or expired, for else a server that says "nothing
        new" for ever would go unnoticed (A-06); or if an order in force is not settled.
        At most three small requests.

        Raises:
            TransportError: as named. LimitError: an answer passes its cap.
            TrustAnchorError: there is no trust anchor.
        """
        try:
            quiet = self._is_quiet(settled)
        except FormatError:
            quiet = False
        return Polled(not quiet or self._server_has_news(), self._poll_seconds)

    def _is_quiet(self, settled: Settled) -> bool:
        read = self._provision.rules(_DIRECTOR).reader
        files = ("timestamp", "snapshot", "targets")
        raw = [self._kept(_DIRECTOR, name) or b"" for name in files]  # b"": malformed
        stamp, order = read.timestamp(raw[0]).body, read.targets(raw[2]).body
        roots = (self._newest_root(_DIRECTOR), self._newest_root(_IMAGE))
        roles = (stamp, read.snapshot(raw[1]).body, order, *roots)
        now = _later(self._clock_time()[0], stamp.issued)
        return now < min(role.expires for role in roles) and _is_settled(order, settled)

    def _server_has_news(self) -> bool:
        for name in (_DIRECTOR, _IMAGE):
            newer = self._newest_root(name).version + 1
            limit = self._provision.rules(name).limits.root_bytes
            want = Want("root", newer, limit, may_be_absent=True)
            if self._fetch(name, want) is not None:
                return True
        limit = self._provision.rules(_DIRECTOR).limits.timestamp_bytes
        kept = self._kept(_DIRECTOR, "timestamp")
        return self._fetch(_DIRECTOR, Want("timestamp", None, limit), kept) != kept

    # ── the full check ───────────────────────────────────────────────────────────────
    def check(self, floors: Mapping[str, int], settled: Settled) -> Checked:
        """Bring both repositories up to date and verify every order of the Director.

        ``floors`` maps ECU ids to the release counter of their confirmed release. If
        nothing changed and all is ``settled``, only the Roots of the Image repository
        are brought (decision j).

        Raises:
            SealiftError: from ``core.trust``, ``core.delegation``, ``core.uptane``, the
                transport or the storage. What verified on the way is kept, Director
                Targets excepted: the next good check succeeds.
            TrustAnchorError: there is no trust anchor.
        """
        director, image = self._begin(_DIRECTOR), self._begin(_IMAGE)
        try:
            checked = self._checked(director, image, floors, settled)
        except SealiftError:
            director.changes.pop("targets", None)
            self._keep(director, image)
            raise
        self._keep(director, image)
        return checked

    def _checked(
        self,
        director: Repository,
        image: Repository,
        floors: Mapping[str, int],
        settled: Settled,
    ) -> Checked:
        clock, _ = self._clock_time()
        if _later(clock, image.state.floor) > clock:
            # It counts for the Director too, so the Root that may take it back (R5)
            # has to come first: a poisoned time must not hide its own cure.
            image.final_root(clock)
        ordered = director.complete(_later(clock, image.state.floor))
        before = self._targets_in_force()
        past = before.body if before else None
        orders = uptane.admit(ordered.targets.body, past, self._provision.units)
        # Only now: a new Root of the Director may have reset its time (R5).
        now = _later(clock, director.state.floor)
        image.state = replace(image.state, spent=director.state.spent)
        unchanged = before is not None and before.raw == ordered.targets.raw
        quiet = not orders or (unchanged and _is_settled(ordered.targets.body, settled))
        if quiet:
            image.final_root(now)
            orders = ()
        else:
            image.complete(now)
        instructions = [
            uptane.instruct(
                ordered,
                order,
                _vouched(image, order, now),
                floors,
            )
            for order in orders
        ]
        return Checked(
            instructions=tuple(instructions),
            quiet=quiet,
            now=_later(now, image.state.floor),
            remarks=director.state.remarks + image.state.remarks,
            poll_seconds=self._poll_seconds,
        )

    def _begin(self, name: str) -> Repository:
        rules, anchor = self._provision.rules(name), self._provision.anchor(name)
        state = resume(rules, anchor, lambda file: self._kept(name, file))
        return Repository(name, state, self._fetch)

    def _targets_in_force(self) -> Held[Targets] | None:
        """Director Targets as kept: verified and vouched for when it was stored."""
        raw = self._kept(_DIRECTOR, "targets")
        try:
            read = self._provision.rules(_DIRECTOR).reader
            return None if raw is None else Held(raw, read.targets(raw))
        except FormatError:
            return None

    # ── files ────────────────────────────────────────────────────────────────────────
    def _kept(self, name: str, file: Name) -> bytes | None:
        return self._storage.read(record(name, file))

    def _keep(self, *repositories: Repository) -> None:
        changes = {
            record(repository.name, file): raw
            for repository in repositories
            for file, raw in repository.changes.items()
        }
        if changes:
            self._storage.commit(changes)

    def _fetch(self, name: str, want: Want, known: bytes | None = None) -> bytes | None:
        tag = None
        if want.role == "timestamp" and self._tag and self._tag[1] == known:
            tag = self._tag[0]
        answer = self._transport.get(path(name, want), limit=want.limit, etag=tag)
        if answer.status == 404:
            return None
        if answer.status == 304 and tag is not None:
            return known
        if answer.status != 200:
            raise FailedTransferError(f"status {answer.status} for {want.role}")
        if want.role == "timestamp" and name == _DIRECTOR:
            self._poll_seconds = answer.poll_seconds or self._poll_seconds
            self._tag = (answer.etag, answer.body) if answer.etag else None
        return answer.body

    # ── time and standing ────────────────────────────────────────────────────────────
    def standing(self) -> Standing:
        """What is believed at the moment, from the kept files, without cryptography.

        Raises:
            TrustAnchorError: there is no trust anchor.
        """
        clock, source = self._clock_time()
        known = self._provision.build_time
        versions: dict[str, Mapping[str, int]] = {}
        for name in (_DIRECTOR, _IMAGE):
            found, issued = self._kept_versions(name)
            versions[name], known = found, _later(known, issued)
        if known > clock:
            clock, source = known, "metadata"
        return Standing(clock, source, known, versions)

    def _kept_versions(self, name: str) -> tuple[Mapping[str, int], datetime | None]:
        read, issued = self._provision.rules(name).reader, None
        found: dict[str, int] = {}
        try:
            found["root"] = self._newest_root(name).version
            stamp = read.timestamp(self._kept(name, "timestamp") or b"").body
            found["timestamp"], issued = stamp.version, stamp.issued
            snapshot = read.snapshot(self._kept(name, "snapshot") or b"").body
            found["snapshot"] = snapshot.version
            found["targets"] = snapshot.files["targets.json"].version
        except (FormatError, KeyError):
            pass  # what is not there yet is not listed
        return found, issued

    def _newest_root(self, name: str) -> Root:
        read = self._provision.rules(name).reader
        root = read.root(self._provision.anchor(name)).body
        version = root.version + 1
        while (raw := self._kept(name, version)) is not None:
            root, version = read.root(raw).body, version + 1
        return root

    def _clock_time(self) -> tuple[datetime, str]:
        """The system clock if it is sane, else the build time; and which it was."""
        clock, build = self._clock.now(), self._provision.build_time
        if build <= clock <= build + SANE_CLOCK:
            return clock, "clock"
        return build, "build"


def _vouched(image: Repository, order: uptane.Order, now: datetime) -> Found:
    return image.search(order.path, order.unit.hardware_id, now)


def _is_settled(targets: Targets, settled: Settled) -> bool:
    return all(
        bytes.fromhex(target.hashes["sha256"]) in settled.get(ecu_id, ())
        for target in targets.targets.values()
        for ecu_id in (target.custom.ecus if target.custom else ())
    )


def _later(time: datetime, other: datetime | None) -> datetime:
    return time if other is None else max(time, other)
