"""Files that people carry about: whatever is in them, the answer is an error of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealift.core.canonical import parse_object
from sealift.core.errors import SealiftError
from sealift.repo.entries import Listed
from sealift.repo.online import ONLINE_ROLES, from_json, to_json
from sealift.repo.signing import (
    add_signatures,
    request_from_json,
    request_to_json,
    sign_request,
    signatures_to_json,
)
from sealift.sign.keys import public_from_json, public_to_json
from sealift.sign.release import Release
from tests.unit.repo.test_signing import release, rotation
from tests.vendor import artifact, container, online, people

ALICE = people("image", "targets")[0]
SIGNED = sign_request(release(), ALICE)
FACTS = Release(Listed(artifact(), 1), container()).to_json()
KEYS: Any = {
    repository: {role: online(repository, role).public_key for role in roles}
    for repository, roles in ONLINE_ROLES.items()
}
Reader = Callable[[bytes], object]
# kind of file → a good one, and its reader
FILES: dict[str, tuple[bytes, Reader]] = {
    "request": (request_to_json(SIGNED), request_from_json),
    "request for a root": (request_to_json(rotation()), request_from_json),
    "signatures": (
        signatures_to_json(SIGNED, [ALICE.public_key.keyid]),
        lambda raw: add_signatures(release(), raw),
    ),
    "public key": (public_to_json(ALICE.public_key), public_from_json),
    "online keys": (to_json(KEYS), from_json),
    "release": (
        json.dumps(FACTS).encode(),
        lambda raw: Release.from_json(parse_object(raw, 1 << 20)),
    ),
}

LEAVES = st.none() | st.booleans() | st.integers() | st.text() | st.floats()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)


def paths(value: Any, *done: Any) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    found = [done]
    names: list[Any] = []
    if isinstance(value, dict | list):
        names = list(value) if isinstance(value, dict) else list(range(len(value)))
    for name in names:
        found += paths(value[name], *done, name)
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with something else in one place."""
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


def read(reader: Reader, raw: bytes) -> None:
    """Anything that is not an error of ours fails the test."""
    with suppress(SealiftError):
        reader(raw)


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_something_else_in_one_place(kind: str, data: st.DataObject) -> None:
    """A good file in which one value became any other JSON value."""
    good, reader = FILES[kind]
    value = json.loads(good)
    path = data.draw(st.sampled_from(paths(value)))
    changed = put(value, path, data.draw(VALUES))
    read(reader, json.dumps(changed).encode())


@pytest.mark.parametrize("kind", FILES)
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_bytes_cut_and_changed(kind: str, data: st.DataObject) -> None:
    """A good file cut short, or with some bytes replaced."""
    good, reader = FILES[kind]
    at = data.draw(st.integers(0, len(good)))
    tail = data.draw(st.binary(max_size=20))
    read(reader, good[:at] + tail)
    read(reader, good[:at] + tail + good[at + len(tail) :])


@pytest.mark.parametrize("kind", FILES)
def test_the_good_files_are_good(kind: str) -> None:
    """What is fuzzed is accepted as it is."""
    good, reader = FILES[kind]
    reader(good)
