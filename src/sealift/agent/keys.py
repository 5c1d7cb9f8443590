"""One way in to the device's keys, wherever they are kept: file, TPM or PKCS#11 token.

A setting that names a key holds a file name, ``tpm:…`` or ``pkcs11:…``. Each back end
stands alone (``keyfile``, ``tpm``, ``pkcs11``) and is loaded when it is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.agent import keyfile
from sealift.core.errors import KeyUnreadableError
from sealift.core.hpke import Recipient

if TYPE_CHECKING:
    from sealift.agent.config import Tpm
    from sealift.agent.ports import Counter, DecryptionKey, DeviceKey
    from sealift.agent.tpm import Tool

FILE, TPM, TOKEN = "file", "tpm", "pkcs11"


def kind(place: str) -> str:
    """``file``, ``tpm`` or ``pkcs11``: the back end of a key."""
    scheme = place.partition(":")[0]
    return scheme if scheme in {TPM, TOKEN} else FILE


def report_key(place: str, tpm: Tpm) -> DeviceKey:
    """The key that signs reports. Loads ``cryptography``.

    Raises:
        KeyUnreadableError, PassphraseError, TrustAnchorError, InvalidConfigError,
        MissingToolError: it cannot be used, as the back end says.
    """
    if kind(place) == TPM:
        from sealift.agent.tpm import TpmKey

        return TpmKey(tool(tpm), place)
    if kind(place) == TOKEN:
        from sealift.agent.pkcs11 import TokenKey

        return TokenKey(place)
    return keyfile.FileKey(place)


def decryption_key(place: str, tpm: Tpm) -> DecryptionKey:
    """The key that content keys are wrapped to. Loads ``cryptography``.

    Raises:
        KeyUnreadableError: none is configured. Others: as :func:`report_key`.
    """
    if kind(place) == TPM:
        from sealift.agent.tpm import TpmDecryptionKey

        return TpmDecryptionKey(tool(tpm), place)
    if kind(place) == TOKEN:
        from sealift.agent.pkcs11 import TokenDecryptionKey

        return TokenDecryptionKey(place)
    return keyfile.decryption_key(place)


def kid(key: DecryptionKey) -> str:
    """The name of a decryption key in orders and reports."""
    return Recipient(key.kem, key.public).kid


def store_key(place: str, tpm: Tpm) -> bytes | None:
    """The key the state is sealed with, ``None`` if none is configured.

    Raises:
        KeyUnreadableError and others: as :func:`report_key`.
    """
    if not place:
        return None
    if kind(place) == TPM:
        from sealift.agent.tpm import sealed_key

        return sealed_key(tool(tpm), place)
    if kind(place) == TOKEN:
        from sealift.agent.pkcs11 import derived_key

        return derived_key(place)
    return keyfile.store_key(place)


def counter(place: str, tpm: Tpm) -> Counter | None:
    """The hardware counter at ``place``, ``None`` for an empty one.

    Raises:
        KeyUnreadableError: it is no address of a counter.
    """
    if not place:
        return None
    if kind(place) != TPM:
        raise KeyUnreadableError(f"{place} is no hardware counter")
    from sealift.agent.tpm import TpmCounter

    return TpmCounter(tool(tpm), place)


def tool(tpm: Tpm) -> Tool:
    """The program that talks to the TPM."""
    from sealift.agent.tpm import Tool

    return Tool(tpm.tool, tpm.tcti)
