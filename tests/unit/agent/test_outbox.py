"""The outbox: stored before sent, in order, byte for byte, bounded, never twice a counter."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from sealift.agent import outbox
from sealift.agent.outbox import MOST_REPORTS, REPORT_LIMIT, Outbox
from sealift.agent.ports import Answer
from sealift.agent.storage import Store
from sealift.core.errors import (
    AuditUnavailableError,
    FailedTransferError,
    LimitError,
    RateLimitedError,
    ReportInvalidError,
    ReportReplayError,
    RevokedError,
    SealiftError,
    StateError,
    TooLargeError,
)
from tests.unit.agent.posix_disk import PosixDisk, PowerCut

DIRECTORY = 7


@dataclass
class Server:
    """A server that keeps what it is sent, and answers as it is told."""

    received: list[bytes] = field(default_factory=list)
    answers: list[SealiftError | bytes] = field(default_factory=list)

    def put(self, path: str, body: bytes, *, limit: int) -> bytes:
        assert path == "director/manifest"
        self.received.append(body)
        answer = self.answers.pop(0) if self.answers else b'{"poll_seconds": 60}'
        if isinstance(answer, SealiftError):
            raise answer
        return answer

    def get(self, path: str, *, limit: int, etag: str | None = None) -> Answer:
        raise AssertionError(path)

    def stream(
        self, path: str, *, start: int, stop: int, length: int, drop_max: int
    ) -> Iterator[bytes]:
        raise AssertionError(path)


def box(disk: PosixDisk | None = None) -> Outbox:
    return Outbox(Store(DIRECTORY, disk or PosixDisk()))


def fill(found: Outbox, count: int) -> list[bytes]:
    reports = []
    for _ in range(count):
        link = found.link()
        reports.append(f"report {link.counter} {link.previous} {link.gap}".encode())
        found.add(link, reports[-1])
    return reports


def test_m12_reports_leave_in_order_and_byte_for_byte() -> None:
    """What was stored is what is sent, oldest first, once."""
    found, server = box(), Server()
    reports = fill(found, 3)
    delivery = found.deliver(server)
    assert server.received == reports
    assert (delivery.delivered, delivery.poll_seconds, delivery.error) == (3, 60, None)
    assert found.waiting == 0
    assert found.deliver(server).delivered == 0


def test_each_report_names_the_one_before_it() -> None:
    """`previous` is the SHA-256 of the report produced before, delivered or not."""
    found = box()
    first, _ = fill(found, 2)
    assert hashlib.sha256(first).hexdigest().encode() in (
        f"{found._storage.read('report.0000000000000002')!r}".encode()
    )
    assert found.link().counter == 3


@pytest.mark.parametrize(
    "error",
    [
        FailedTransferError("gone"),
        RevokedError("revoked"),
        RateLimitedError("slow down"),
        AuditUnavailableError("later"),
    ],
    ids=lambda error: error.code,
)
def test_a20_report_waits_while_the_server_cannot_take_it(error: SealiftError) -> None:
    """An offline server loses nothing: the same bytes arrive later, in order."""
    found, server = box(), Server(answers=[b"{}", error])
    reports = fill(found, 3)
    delivery = found.deliver(server)
    assert (delivery.delivered, delivery.error, found.waiting) == (1, error, 2)
    assert found.deliver(server).delivered == 2
    assert server.received == [reports[0], reports[1], reports[1], reports[2]]


def test_replay_answer_counts_as_delivered() -> None:
    """The answer got lost, the report did not: 409 ends the retries."""
    found, server = box(), Server(answers=[ReportReplayError("known")])
    fill(found, 1)
    assert found.deliver(server).delivered == 1
    assert found.waiting == 0


@pytest.mark.parametrize(
    "error", [ReportInvalidError("no"), TooLargeError("no")], ids=lambda e: e.code
)
def test_refused_report_is_given_up_and_the_next_says_gap(error: SealiftError) -> None:
    """A report the server will never take does not block those behind it."""
    found, server = box(), Server(answers=[error])
    fill(found, 2)
    delivery = found.deliver(server)
    assert (delivery.refused, delivery.delivered) == ((error.code,), 1)
    assert outbox.look(found._storage).last_refusal == error.code
    assert found.link().gap
    fill(found, 1)
    assert not found.link().gap


def test_full_outbox_keeps_the_chain_and_the_newest() -> None:
    """The oldest stay, the newest replaces the one before it and says gap."""
    found, server = box(), Server()
    reports = fill(found, MOST_REPORTS + 10)
    assert found.waiting == MOST_REPORTS
    found.deliver(server)
    assert server.received == [*reports[: MOST_REPORTS - 1], reports[-1]]
    assert reports[-1].endswith(b"True")
    assert reports[MOST_REPORTS - 1].endswith(b"False")
    assert not found.link().gap


def test_report_limit() -> None:
    """At the cap it is stored, above it is refused and the counter stays."""
    found = box()
    with pytest.raises(LimitError):
        found.add(found.link(), bytes(REPORT_LIMIT + 1))
    assert found.link().counter == 1
    found.add(found.link(), bytes(REPORT_LIMIT))


def test_m6_a_counter_is_never_used_twice() -> None:
    """A second report for one counter is refused, whatever it says."""
    found = box()
    link = found.link()
    found.add(link, b"one")
    with pytest.raises(StateError):
        found.add(link, b"two")


def test_m6_cut_anywhere_never_repeats_a_counter() -> None:
    """After any cut, no two different reports with one counter ever leave the device."""
    for cut in range(1, 40):
        for seed in range(6):
            disk = PosixDisk(cut=cut)
            server = Server()
            try:
                found = box(disk)
                for _ in range(3):
                    fill(found, 1)
                    found.deliver(server)
            except PowerCut:
                pass
            after = box(disk.after_cut(random.Random(seed), seed / 5))
            fill(after, 2)
            after.deliver(server)
            counters = {r.split()[1] for r in server.received}
            assert len(counters) == len(set(server.received)), (cut, seed)


def test_what_lies_beside_is_stored_in_the_same_step() -> None:
    """History and report hold together or not at all."""
    store = Store(DIRECTORY, PosixDisk())
    found = Outbox(store)
    found.add(found.link(), b"r", {"history": b"h"})
    assert store.read("history") == b"h"


@pytest.mark.parametrize(
    "state",
    [
        b"",
        b"[]",
        b"{}",
        b'{"counter":"x","previous":null,"gap":false,"waiting":[],"refused":null}',
        b'{"counter":1,"previous":null,"gap":false,"waiting":3,"refused":null}',
    ],
)
def test_damaged_queue_is_device_state(state: bytes) -> None:
    """Bytes that are no queue raise `device.state`, nothing foreign."""
    store = Store(DIRECTORY, PosixDisk())
    store.commit({"outbox": state})
    with pytest.raises(StateError):
        Outbox(store).link()


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (b'{"poll_seconds": 5}', 5),
        (b'{"poll_seconds": true}', None),
        (b'{"poll_seconds": "5"}', None),
        (b"not json", None),
        (b'{"install": "evil", "poll_seconds": 7}', 7),
    ],
)
def test_answer_is_a_status_never_an_instruction(
    answer: bytes, seconds: int | None
) -> None:
    """Of the answer only the poll interval is heard."""
    assert outbox._poll_seconds(answer) == seconds


def test_damaged_queue_goes_on_above_every_counter_used() -> None:
    """With a `least`, counting continues above it, and the hole is admitted."""
    store = Store(DIRECTORY, PosixDisk())
    reports = fill(Outbox(store), 3)
    store.commit({"outbox": b"rotten"})
    found, server = Outbox(store, least=1_000_000), Server()
    link = found.link()
    assert (link.counter, link.previous, link.gap) == (1_000_001, None, True)
    found.add(link, b"after")
    assert Outbox(store).link().counter == 1_000_002
    found.deliver(server)
    assert server.received == [*reports, b"after"]


def test_wiped_state_of_a_device_with_a_past_goes_on_above_it() -> None:
    """Its hardware counter says so: counting goes on above the time, with a gap."""
    fresh = Outbox(Store(DIRECTORY, PosixDisk()), 1_800_000_000, lambda: False)
    assert (fresh.link().counter, fresh.link().gap) == (1, False)
    store = Store(DIRECTORY, PosixDisk())
    wiped = Outbox(store, 1_800_000_000, lambda: True)
    link = wiped.link()
    assert (link.counter, link.previous, link.gap) == (1_800_000_001, None, True)
    wiped.add(link, b"report")
    again = Outbox(store, 1_900_000_000, lambda: True)
    assert (again.link().counter, again.link().gap) == (1_800_000_002, False)
