"""The catalogue of attacks as data: every row of the threat model.

``required`` is what a run must observe, to the letter: the outcome of each case, joined
by arrows. An outcome is an error's code; ``installed``, where the device has to go on
as if nothing had been tried; ``no news``, where it has to stay as it is; or a phrase of
its own, where the row asks for more. ``demand`` says the row in words, and ``later``
why nothing runs it yet. ``partly`` names what of a row that runs is not shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["CATALOGUE", "Actor", "Row", "row"]


class Actor(StrEnum):
    """Who attacks (threat model, section 2)."""

    NETWORK = "network attacker"
    MIRROR = "malicious mirror"
    SERVER = "compromised server"
    THIEF = "thief of k-1 keys"
    CLONE = "stolen or cloned device"
    OPERATOR = "malicious operator"
    SUPPLIER = "malicious supplier"
    LOCAL = "local user"
    USB = "USB attacker"


@dataclass(frozen=True, slots=True)
class Row:
    """One named attack, and what must come of it."""

    id: str
    name: str
    actor: Actor
    demand: str
    required: str = ""
    partly: str = ""
    later: str = ""


NET, SRV, THF, SUP = Actor.NETWORK, Actor.SERVER, Actor.THIEF, Actor.SUPPLIER
LOC, USB, OPR, CLN, MIR = (
    Actor.LOCAL,
    Actor.USB,
    Actor.OPERATOR,
    Actor.CLONE,
    Actor.MIRROR,
)
SIG, ROLL, OLD = "metadata.signature", "metadata.rollback", "metadata.expired"
MIX, MIS, FORM = "metadata.mixed", "metadata.misdirected", "format.malformed"
LIMIT, FAIL, SLOW = "format.limit", "transport.failed", "transport.slow"
NONE, COUNT, HARD = "metadata.no_target", "metadata.counter", "metadata.hardware"
LEN, DIG, TRUST = "payload.length", "payload.digest", "device.trust"
DEC = "payload.decrypt"
BOX, SLOT, BOOT, STATE = (
    "payload.container",
    "device.slot",
    "device.boot",
    "device.state",
)
DELEG, SAME, REFUSED = "metadata.delegation", "metadata.mismatch", "policy.refused"
OK, QUIET = "installed", "no news"
THEN = " → "

RESOLVER = "needs the resolver of dependencies and conflicts"
ECUS = "needs several components on one device, and the resolver"
MIRRORS = "needs mirrors: this agent has one server"
ENROL = "needs enrolment and renewal of device certificates"
ACCESS = "needs the operator's accounts, roles and console"
LOG = "needs the Merkle log over the audit table"

# fmt: off
METADATA = (
    Row("A-01", "Unsigned metadata", NET, "each role without signatures; the member absent", SIG + THEN + FORM),
    Row("A-02", "Arbitrary software", NET, "a full repository, signed with own keys: refused at the first file", SIG),
    Row("A-03", "Image swapped", MIR, "other bytes of equal length: slot unusable, no boot switch", DIG),
    Row("A-04", "Rollback, every role", NET, "older Timestamp; and by stolen online keys Snapshot, Targets, a delegated role; a role dropped", ROLL, partly="no offline snapshot: bundles come later"),
    Row("A-05", "Root chain break", NET, "Root N, N+2, 2^53-1; then N+1 by old keys only, by new keys only", ROLL + THEN + SIG),
    Row("A-06", "Freeze by replay", NET, "old valid files past expiry; an install under way still finishes", OLD + THEN + OK),
    Row("A-07", "Freeze by withheld Root", NET, "404 or 403 for N+1: none newer until Root expiry; 5xx", QUIET + THEN + OLD + THEN + FAIL),
    Row("A-08", "Equal-version swap", SRV, "a second valid Timestamp of one version: stored bytes stay, no Snapshot request, a remark in the report", QUIET),
    Row("A-09", "Half-cycle freeze", NET, "Timestamp taken, Snapshot withheld; served later", FAIL + THEN + OK),
    Row("A-10", "Fast-forward", SRV, "stolen online keys sign version 2^53-1; honest files again only after Root rotates, also with a cut between", ROLL + THEN + OK),
    Row("A-11", "Cross-device fast-forward", NET, "another device's Timestamp v900: nothing stored, ours taken next", MIS + THEN + OK),
    Row("A-12", "Empty-Targets replay", NET, "another device's empty Director Targets", MIS),
    Row("A-13", "Mix-and-match", NET, "files of two releases, hashes, lengths and versions permuted", MIX),
    Row("A-14", "Mixed bundle", OPR, "an order of artifacts that do not go together", later=RESOLVER),
    Row("A-15", "Partial bundle", NET, "one component updated, the others blocked, then the next order", later=ECUS),
    Row("A-16", "Endless data", NET, "metadata without end; image bytes beyond the signed length", LIMIT + THEN + LEN),
    Row("A-17", "Slow retrieval", NET, "one byte per 1.5 s; a burst, then a stall", SLOW),
    Row("A-18", "Truncation", NET, "the stream cut at every kind of place, with and without an error; resumed later", FAIL + THEN + LEN + THEN + OK),
    Row("A-19", "Resume poisoning", NET, "other bytes after a resume; a wrong range, a wrong length in Content-Range; a changed ETag", DIG + THEN + FAIL + THEN + LEN + THEN + OK),
    Row("A-20", "Drop-request", NET, "all traffic blocked, or reports only: they arrive later, in order", FAIL + THEN + "reports in order", partly="the server's alarm about silence comes with its detections"),
    Row("A-21", "Eavesdrop", NET, "everything that is served recorded: no piece of the image, nor its key; the plain container asked for", "only ciphertext" + THEN + "policy.forbidden"),
    Row("A-22", "Crypto and parser flood", SRV, "10^5 signatures, 1 500 keys, deep JSON, huge integers: before any crypto, under 100 ms and 10 MiB", LIMIT),
    Row("A-23", "Twin members", SRV, "members twice, case or Unicode twins; then one ECU twice", FORM + THEN + MIS),
    Row("A-24", "Number and type confusion", SRV, "versions and thresholds that are not; a Snapshot as Timestamp; then out of range", FORM + THEN + LIMIT),
    Row("A-25", "Unsigned control field", NET, "members outside `signed` have no effect, nor what the signature of a boot file does not cover", OK),
    Row("A-26", "Names as paths", SUP, "roles: encoded to one component; artifacts; over the cap", "one component" + THEN + "payload.name" + THEN + LIMIT),
    Row("A-27", "Delegation search confusion", SUP, "random delegation graphs: the answer of python-tuf; too many roles", "as python-tuf" + THEN + LIMIT),
    Row("A-28", "Delegated checks skipped", SUP, "expired; hash, length, version wrong in a delegated role", OLD + THEN + MIX),
    Row("A-29", "Residue of rejection", NET, "bad files, the agent killed at each step, then an honest server", "nothing kept" + THEN + OK),
    Row("A-30", "Clock games", NET, "1970, 2099, a step back: the floor holds, 2099 leaves nothing behind", OLD + THEN + OK),
    Row("A-31", "Poisoned time floor", SRV, "a stolen online key signs `issued` ahead: over 400 days; within, until Root rotates", FORM + THEN + OLD + THEN + OK),
    Row("A-32", "TLS downgrade and redirects", NET, "other CA, wrong name, expired, TLS 1.1, http, redirected metadata, gzip; and without TLS at all", FAIL + THEN + "the rest holds"),
    Row("A-33", "Dead mirror takeover", MIR, "the attacker owns a listed mirror", later=MIRRORS),
    Row("A-34", "Repositories disagree", SRV, "other hash, length, counter, hardware ids; then a name nobody lists", SAME + THEN + NONE),
)

KEYS = (
    Row("B-01", "One key counted twice", THF, "one key under two ids, spellings, schemes; a repeated id", SIG + THEN + FORM),
    Row("B-02", "k-1 thief", THF, "Root, Image Targets with k-1 keys and junk; stolen keys after a rotation", SIG),
    Row("B-03", "Role confusion", SRV, "a key of another role, repository or vendor", SIG),
    Row("B-04", "Keys from the artifact", MIR, "keys shipped in metadata or container", SIG),
    Row("B-05", "Director takeover", SRV, "orders unlisted, older, for other hardware", NONE + THEN + COUNT + THEN + HARD),
    Row("B-06", "Image online keys stolen", SRV, "own Targets below a good Snapshot; a role hidden", SIG + THEN + ROLL),
    Row("B-07", "Director + supplier keys", SUP, "a supplier's path elsewhere; its own path and hardware: the residual risk", NONE + THEN + OK, partly="no impact report shows it yet"),
    Row("B-08", "Supplier overreach", SUP, "another's path, wider delegation; refused at upload as well", NONE, partly="the server takes no supplier uploads yet, so it cannot refuse one"),
    Row("B-09", "Revoked key", SUP, "a removed supplier or rotated key signs again; the old delegation replayed", SIG + THEN + ROLL),
    Row("B-10", "Degenerate signatures", NET, "empty, zero, r=s=0, 63 and 65 bytes, bad DER, small-order keys", SIG),
    Row("B-11", "Demo keys in production", SRV, "a Root of demo keys on the device, at the signer", TRUST + THEN + REFUSED),
    Row("B-12", "Weak signing keys", OPR, "RSA 1024, a key in two roles, schemes outside the list, when introduced", REFUSED),
    Row("B-13", "Symmetric “signature”", NET, "an HMAC key as signing key", FORM),
    Row("B-14", "Trust store gone", LOC, "anchor deleted, empty, unreadable, writable, a link: the device runs on", TRUST),
    Row("B-15", "Hybrid stripping", SRV, "no ML-DSA signatures, twice the classical ones", SIG),
    Row("B-16", "Blind ceremony", SRV, "the signer is handed other bytes, a lower threshold, a jump in version", "difference shown" + THEN + REFUSED),
)

PAYLOAD = (
    Row("C-01", "Swap after verify", LOC, "work file and slot replaced by path while they are used: one descriptor, no effect", OK),
    Row("C-02", "Size overflow", MIR, "2 GiB + 1, 4 GiB + 1 bytes, the last one flipped on the way and by the Director", DIG),
    Row("C-03", "Unlisted, missing or unsigned payload", SRV, "frames not listed, listed and missing, no list, no digests; other formats and versions", BOX),
    Row("C-04", "Name disagreement", SRV, "archives with members of any name; then a listed name spelled otherwise", BOX + THEN + NONE, partly="a container has no names in it; archives of components come later"),
    Row("C-05", "Unprotected region", MIR, "every byte flipped, also by a stolen Director whose digests fit", "every flip refused"),
    Row("C-06", "Archive escape", MIR, "names and links that lead elsewhere", later="needs components that are archives: an image has no members"),
    Row("C-07", "Handler escape", SRV, "../../x as the name of a container; handlers and scripts named in metadata are nothing", "payload.name" + THEN + OK),
    Row("C-08", "Parser before hash", MIR, "malformed head and frames with a wrong hash: no parser sees them", DIG),
    Row("C-09", "In-band signature tricks", SRV, "garbage before, between and behind, lengths in the file that lie, a polyglot", BOX),
    Row("C-10", "Duplicate members", SRV, "segments, entries, frames twice; then members of metadata", BOX + THEN + FORM),
    Row("C-11", "Verified ≠ used", SRV, "another answer, another work file the second time: what was verified is used; then boot files that admit another root, or two", OK + THEN + BOOT),
    Row("C-12", "Odd hash field", SRV, "spaces, case, length, none, other types; then an unknown algorithm", FORM + THEN + DIG),
    Row("C-13", "Short identifiers", MIR, "two images with one 12-digit digest prefix: neither is taken for the other", OK),
    Row("C-14", "Hostile delta", SRV, "huge lengths; streams that do not decode; a wrong result; then 24 hostile deltas beside an honest full container: each tried, the base untouched", LIMIT + THEN + "payload.patch" + THEN + DIG + THEN + OK),
    Row("C-15", "Decompression bomb", SRV, "streams of thousands of times their segment, one inside another, under 100 ms", LIMIT),
    Row("C-16", "Ciphertext tampering", MIR, "chunks flipped, moved, doubled, dropped, cut at a border; wraps changed, for another device, of another version; a key holder's own sealing", DEC + THEN + LEN + THEN + DIG),
)

DEVICE = (
    Row("D-01", "Slot changed after write", LOC, "a byte flipped, the file replaced before the switch; flipped between switch and boot", SLOT + THEN + BOOT, partly="the second case is a board with verified boot: the reference loader has none"),
    Row("D-02", "Power cut", NET, "cuts at every durable step; the agent killed at each change of its store", "old or new" + THEN + OK),
    Row("D-03", "Ordered downgrade", SRV, "a listed artifact below the floor, also with the record of the floor gone", COUNT),
    Row("D-04", "Downgrade by fallback", LOC, "a failing release goes home at the floor; below it the way back is refused", BOOT, partly="the reference loader knows no floor: it goes home by itself once the tries are used up"),
    Row("D-05", "Counter burned early", SRV, "a high counter that fails its health check, with and without a hardware counter; a low one afterwards", BOOT + THEN + OK),
    Row("D-06", "Image that dies", SRV, "crash, hang, no network, wedged clock, no agent: home within its tries", BOOT),
    Row("D-07", "Boot-count exhaustion", LOC, "power cycles in normal life, then on trial", OK + THEN + BOOT),
    Row("D-08", "Wrong slot", SRV, "container, then metadata name a place to write", BOX + THEN + OK),
    Row("D-09", "No room", LOC, "larger than the slot; no room for the store, the work file: nothing is erased", "device.space"),
    Row("D-10", "Local file games", LOC, "links and loose modes of everything the agent believes, of its store key and of a sealed state; then a hostile umask", TRUST + THEN + OK),
    Row("D-11", "Local and remote ports", LOC, "every socket of the real agent while it installs", "no listener"),
    Row("D-12", "Environment injection", LOC, "module paths, preloads, proxies, PATH, TMPDIR at the real agent; then a writable configuration", OK + THEN + TRUST, partly="without -I, which the service unit has, the interpreter obeys PYTHONPATH before our first line"),
    Row("D-13", "Hostile USB bundle", USB, "unsigned, expired, older, another device's", later="needs offline bundles"),
    Row("D-14", "Hostile USB names", USB, "names with shell, path and format characters", later="needs offline bundles"),
    Row("D-15", "Old state restored", LOC, "last month's state directory, where there is a hardware counter and where there is none: the device refuses it, the server sees the counters go back", STATE + THEN + "clone alarm"),
    Row("D-16", "Hostile Primary", LOC, "a gateway lies to what is behind it", later="needs components behind a gateway"),
    Row("D-17", "Concurrent runs", LOC, "a second agent; signals by the hundred during an install", "device.busy" + THEN + OK),
)

IDENTITY = (
    Row("E-01", "Cloned identity", CLN, "two devices, one key", later=ENROL),
    Row("E-02", "Stolen device key, IDOR", CLN, "another device's data by its id", later=ENROL),
    Row("E-03", "Revoked device", CLN, "open connections, resumed TLS", later=ENROL),
    Row("E-04", "Expired client certificate", CLN, "expired, early, renewed with a revoked key", later=ENROL),
    Row("E-05", "mTLS downgrade", NET, "no certificate, other CA, spoofed header, plain port", later=ENROL),
    Row("E-06", "Enrolment token abuse", NET, "reuse, guess, race", later=ENROL),
    Row("E-07", "Identity squatting", CLN, "enrol an existing id", later=ENROL),
    Row("E-08", "Bad enrolment key", CLN, "used, weak, without proof", later=ENROL),
    Row("E-09", "Replayed manifest", CLN, "old manifests, another's", later=ENROL),
    Row("E-10", "Forged manifest", CLN, "bad signatures, missing and unknown components", later=ENROL),
    Row("E-11", "Lying manifest", CLN, "valid, but invented", later=ENROL),
    Row("E-12", "Hostile report strings", CLN, "markup, SQL, format, terminal escapes", later=ENROL),
    Row("E-13", "Hostile server ids", SRV, "ids with ../, newlines, 10 kB", later=ENROL),
    Row("E-14", "Poll storm", CLN, "thousands of requests per second", later=ENROL),
)

OPERATORS = (
    Row("F-01", "XSS", CLN, "script in names and reports", later=ACCESS),
    Row("F-02", "CSRF", NET, "a foreign page posts with the victim's cookie", later=ACCESS),
    Row("F-03", "SSRF", OPR, "webhooks to private addresses", later=ACCESS),
    Row("F-04", "Tenant IDOR", OPR, "another tenant's ids", later=ACCESS),
    Row("F-05", "RBAC union", OPR, "rights on two groups that share a device", later=ACCESS),
    Row("F-06", "Federated takeover", OPR, "one tenant's identity provider, another's user", later=ACCESS),
    Row("F-07", "Privilege escalation", OPR, "extra fields, own role, stale rights", later=ACCESS),
    Row("F-08", "Brute force", NET, "passwords, tokens, enumeration", later=ACCESS),
    Row("F-09", "Session and token attacks", NET, "fixation, reuse, scope, logs", later=ACCESS),
    Row("F-10", "Injection", OPR, "SQL, shell, templates, headers", later=ACCESS),
    Row("F-11", "Upload attacks", OPR, "odd boundaries, sizes, parts, names", later=ACCESS),
    Row("F-12", "Overwrite and traversal", OPR, "other bytes under a published name; ..", later=ACCESS),
    Row("F-13", "Unset or default secret", OPR, "empty secret, default password", later=ACCESS),
    Row("F-14", "Malicious operator", OPR, "own approval, skipped phases", later=ACCESS),
    Row("F-15", "Server takeover", SRV, "database and files rewritten", later=LOG),
    Row("F-16", "Database restored", OPR, "last week's backup", later=ACCESS),
)

EVIDENCE = (
    Row("G-01", "Truncation", SRV, "the tail of the log cut", later=LOG),
    Row("G-02", "Rewrite", SRV, "an entry changed, moved, inserted", later=LOG),
    Row("G-03", "Split view", SRV, "two histories", later=LOG),
    Row("G-04", "Forged checkpoint", SRV, "unsigned, other key, too few witnesses", later=LOG),
    Row("G-05", "Evidence deletion", OPR, "a named object deleted or swapped", later=LOG),
    Row("G-06", "Log forging, repudiation", OPR, "newlines, false actors, back-dating", later=LOG),
    Row("G-07", "Silent action", OPR, "no log, then an act", later=LOG),
)
# fmt: on

CATALOGUE = (
    *METADATA,
    *KEYS,
    *PAYLOAD,
    *DEVICE,
    *IDENTITY,
    *OPERATORS,
    *EVIDENCE,
)


def row(attack_id: str) -> Row | None:
    """The row of that id, if there is one."""
    return next((it for it in CATALOGUE if it.id == attack_id), None)
