"""Request ids that only this service can make, and the secret behind them.

Choices. An id is 14 random bytes and 16 bytes of HMAC-SHA256 over them, in URL-safe base64 (40 characters, no
padding): random, so that nobody guesses a neighbour's; signed, so that a click on a made-up id never becomes a label.
The secret lies in HOMERANKER_HOME (mode 600), shared by all workers, or comes from HOMERANKER_SECRET.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from features.errors import StoreError

RANDOM_BYTES, MAC_BYTES = 14, 16


def read_secret(home: Path) -> bytes:
    """The service's secret; made once. Two processes that start at once agree on the first one's."""
    given = os.environ.get("HOMERANKER_SECRET")
    if given:
        return hashlib.sha256(given.encode()).digest()
    path = home / "secret"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            draft = home / f"secret.{secrets.token_hex(6)}"
            draft.touch(mode=0o600)
            draft.write_bytes(secrets.token_bytes(32))
            try:
                os.link(draft, path)
            except FileExistsError:
                secret = path.read_bytes()  # another worker was first
            else:
                secret = path.read_bytes()
            draft.unlink()
            return secret
        return path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{path}: the secret cannot be read or made ({error}); is HOMERANKER_HOME writable?"
        ) from error


class Signer:
    """Makes and checks request ids, and turns user ids into names for tombstones."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def _mac(self, kind: bytes, body: bytes) -> bytes:
        return hmac.new(self._secret, kind + b"\0" + body, hashlib.sha256).digest()

    @property
    def key(self) -> bytes:
        """A key for other purposes, from which the secret cannot be told."""
        return self._mac(b"key", b"")

    def request_id(self) -> str:
        """A new id."""
        body = secrets.token_bytes(RANDOM_BYTES)
        return base64.urlsafe_b64encode(body + self._mac(b"request", body)[:MAC_BYTES]).decode()

    def verifies(self, request_id: str | None) -> bool:
        """Whether this service made the id."""
        if request_id is None or len(request_id) != 40 or not request_id.isascii():
            return False
        try:
            raw = base64.b64decode(request_id, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return False
        body, mac = raw[:RANDOM_BYTES], raw[RANDOM_BYTES:]
        return hmac.compare_digest(mac, self._mac(b"request", body)[:MAC_BYTES])

    def digest(self, kind: str, value: str) -> bytes:
        """A keyed hash of an id, which nobody without the secret can turn back; for the records of erasures."""
        return self._mac(kind.encode(), value.encode("utf-8", "surrogatepass"))

    def alias(self, kind: str, value: str) -> str:
        """`digest` as text."""
        return self.digest(kind, value).hex()
