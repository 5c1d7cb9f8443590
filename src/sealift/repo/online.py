"""``online-keys.json``: the public halves of a server's online keys, for the desk.

The server writes it when its directory is made; the desk's ceremony puts the keys into
the first Roots. Stolen online keys can freeze and mix what is published; they cannot
make a device install an image the offline keys did not sign, and the next Root replaces
them.

`{"schema": 1, "director": {"targets": [KEY], "snapshot": [KEY], "timestamp": [KEY]},
"image": {"snapshot": [KEY], "timestamp": [KEY]}}`, each KEY a TUF key object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from securesystemslib.signer import Key, SSlibKey

from sealift.core.canonical import parse_object
from sealift.core.errors import MalformedError
from sealift.repo.policy import introduce, labelled, under_its_id

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ONLINE_ROLES", "OnlineKeys", "from_json"]

BYTES_MAX = 262_144
KEYS_PER_ROLE_MAX = 8
ONLINE_ROLES = {
    "director": ("targets", "snapshot", "timestamp"),
    "image": ("snapshot", "timestamp"),
}
"""Roles whose keys are on the server, by repository."""

OnlineKeys = dict[str, dict[str, tuple[SSlibKey, ...]]]
"""Public keys by repository and role."""


def from_json(raw: bytes, *, allow_demo: bool = False) -> OnlineKeys:
    """Read the file; key ids are computed, never believed, and the keys get names.

    Raises:
        MalformedError, LimitError: its form. RefusedError: a key is not taken.
    """
    found = parse_object(raw, BYTES_MAX)
    if found.get("schema") != 1:
        raise MalformedError(
            "this is not an online-keys.json of schema 1",
            hint="`sealift server init` writes it into the directory public",
        )
    keys = {
        repository: {role: _keys(found, repository, role) for role in roles}
        for repository, roles in ONLINE_ROLES.items()
    }
    for roles in keys.values():
        for listed in roles.values():
            for key in listed:
                introduce(key, allow_demo=allow_demo)
    return keys


def _keys(found: Mapping[str, Any], repository: str, role: str) -> tuple[SSlibKey, ...]:
    where = f"the {repository} {role} keys"
    try:
        shown = found[repository][role]
        if not isinstance(shown, list) or not 0 < len(shown) <= KEYS_PER_ROLE_MAX:
            raise TypeError(f"not a list of 1 to {KEYS_PER_ROLE_MAX} keys")
        keys = [under_its_id(Key.from_dict("", dict(entry))) for entry in shown]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedError(f"{where} are malformed: {error}") from error
    name = f"{repository}-{role}-online"
    return tuple(
        labelled(key, name if index == 1 else f"{name}-{index}")
        for index, key in enumerate(keys, 1)
    )
