"""What the operator API gives, as types, and the check that an answer has them.

A server is not believed about the shape of its answers either: a member that is missing
or of another type is ``transport.failed``, never a ``KeyError`` in somebody's program.
"""

from __future__ import annotations

import types
import typing
from typing import Any, TypedDict, TypeVar

from sealift.core.errors import FailedTransferError

T = TypeVar("T")


class Status(TypedDict):
    """What a server is and holds; ``published`` is repository → role → version."""

    version: str
    time: str
    poll_seconds: int
    device_url: str
    enrol_url: str
    published: dict[str, dict[str, int]]
    releases: int


class Who(TypedDict):
    """Whose token this is; ``permissions`` are names of actions."""

    name: str
    roles: list[str]
    permissions: list[str]
    expires_at: str | None


class Token(TypedDict):
    """A token, without its secret."""

    name: str
    roles: list[str]
    created_by: str
    created_at: str
    expires_at: str | None
    revoked_at: str | None


class NewToken(TypedDict):
    """A token just made; its secret is kept nowhere."""

    secret: str
    token: Token


class Root(TypedDict):
    """A published root."""

    repository: str
    version: int


class Targets(TypedDict):
    """Versions of the Image repository now served."""

    targets: int
    snapshot: int
    timestamp: int
    changed: bool


class StoredContainer(TypedDict):
    """A payload container on the server."""

    name: str
    length: int
    sha256: str


class ReleasedArtifact(TypedDict):
    """An artifact of a release."""

    path: str
    length: int
    sha256: str
    hardware_ids: list[str]
    release_counter: int
    container: dict[str, Any]
    sealed: bool


class Release(TypedDict):
    """A release on the server."""

    id: str
    product: str
    version: str
    sequence: int
    published_at: str
    artifacts: list[ReleasedArtifact]


class Installed(TypedDict):
    """What a component was last reported to run; ``None`` before its first report."""

    name: str | None
    sha256: str | None
    length: int | None
    version: str | None
    release_counter: int


class Ecu(TypedDict):
    """A component of a device."""

    ecu_id: str
    hardware_id: str
    primary: bool
    installed: Installed
    attack: str | None


class DecryptionKey(TypedDict):
    """The key sealed images are wrapped to; ``reported`` is the id the device says."""

    kem: str
    kid: str
    reported: str | None


class Device(TypedDict):
    """A device; times are ``YYYY-MM-DDTHH:MM:SSZ``."""

    id: str
    state: str
    created_at: str
    last_seen: str | None
    reported_at: str | None
    time_source: str | None
    counter: int
    ecus: list[Ecu]
    abilities: list[str]
    decryption_key: DecryptionKey | None


class Certificate(TypedDict):
    """A certificate of a device."""

    serial: str
    sha256: str
    not_before: str
    not_after: str
    revoked_at: str | None


class Offer(TypedDict):
    """How an installation was offered and its expected bytes, or why it is held."""

    method: str | None
    bytes: int
    base_sha256: str | None
    held: str | None
    detail: str | None


class Done(TypedDict):
    """What an installation took: body bytes, and segments a changed base cost."""

    method: str | None
    transferred: int | None
    repaired: int | None


class Installation(TypedDict):
    """One component's record in one deployment."""

    id: str
    deployment: str
    device: str
    ecu_id: str
    path: str
    sha256: str
    state: str
    code: str | None
    changed_at: str
    offer: Offer | None
    done: Done | None


class Report(TypedDict):
    """A report of a device as it came in."""

    sha256: str
    counter: int | None
    received_at: str
    verdict: str


class DeviceDetail(TypedDict):
    """A device with its history."""

    device: Device
    report_key_id: str
    certificates: list[Certificate]
    installations: list[Installation]
    reports: list[Report]


class Enrolled(TypedDict):
    """A fresh certificate, PEM."""

    device: str
    certificate: str
    not_after: str


class Deployment(TypedDict):
    """A deployment; ``counts`` says how many installations are in which state."""

    id: str
    release: str
    state: str
    reason: str
    created_at: str
    counts: dict[str, int]
    bytes_max: int | None
    delta_wait_minutes: int


class Bytes(TypedDict):
    """Expected and real bytes of the installations whose device told the latter.

    ``repaired`` counts installations that found a changed base.
    """

    installations: int
    expected: int
    transferred: int
    repaired: int


class DeploymentDetail(TypedDict):
    """A deployment with its installations."""

    deployment: Deployment
    installations: list[Installation]
    bytes: Bytes


class Delta(TypedDict):
    """A pair of images a delta is wanted between; lengths in bytes, CPU in ms.

    While it is made there are ``step`` and its ``progress`` in per cent, once it is
    ready ``container``, its name. ``base_path`` is the base's target path.
    """

    id: int
    state: str
    origin: str
    path: str
    base_sha256: str
    base_path: str | None
    new_sha256: str
    full_sha256: str
    devices: int
    length: int | None
    full_length: int
    container: str | None
    cpu_ms: int | None
    reason: str | None
    attempts: int
    step: str | None
    progress: int | None
    wanted_at: str
    changed_at: str


class Leaf(TypedDict):
    """An audit leaf; ``leaf`` is its envelope."""

    index: int
    leaf_hash: str
    leaf: dict[str, Any]


def checked(kind: type[T], value: object) -> T:
    """``value``, if it has the shape of ``kind``; members nobody knows may be there.

    Raises:
        FailedTransferError: it has not.
    """
    _check(kind, value, "the answer")
    return typing.cast("T", value)


def _check(kind: Any, value: object, place: str) -> None:
    if kind is Any:
        return
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        for item in _of(list, value, place):
            _check(arguments[0], item, place)
    elif origin is dict:
        for item in _of(dict, value, place).values():
            _check(arguments[1], item, place)
    elif origin in {types.UnionType, typing.Union}:
        if value is not None:
            _check(arguments[0], value, place)
    elif typing.is_typeddict(kind):
        found = _of(dict, value, place)
        for name, member in typing.get_type_hints(kind).items():
            _check(member, found.get(name), f"{place}: {name}")
    else:
        _of(kind, value, place)


def _of(kind: type[T], value: object, place: str) -> T:
    if type(value) is not kind:
        raise FailedTransferError(
            f"{place} is not what this version of Sealift expects",
            hint="client and server may be of different versions",
        )
    return value
