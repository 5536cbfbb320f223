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
