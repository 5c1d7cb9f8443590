"""One event, one line, whatever a stranger wrote into it."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.agent import log
from sealift.core.errors import RollbackError


def test_plain_facts_read_plainly() -> None:
    """Words, numbers and booleans stand unquoted; unknown facts are left out."""
    found = log.line("info", "poll", news=True, seconds=1.5, etag=None, at="a/b:8443")
    assert found == "info poll news=yes seconds=1.5 at=a/b:8443"


@given(st.text())
def test_f_no_text_can_make_a_second_line(text: str) -> None:
    """Line breaks, escapes and bidirectional marks arrive as data (M14)."""
    found = log.line("info", "event", text=text)
    assert found.isascii()
    assert found.isprintable()
    assert len(found) < 7 * log.VALUE_CHARACTERS


def test_error_line_has_code_message_hint_and_attack(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What a person needs stands in one line."""
    log.failed("cycle", RollbackError("old\nerror fake=1", hint="wait"))
    written = capfd.readouterr().err
    assert written == (
        "error cycle code=metadata.rollback "
        'message="old\\nerror fake=1" hint=wait attack=rollback\n'
    )


def test_closed_stderr_stops_nothing() -> None:
    """An agent without anywhere to log goes on."""
    kept = os.dup(2)
    os.close(2)
    try:
        log.info("event")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
