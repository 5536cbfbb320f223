"""Ed25519 signatures over records: who decided can be proved on another machine, without this one.

Choices. `cryptography` does the arithmetic; this file only says what is signed (the record as canonical JSON without
its signature) and where keys are (`HOMERANKER_SIGNING_KEY`: a private key in PEM; `HOMERANKER_TRUSTED_KEYS`: a folder
of public keys in PEM, one a person). A key is named by the first 16 hex digits of the SHA-256 of its public bytes, so
that keys can be rotated: an old signature stays true as long as its public key lies in the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.errors import UsageError

SIGNING_KEY, TRUSTED_KEYS = "HOMERANKER_SIGNING_KEY", "HOMERANKER_TRUSTED_KEYS"
SIGNATURE, KEY_ID = "signature", "key_id"


def canonical(record: Mapping[str, Any]) -> bytes:
    """The bytes that are signed: sorted keys, no spaces, without the signature itself."""
    unsigned = {name: value for name, value in record.items() if name not in (SIGNATURE, KEY_ID)}
    return json.dumps(unsigned, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A new key pair: (`NAME.key`, readable by its owner only, and `NAME.pub`); UsageError where it exists."""
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, public = folder / f"{name}.key", folder / f"{name}.pub"
    if private.exists() or public.exists():
        raise UsageError(
            f"{private}: there is a key of this name; choose another name, old signatures need the old key"
        )
    folder.mkdir(parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    private.touch(mode=0o600)
    private.write_bytes(secret)
    public.write_bytes(key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo))
    return private, public


def sign(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with `key_id` and `signature`, or as it is where no key is configured."""
    path = os.environ.get(SIGNING_KEY)
    if not path:
        return dict(record)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(Path(path).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{SIGNING_KEY}={path}: no readable private key in PEM ({error})") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{SIGNING_KEY}={path}: not an Ed25519 key; `homeranker keygen DIR NAME` makes one")
    told = {KEY_ID: _name(key.public_key()), SIGNATURE: key.sign(canonical(record)).hex()}
    return {**record, **told}


def _name(public: Any) -> str:
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def trusted() -> dict[str, tuple[str, Any]] | None:
    """key id -> (file name, public key) of the trusted folder; None where none is configured."""
    folder = os.environ.get(TRUSTED_KEYS)
    return load_trusted(Path(folder)) if folder else None


def load_trusted(folder: Path) -> dict[str, tuple[str, Any]]:
    """key id -> (file name, public key) of every `*.pub` in a folder; UsageError where one cannot be read."""
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found = {}
    for path in sorted(folder.glob("*.pub")):
        try:
            key = load_pem_public_key(path.read_bytes())
            found[_name(key)] = (path.stem, key)
        except (OSError, ValueError, AttributeError) as error:
            raise UsageError(f"{path}: no Ed25519 public key in PEM ({error})") from error
    if not found:
        raise UsageError(f"{folder}: holds no public key (*.pub); put the reviewers' keys there")
    return found


def fault(record: Mapping[str, Any], keys: Mapping[str, tuple[str, Any]]) -> str | None:
    """Why a record's signature does not hold, None where it does."""
    from cryptography.exceptions import InvalidSignature

    if SIGNATURE not in record:
        return "it is not signed"
    if record.get(KEY_ID) not in keys:
        return f"its key {record.get(KEY_ID)} is not among the trusted ones"
    try:
        keys[str(record[KEY_ID])][1].verify(bytes.fromhex(str(record[SIGNATURE])), canonical(record))
    except (InvalidSignature, ValueError):
        return "its signature does not fit its content"
    return None
