"""``python -m sealift.payload.fence make|verify``: started by ``process``."""

from __future__ import annotations

import sys

from sealift.payload.fence.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
