"""What a client may leave out of a request, and what the service says where it cannot read one."""

from __future__ import annotations

import gzip
import json

import httpx
import pytest

PAGE = {"session_id": "s1"}


@pytest.mark.parametrize("context", [None, {}, {"campaign": "spring"}])
def test_a_page_needs_no_context(client: httpx.Client, context: object) -> None:
    assert client.post("/v1/homepage", json=PAGE | {"context": context}).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "br", "identity, gzip", "nonsense"])
def test_an_encoded_body_is_refused_with_what_to_do(client: httpx.Client, encoding: str) -> None:
    headers = {"content-type": "application/json", "content-encoding": encoding}
    answer = client.post("/v1/homepage", content=gzip.compress(json.dumps(PAGE).encode()), headers=headers)
    assert answer.status_code == 415 and answer.headers["content-type"] == "application/problem+json"
    assert "must not be encoded" in answer.json()["detail"] and answer.headers["accept-encoding"] == "identity"


def test_a_body_that_says_that_it_is_not_encoded_is_read(client: httpx.Client) -> None:
    assert client.post("/v1/homepage", json=PAGE, headers={"content-encoding": "identity"}).status_code == 200


def test_any_price_from_zero_on_is_accepted_as_the_contract_says(client: httpx.Client) -> None:
    """What no shop has is set aside when the log is learned from."""
    row = {"event_time": "2011-05-01T12:00:00Z", "event_type": "purchase", "session_id": "s1", "item_id": "i1"}
    prices = {"dear-1": 0.0, "dear-2": 1e13, "dear-3": 1e308}
    answer = client.post("/v1/events", json={"events": [row | {"event_id": n, "price": p} for n, p in prices.items()]})
    assert answer.json() == {"accepted": 3, "duplicates": 0, "rejected": []}
