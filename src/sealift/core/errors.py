"""The error tree of Sealift: every refusal has one class, one stable code, one hint.

```
SealiftError(code, attack, hint, fields)
├── FormatError       malformed input of any kind
├── MetadataError     someone lies, or a role lapsed
├── PayloadError      the bytes are wrong
├── DeltaError        no delta came of it; the full container serves
├── TransportError    try again later
├── DeviceError       this machine is unwell
├── PolicyError       not now, not here, not you
├── RequestError      what the server will not take
├── KeyFileError      a private key cannot be used
├── ConfigError       a setting is missing or wrong
└── OutcomeError      a demonstration or simulation did not end as it must
```

The *family* tells a program what to do next, the *code* tells it what happened. A code
is one string everywhere: in the agent's log, the signed report, the console, a
``problem+json`` answer and the audit leaf. ``attack`` is the short name of the attack
class an event may be a sign of (design page ``uptane.md``, section 2). Foreign
exceptions are translated where they are met; nothing here knows about them.
"""

from __future__ import annotations

from typing import ClassVar


class SealiftError(Exception):
    """Root of every error Sealift raises on purpose.

    ``fields`` are the facts of the event as JSON values; texts in them may come from
    an attacker and are data, never a path, format or markup. ``exit_status`` is what
    a command of ours exits with when the error ends it.
    """

    code: ClassVar[str] = "error"
    attack: ClassVar[str | None] = None
    exit_status: ClassVar[int] = 1
    default_hint: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        /,
        *,
        hint: str | None = None,
        **fields: str | int | bool | None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint if hint is not None else self.default_hint
        self.fields = fields

    def to_json(self) -> dict[str, object]:
        """The event as one JSON object: code, message, and what is known beside it."""
        found: dict[str, object] = {"code": self.code, "message": self.message}
        if self.attack:
            found["attack"] = self.attack
        if self.hint:
            found["hint"] = self.hint
        if self.fields:
            found["fields"] = dict(self.fields)
        return found


# ── malformed input ──────────────────────────────────────────────────────────────────
class FormatError(SealiftError):
    """Input that does not have the form it must have."""

    exit_status = 3


class MalformedError(FormatError):
    """Not strict JSON, a wrong type, a duplicate member, a wrong ``_type``."""

    code = "format.malformed"


class LimitError(FormatError):
    """A cap on size, count, depth or range was passed."""

    code = "format.limit"
    attack = "endless-data"


# ── metadata ─────────────────────────────────────────────────────────────────────────
class MetadataError(SealiftError):
    """Signed metadata lies, contradicts itself, or has lapsed."""

    exit_status = 3


class SignatureError(MetadataError):
    """Fewer valid signatures by distinct keys than the threshold of the role."""

    code = "metadata.signature"
    attack = "arbitrary-software"


class RollbackError(MetadataError):
    """A version below the trusted one, a Root that is not N+1, a vanished role."""

    code = "metadata.rollback"
    attack = "rollback"


class ExpiredError(MetadataError):
    """The metadata was valid once; its expiry has passed."""

    code = "metadata.expired"
    attack = "freeze"


class MixedError(MetadataError):
    """Hash, length or version differs from what the parent file lists."""

    code = "metadata.mixed"
    attack = "mix-and-match"


class MismatchError(MetadataError):
    """The Director and the Image repository describe one image differently."""

    code = "metadata.mismatch"
    attack = "arbitrary-software"


class MisdirectedError(MetadataError):
    """Meant for another device, for an ECU we do not have, or for one ECU twice."""

    code = "metadata.misdirected"
    attack = "mis-targeting"


class DelegationError(MetadataError):
    """The Director delegates, or a delegated role is missing in Snapshot."""

    code = "metadata.delegation"
    attack = "arbitrary-software"


class NoTargetError(MetadataError):
    """No role of the Image repository vouches for the image."""

    code = "metadata.no_target"
    attack = "arbitrary-software"


class HardwareError(MetadataError):
    """The hardware id of the ECU is not among those the image is for."""

    code = "metadata.hardware"
    attack = "mis-targeting"


class CounterError(MetadataError):
    """The release counter lies below the floor of the ECU."""

    code = "metadata.counter"
    attack = "rollback"


# ── payload ──────────────────────────────────────────────────────────────────────────
class PayloadError(SealiftError):
    """The bytes of an artifact are not the signed ones."""

    exit_status = 3


class LengthError(PayloadError):
    """More or fewer bytes than the signed length."""

    code = "payload.length"
    attack = "endless-data"


class DigestError(PayloadError):
    """A digest of the container, a frame, a segment or the image differs."""

    code = "payload.digest"
    attack = "arbitrary-software"


class DecryptError(PayloadError):
    """A chunk, a commitment or a wrapped key does not open."""

    code = "payload.decrypt"
    attack = "eavesdrop"


class PatchError(PayloadError):
    """A frame cannot be decoded into exactly its segment."""

    code = "payload.patch"
    attack = "arbitrary-software"


class ContainerError(PayloadError):
    """The head of a container is inconsistent or not of our one version."""

    code = "payload.container"
    attack = "arbitrary-software"


class UnsafeNameError(PayloadError):
    """A name that would be dangerous as a path, handler or argument."""

    code = "payload.name"
    attack = "path-traversal"


# ── making deltas ────────────────────────────────────────────────────────────────────
class DeltaError(SealiftError):
    """A delta could not be made. It costs bytes, never a release: full serves."""

    exit_status = 9
    default_hint = "devices install the full container instead"


class EngineError(DeltaError):
    """The match engine failed, or what it found lies outside its images."""

    code = "delta.engine"


class DeltaMemoryError(DeltaError):
    """Making the delta needs more memory than it may have."""

    code = "delta.memory"


class DeltaTimeError(DeltaError):
    """Making the delta took longer than it may take."""

    code = "delta.time"


class DeltaCancelledError(DeltaError):
    """Nobody waits for the delta any more."""

    code = "delta.cancelled"


class DeltaCrashedError(DeltaError):
    """The process that made or checked the delta was killed or crashed."""

    code = "delta.crashed"


class DeltaWrongError(DeltaError):
    """The shipped decoder did not rebuild the image from the finished delta."""

    code = "delta.wrong"


# ── transport ────────────────────────────────────────────────────────────────────────
class TransportError(SealiftError):
    """The network did not deliver; trying again later is right."""

    exit_status = 4
    default_hint = "the next poll tries again; check network, DNS, clock and CA file"


class FailedTransferError(TransportError):
    """No answer, a refusal, a truncated or an unexpected answer."""

    code = "transport.failed"
    attack = "drop-request"


class SlowTransferError(TransportError):
    """Bytes came more slowly than the lowest accepted rate."""

    code = "transport.slow"
    attack = "slow-retrieval"


# ── device ───────────────────────────────────────────────────────────────────────────
class DeviceError(SealiftError):
    """This machine, not the data, is the problem."""

    exit_status = 5


class SlotError(DeviceError):
    """Writing or re-reading a slot failed, or it changed after it was written."""

    code = "device.slot"


class SpaceError(DeviceError):
    """No room: slot, disk or inodes. Room may come, so trying again later is right."""

    code = "device.space"


class SlotTooSmallError(SpaceError):
    """The image is larger than the slot: no waiting will help."""


class BootError(DeviceError):
    """The boot switch or the health check failed."""

    code = "device.boot"


class BusyError(DeviceError):
    """A second agent works with the same state directory."""

    code = "device.busy"


class ClockError(DeviceError):
    """There is no usable time at all."""

    code = "device.clock"
    attack = "freeze"


class TrustAnchorError(DeviceError):
    """The trust anchor is missing, empty, unreadable or has a wrong owner or mode."""

    code = "device.trust"
    attack = "arbitrary-software"


class StateError(DeviceError):
    """Stored state fails to parse or to verify."""

    code = "device.state"


# ── policy ───────────────────────────────────────────────────────────────────────────
class PolicyError(SealiftError):
    """Not now, not here, not you."""

    exit_status = 6


class RefusedError(PolicyError):
    """The signer refuses to sign, or an operation needs explicit consent."""

    code = "policy.refused"


class ForbiddenError(PolicyError):
    """Authenticated, but not allowed here."""

    code = "policy.forbidden"


class RevokedError(PolicyError):
    """The identity was revoked."""

    code = "identity.revoked"


class AuthRequiredError(PolicyError):
    """No valid credential was shown."""

    code = "auth.required"


# ── requests ─────────────────────────────────────────────────────────────────────────
class RequestError(SealiftError):
    """What the server will not take."""

    exit_status = 7


class ReportInvalidError(RequestError):
    """A device report that is malformed, incomplete or wrongly signed."""

    code = "report.invalid"
    attack = "replay"


class ReportReplayError(RequestError):
    """A device report whose counter was used before."""

    code = "report.replay"
    attack = "replay"


class NotFoundError(RequestError):
    """There is no such thing, or it is not yours to see."""

    code = "input.not_found"


class ConflictError(RequestError):
    """It exists already, differently, or the present state forbids it."""

    code = "input.conflict"


class TooLargeError(RequestError):
    """The body is above the cap."""

    code = "input.too_large"


class InvalidInputError(RequestError):
    """A field or argument is missing or wrong."""

    code = "input.invalid"


class RateLimitedError(RequestError):
    """Too many requests from one identity."""

    code = "rate.limited"


class AuditBrokenError(RequestError):
    """The audit log does not verify."""

    code = "audit.broken"


class AuditUnavailableError(RequestError):
    """The audit log cannot be written, so the action is refused."""

    code = "audit.unavailable"


# ── keys and configuration ───────────────────────────────────────────────────────────
class KeyFileError(SealiftError):
    """A private key cannot be used."""

    exit_status = 8


class KeyUnreadableError(KeyFileError):
    """The key file or token is missing, unreadable, malformed or too open."""

    code = "key.unreadable"


class PassphraseError(KeyFileError):
    """The passphrase or PIN is missing or wrong."""

    code = "key.passphrase"


class ConfigError(SealiftError):
    """A setting is missing or wrong."""

    exit_status = 2


class InvalidConfigError(ConfigError):
    """A configuration file or argument is missing, unreadable or wrong."""

    code = "config.invalid"


class MissingToolError(ConfigError):
    """An extra or a program of the system is not installed."""

    code = "config.missing"


# ── demonstrations ───────────────────────────────────────────────────────────────────
class OutcomeError(SealiftError):
    """A step of a demonstration or simulation ended differently than it must."""

    code = "sim.outcome"
