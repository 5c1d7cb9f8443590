r"""The secure store: small records in one directory, committed together or not at all.

```
DIR/              0700, ours; an exclusive flock on it keeps a second agent out (D-17)
DIR/index         which generation of each record is in force; the only commit point
DIR/NAME@GEN      one record, never changed after it was written; GEN in lower hex
```
Every file is ``sealift1 HEX\n`` and the data, HEX being the SHA-256 of name, NUL and
data, so a rotten or swapped file is seen. With a store key it is ``sealift2 KID HEX\n``
and HEX an HMAC (``agent.seal``): what was not made with that key is not believed, and a
whole store of another making is refused rather than repaired. A commit writes its
records under a new generation, makes them durable, and renames one new index over the
old. What a cut leaves behind is removed by the next :class:`Store`.
"""

from sealift.agent.storage.codec import RECORD_LIMIT, DamagedError, ForeignError
from sealift.agent.storage.directory import claim, look
from sealift.agent.storage.records import Calls, Records
from sealift.agent.storage.store import Store
from sealift.agent.storage.views import Forgiving, Overlay

__all__ = [
    "RECORD_LIMIT",
    "Calls",
    "DamagedError",
    "ForeignError",
    "Forgiving",
    "Overlay",
    "Records",
    "Store",
    "claim",
    "look",
]
