"""``python -m sealift.payload make|verify``: started by ``process``, not by people."""

from __future__ import annotations

import sys

from sealift.payload.worker import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
