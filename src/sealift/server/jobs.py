"""Background work: each job a row in the timetable, done by whoever holds its lease.

The timetable is not state of the fleet: taking a lease leaves no event, what the job
then changes does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from sealift.server.services import identity, metadata
from sealift.server.services.audit import SYSTEM

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.server.ports import Means

__all__ = ["JOBS", "Job", "run_due"]

LEASE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do again and again."""

    name: str
    every: timedelta
    run: Callable[[Means], object]


def _refresh_image(means: Means) -> object:
    return metadata.refresh_image(means, SYSTEM)


def _retire_certificates(means: Means) -> None:
    identity.retire(means, SYSTEM)


JOBS = (
    # D12: a Timestamp lives a day and is renewed at half of it; ten minutes are plenty.
    Job("image-refresh", timedelta(minutes=10), _refresh_image),
    Job("certificates-retire", timedelta(hours=1), _retire_certificates),
)


def run_due(means: Means, owner: str, jobs: tuple[Job, ...] = JOBS) -> list[str]:
    """Run every job that is due and that nobody else holds; their names.

    A job that fails keeps its lease until that runs out, and is tried again then.

    Raises:
        whatever the job raises; the jobs after it run at the next call.
    """
    done = []
    for job in jobs:
        now = means.clock.now()
        with means.store.begin() as session:
            mine = session.housekeeping.take_lease(job.name, owner, now, now + LEASE)
        if not mine:
            continue
        job.run(means)
        with means.store.begin() as session:
            session.housekeeping.finish(job.name, owner, now + job.every)
        done.append(job.name)
    return done
