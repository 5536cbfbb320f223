"""What a client's developer gets: JSON by the letter, times by the letter, and errors that name the field."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contract import HomepageRequest, check_event, format_time, parse_time, validated
from serving.tokens import Signer
from serving.wire import MAX_DEPTH, Problem, parse, pointer


@pytest.mark.parametrize(
    "body", [b"", b"{", b"NaN", b'{"a": Infinity}', b"\xff\xfe", b'"\xc3"', b"[1,]", b"\xef\xbb\xbf{}"]
)
def test_what_is_no_json_is_a_400(body: bytes) -> None:
    with pytest.raises(Problem) as caught:
        parse(body)
    assert caught.value.status == 400


def test_nesting_is_counted_and_the_last_of_two_keys_holds() -> None:
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    for deep in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(Problem):
            parse(b"[" * deep + b"]" * deep)
    assert parse(b'{"a": 1, "a": 2}') == {"a": 2}
    assert parse(b"9" * 5000) == float("inf")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False), st.lists))
def test_whatever_is_json_is_read(value: object) -> None:
    assert parse(json.dumps(value).replace("Infinity", "1").encode()) is not False or value is False


def test_every_bad_field_is_named_once_by_its_pointer() -> None:
    with pytest.raises(Problem) as caught:
        validated(HomepageRequest, {"page_size": 1.5, "exclude": ["", "ok", "a\0"], "user_id": "\ud800"})
    names = [name for name, _ in caught.value.errors]
    assert names == ["/session_id", "/user_id", "/page_size", "/exclude/0", "/exclude/2"]
    assert json.loads(caught.value.body())["status"] == 422
    assert pointer(("a/b", 0, "c~d")) == "/a~1b/0/c~0d"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z"),
        ("2026-01-31t12:00:00.5+02:00", "2026-01-31T10:00:00.500000Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000000Z"),
        ("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_times_are_rfc_3339(text: str, same: str) -> None:
    assert format_time(parse_time(text)) == same


@pytest.mark.parametrize(
    "text", ["2026-01-31", "2026-01-31T12:00:00", "2026-02-30T12:00:00Z", "now", 5, None, "2026-W05-6T00:00:00Z"]
)
def test_other_times_are_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|exists"):
        parse_time(text)


def test_a_request_id_is_ours_only_as_we_made_it() -> None:
    signer, made = Signer(b"secret"), Signer(b"secret").request_id()
    assert signer.verifies(made) and len(made) == 40
    assert not Signer(b"other").verifies(made)
    for at in range(40):
        assert not signer.verifies(made[:at] + ("A" if made[at] != "A" else "B") + made[at + 1 :])


def test_a_row_that_is_wrong_in_two_ways_says_both() -> None:
    row, reason = check_event({"event_id": "", "event_time": 1, "event_type": "view", "user_id": "u"}, 0)
    assert row is None and "event_id" in reason and "event_time" in reason
