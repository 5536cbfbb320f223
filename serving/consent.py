"""Who refused personalisation, as a model carries it: hashes, so that a model names nobody."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

REFUSED = "no_consent_hashes"  # in a model's manifest


def mark(user_id: str) -> str:
    """What stands for a user in a manifest."""
    return hashlib.sha256(user_id.encode()).hexdigest()


def marks(users: Iterable[str]) -> list[str]:
    """What a manifest tells of these users, in a stable order."""
    return sorted(map(mark, users))


def refused(manifest: Mapping[str, Any]) -> frozenset[str]:
    """The marks of who refused; none in a manifest that does not say."""
    return frozenset(manifest.get(REFUSED, ()))
