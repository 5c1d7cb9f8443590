"""One target under atheris (libFuzzer), led by coverage; ``tests.fuzz`` starts it.

``python -m tests.fuzz.guided TARGET [libFuzzer options and corpus directories]``
"""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    """Does not return: libFuzzer ends the process."""
    with atheris.instrument_imports(include=["sealift.core"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
