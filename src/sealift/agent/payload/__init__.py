"""Bring one image into a slot: look, then fetch what is wrong, verify, write, flush.

The order never changes (payload format, section 4): metadata is complete before this
begins; the head is fetched whole and verified before it is parsed; each frame is
opened if it is sealed, hashed, then decoded, then the segment is hashed, and only then
written.

There is no record of how far an install came. The slot is hashed against the signed
list of segments first, and what is right already is neither fetched nor written,
whatever wrote it. So a cut anywhere costs time, and on the network no more than one
segment size of frames: that many bytes are at most on their way between socket and
medium. What survives in the workspace (heads as they came, the ledger) is a
convenience.

A delta is tried first, if there is one for the recorded base. Segments it does not
make, because the base was changed or the delta is badly made, come from the full
container afterwards.

``fill`` has the order of steps, ``passes`` one pass by one container, ``method``
decides which, ``plan`` looks, ``source`` fetches heads and frames through ``stream``
and ``box`` or ``sealed``, ``ledger`` pays and remembers, ``line`` writes and flushes,
``workers`` are the threads that hash and decode. ``patch`` fetches what a
microcontroller behind this device applies by itself.
"""

from sealift.agent.payload.fill import PayloadFill, clear, moved
from sealift.agent.payload.patch import PATCH_FILE, PatchFile

__all__ = ["PATCH_FILE", "PatchFile", "PayloadFill", "clear", "moved"]
