"""Failure notices by webhook: signed, tried again, and never the reason that a run fails.

`HOMERANKER_WEBHOOK_URL` gets a POST of {"event", "at", "run", ...}; where `HOMERANKER_WEBHOOK_KEY` is set, the header
`Homeranker-Signature: sha256=HEX` holds the HMAC of the body, so that a receiver can tell a real notice from a made
one. No personal data is in a notice.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import time
import urllib.error
import urllib.request
from typing import Any

URL, KEY = "HOMERANKER_WEBHOOK_URL", "HOMERANKER_WEBHOOK_KEY"
SIGNATURE = "Homeranker-Signature"
TRIES, FIRST_PAUSE_S, TIMEOUT_S = 4, 0.5, 5.0


def signature(body: bytes, key: str) -> str:
    """What the signature header holds."""
    return "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def tell(event: str, **facts: Any) -> bool:
    """Send a notice where a webhook is configured; whether it arrived. Says on stderr when it did not."""
    url = os.environ.get(URL)
    if not url:
        return False
    if not url.startswith(("https://", "http://")):
        print(f"{URL}={url}: no http address; nobody was told of: {event}", file=sys.stderr)
        return False
    from flows.registry import now

    body = json.dumps({"event": event, "at": now(), **facts}, sort_keys=True, ensure_ascii=False).encode()
    headers = {"content-type": "application/json"}
    if key := os.environ.get(KEY):
        headers[SIGNATURE] = signature(body, key)
    why: object = ""
    for attempt in range(TRIES):
        if attempt:
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        try:
            request = urllib.request.Request(url, body, headers)  # noqa: S310 - http or https, checked above
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
                return True
        except (urllib.error.URLError, OSError) as error:
            why = error
            if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429:
                break
    print(f"{URL}: nobody was told of {event!r} ({why})", file=sys.stderr)
    return False
