"""docs/api.md tells every endpoint and every error code as the code has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.core import errors
from sealift.core.errors import SealiftError
from sealift.server.api.operations import OPERATIONS, PREFIX, document
from sealift.server.api.problems import problem, status_of

PAGE = (Path(__file__).resolve().parents[3] / "docs/api.md").read_text("utf-8")


def classes(
    above: type[SealiftError] = SealiftError, family: type[SealiftError] | None = None
) -> Iterator[tuple[type[SealiftError], type[SealiftError]]]:
    for below in above.__subclasses__():
        if below.__module__ == errors.__name__:
            if "code" in vars(below):
                yield below, family or below
            yield from classes(below, family or below)


@pytest.mark.parametrize(("kind", "family"), list(classes()))
def test_each_code_has_its_row(
    kind: type[SealiftError], family: type[SealiftError]
) -> None:
    """Code, family, exit status and HTTP status as they are."""
    status = status_of(kind("x"))
    row = f"| `{kind.code}` | {family.__name__} | {kind.exit_status} | {status} |"
    assert row in PAGE


def test_codes_are_distinct() -> None:
    """One class per code."""
    codes = [kind.code for kind, _ in classes()]
    assert len(set(codes)) == len(codes)


def test_each_operation_has_its_row() -> None:
    """Every operation is documented, and nothing else is."""
    rows = [
        f"| {o.method} | `{PREFIX}{o.path}` | {o.summary} | {o.action or 'any token'} |"
        for o in OPERATIONS
    ]
    assert [line for line in PAGE.splitlines() if PREFIX + "/" in line[:40]][
        -len(rows) :
    ] == rows


def test_openapi_lists_every_operation() -> None:
    """The served document has the same operations, each under the token."""
    found = document("1")
    listed = {
        (method.upper(), path)
        for path, ways in found["paths"].items()
        for method in ways
    }
    assert listed == {(o.method, PREFIX + o.path) for o in OPERATIONS}
    assert found["security"] == [{"token": []}]


def test_problem_has_our_members() -> None:
    """RFC 9457 members and ours; a hint only if there is one."""
    error = errors.ConflictError("it is there", hint="choose another", name="x")
    assert problem(error) == {
        "type": "about:blank",
        "status": 409,
        "code": "input.conflict",
        "title": "It exists already, differently, or the present state forbids it.",
        "detail": "it is there",
        "hint": "choose another",
        "fields": {"name": "x"},
    }
