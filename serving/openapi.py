"""The OpenAPI 3.1 document, made from the pydantic models and one table of calls.

Choices. Written from data instead of from the router, because bodies are read by our own strict parser; a test keeps
the table equal to the routes. Every error is the one Problem schema.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import models_json_schema

from serving.contract import (
    AdsRequest,
    EventRow,
    EventsRequest,
    HomepageRequest,
    ItemRowIn,
    ItemsRequest,
    SearchRequest,
)

Json = dict[str, Any]
BODIES = (HomepageRequest, EventsRequest, SearchRequest, AdsRequest, ItemsRequest, EventRow, ItemRowIn)
STRING, NUMBER, INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
NULLABLE = {"type": ["string", "null"]}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(of: Json) -> Json:
    return {"type": "array", "items": of}


P = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
REJECTED = _list(_object(index={"type": "integer", "minimum": 0}, detail=STRING))
SLOT = _object(
    position={"type": "integer", "minimum": 1},
    item_id=STRING,
    score=NUMBER,
    propensity=P,
    explored={"type": "boolean"},
    sponsored={"type": "boolean"},
    reason=NULLABLE,
)
RESULT = _object(position=INTEGER, item_id=STRING, score=NUMBER, propensity=P)
PLACEMENT = _object(position=INTEGER, ad_id=STRING, item_id=STRING, p_click=P, price={"type": "number", "minimum": 0})
ANSWERS: dict[str, Json] = {
    "Homepage": _object(
        request_id=STRING,
        model_version=STRING,
        policy=STRING,
        fallback={"enum": [None, "popular", "stale"]},
        modules=_list(_object(module=STRING, title=STRING, slots=_list(SLOT))),
    ),
    "EventsAnswer": _object(accepted=INTEGER, duplicates=INTEGER, rejected=REJECTED),
    "SearchAnswer": _object(request_id=STRING, model_version=STRING, results=_list(RESULT)),
    "AdsAnswer": _object(request_id=STRING, placements=_list(PLACEMENT)),
    "Explanation": _object(
        item_id=STRING,
        score=NUMBER,
        because=_list(_object(item_id=STRING, event_type=STRING, weight=NUMBER)),
        features=_list(_object(name=STRING, value={}, contribution=NUMBER)),
    ),
    "ErasureAnswer": _object(erasure_id=STRING),
    "Erasure": _object(
        erasure_id=STRING,
        requested_at=STRING,
        steps=_list(_object(step=STRING, status={"enum": ["pending", "done", "failed"]}, at=NULLABLE)),
        status={"enum": ["pending", "done"]},
    ),
    "ItemsAnswer": _object(accepted=INTEGER, rejected=REJECTED),
    "Model": _object(
        model_version=STRING,
        trained_from=STRING,
        trained_until=STRING,
        data_hash=STRING,
        verdict={},
        metrics={"type": "object"},
    ),
    "Problem": {
        **_object(type=STRING, title=STRING, status=INTEGER, detail=STRING),
        "properties": {
            "type": STRING,
            "title": STRING,
            "status": INTEGER,
            "detail": STRING,
            "errors": _list(_object(pointer=STRING, detail=STRING)),
        },
    },
}
ID_SCHEMA = {"type": "string", "minLength": 1, "maxLength": 256}
EVENT_EXAMPLE = {
    "events": [
        {
            "event_id": "e1",
            "event_time": "2026-01-31T12:00:00Z",
            "event_type": "click",
            "session_id": "s1",
            "item_id": "i1",
        }
    ]
}
ITEM_EXAMPLE = {"items": [{"item_id": "i1", "title": "Red cup", "price": 4.5, "currency": "GBP", "available": True}]}


def _parameter(name: str, where: str) -> Json:
    return {"name": name, "in": where, "required": True, "schema": ID_SCHEMA, "example": f"{name.removesuffix('_id')}1"}


def _call(
    name: str, summary: str, answer: str, status: int = 200, body: str | None = None, example: Any = None, **more: Any
) -> Json:
    """One operation with its answers; errors that any call may meet are always listed."""
    reference = {"$ref": f"#/components/schemas/{answer}"}
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    codes = {400: "no JSON", 413: "over 1 MiB", 415: "not plain JSON", 422: "an invalid field"} if body else {}
    codes |= {401: "no valid key", 429: "too many requests", 503: "overloaded or not ready", **more.pop("errors", {})}
    answers: Json = {str(status): {"description": summary, "content": {"application/json": {"schema": reference}}}}
    answers |= {str(code): {"description": text, "content": problem} for code, text in sorted(codes.items())}
    call: Json = {"operationId": name, "summary": summary, "responses": answers, **more}
    if body:
        content: Json = {"schema": {"$ref": f"#/components/schemas/{body}"}}
        if example:
            content["example"] = example
        call["requestBody"] = {"required": True, "content": {"application/json": content}}
    return call


CLOCK = {400: "Homeranker-Now where replay is off"}
NOT_FOUND = {400: CLOCK[400], 404: "not kept, erased, or not shown", 422: "an invalid field"}


def paths() -> Json:
    """Every call of the contract."""
    explanation = [_parameter("request_id", "path"), _parameter("item_id", "query")]
    return {
        "/v1/homepage": {"post": _call("homepage", "A page for one visit", "Homepage", body="HomepageRequest")},
        "/v1/events": {"post": _call("events", "What users did", "EventsAnswer", 202, "EventsRequest", EVENT_EXAMPLE)},
        "/v1/search": {"post": _call("search", "A search for one person", "SearchAnswer", body="SearchRequest")},
        "/v1/ads": {"post": _call("ads", "Which ads, at which price", "AdsAnswer", body="AdsRequest")},
        "/v1/explanations/{request_id}": {
            "get": _call("explain", "Why an item was shown", "Explanation", parameters=explanation, errors=NOT_FOUND)
        },
        "/v1/users/{user_id}": {
            "delete": _call(
                "erase",
                "Erase a user",
                "ErasureAnswer",
                202,
                parameters=[_parameter("user_id", "path")],
                errors={**CLOCK, 404: "no such path", 422: "an invalid field"},
            )
        },
        "/v1/erasures/{erasure_id}": {
            "get": _call(
                "erasure",
                "How far an erasure is",
                "Erasure",
                parameters=[_parameter("erasure_id", "path")],
                errors={**CLOCK, 404: "no such erasure"},
            )
        },
        "/v1/items": {"put": _call("items", "Change the catalogue", "ItemsAnswer", 202, "ItemsRequest", ITEM_EXAMPLE)},
        "/v1/model": {"get": _call("model", "What serves", "Model", errors=CLOCK)},
    }


def document(version: str) -> Json:
    """The whole document."""
    _, schemas = models_json_schema(
        [(model, "validation") for model in BODIES], ref_template="#/components/schemas/{model}"
    )
    components = {**schemas["$defs"], **ANSWERS}
    for body, row in (("EventsRequest", "EventRow"), ("ItemsRequest", "ItemRowIn")):
        field = "events" if body == "EventsRequest" else "items"
        components[body]["properties"][field]["items"] = {"$ref": f"#/components/schemas/{row}"}
    scheme = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": "homeranker", "version": version, "description": "Personal homepages for a shop."},
        "paths": paths(),
        "components": {"schemas": components, "securitySchemes": {"key": scheme}},
        "security": [{"key": []}, {}],
    }
