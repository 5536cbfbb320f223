"""JSON in, JSON and RFC 9457 problems out: the letter of RFC 8259, without a framework.

Choices. orjson reads (it refuses NaN and bad UTF-8 and is fast); where it refuses, the standard parser reads once
more, strictly, because some of what orjson refuses is JSON (a lone surrogate, a huge number) and must become a 422
that names the field. Nesting is counted level by level, so that no input can exhaust the stack.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

MAX_DEPTH = 100
MAX_BODY = 1024 * 1024
PROBLEM = "application/problem+json"
RETRY_AFTER_S = 1


@dataclass
class Problem(Exception):
    """An error answer; `errors` are pairs of RFC 6901 pointer and detail."""

    status: int
    detail: str
    errors: Sequence[tuple[str, str]] = ()
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """The problem+json document."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = [{"pointer": pointer, "detail": detail} for pointer, detail in self.errors]
        return json.dumps(document, ensure_ascii=True).encode()  # ASCII: a detail may quote a lone surrogate

    def all_headers(self) -> dict[str, str]:
        """Content type, Retry-After where one is due, and what was given."""
        headers = {"content-type": PROBLEM, **self.headers}
        if self.status in (429, 503):
            headers.setdefault("retry-after", str(RETRY_AFTER_S))
        if self.status == 401:
            headers.setdefault("www-authenticate", "Bearer")
        return headers


def parse(body: bytes) -> Any:
    """The JSON value of a body; Problem 400 where it is none or is nested too deep."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        value = _parse_strictly(body)
    if too_deep(value):
        raise Problem(400, f"the body is nested more than {MAX_DEPTH} deep")
    return value


def _parse_strictly(body: bytes) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not JSON")

    def whole(text: str) -> int | float:
        return int(text) if len(text) < 4000 else float("-inf" if text[0] == "-" else "inf")

    try:
        return json.loads(body.decode("utf-8"), parse_constant=refuse, parse_int=whole)
    except RecursionError:
        raise Problem(400, f"the body is nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise Problem(400, f"the body is no JSON: {reason}") from None


def too_deep(value: Any) -> bool:
    """Whether containers are nested more than MAX_DEPTH deep; walks level by level."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(MAX_DEPTH):
        children = (child for one in level for child in (one.values() if isinstance(one, dict) else one))
        level = [child for child in children if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def dump(document: Any) -> bytes:
    """A document as JSON bytes."""
    return orjson.dumps(document)


def pointer(path: Sequence[str | int]) -> str:
    """RFC 6901 pointer of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
