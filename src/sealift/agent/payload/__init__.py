"""Bring one image into a slot: look, then fetch what is wrong, verify, write, flush.

The order never changes (payload format, section 4): metadata is complete before this
begins; the head is fetched whole and verified before it is parsed; each frame is
hashed, then decoded, then the segment is hashed, and only then written.

There is no record of how far an install came. The slot is hashed against the signed
list of segments first, and what is right already is neither fetched nor written,
whatever wrote it. So a cut anywhere costs time, and on the network no more than one
segment size of frames: that many bytes are at most on their way between socket and
medium. What survives in the workspace (the head, the bytes spent) is a convenience.

``fill`` holds the order of steps, ``plan`` looks, ``source`` fetches, ``budget`` pays,
``line`` writes and flushes, ``workers`` are the threads that hash and decode.
"""

from sealift.agent.payload.fill import PayloadFill

__all__ = ["PayloadFill"]
