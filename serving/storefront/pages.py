"""The pages of the demo shop and the files they load. EDGE.

Choices. The first page is rendered here, from the same answer that /v1/homepage gives, so that it shows with
JavaScript off; every text is escaped by the template. Pictures are drawn from the item's id and title as SVG, because
a demo must not need anybody's images. Files are served from a fixed list of names, so that no path leads out of it.
"""

from __future__ import annotations

import secrets
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.requests import Request
from starlette.responses import Response

from serving import answers
from serving.contract import HomepageRequest, SearchRequest, now_us
from serving.runtime import Runtime
from serving.wire import Problem

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
DOCS_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # Swagger UI styles its own parts
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "no-referrer", "cache-control": "no-store"}
FILES = {
    "shop.js": ("text/javascript", "shop.js"),
    "shop.css": ("text/css", "shop.css"),
    "docs.js": ("text/javascript", "docs.js"),
    "swagger-ui-bundle.js": ("text/javascript", "vendor/swagger-ui-bundle.js.gz"),
    "swagger-ui.css": ("text/css", "vendor/swagger-ui.css.gz"),
}
COOKIE = "homeranker_session"
SIGNS = {"GBP": "£", "EUR": "€", "USD": "$"}
PERSONAS = ("", "anna", "ben", "chris")
PAGE_SIZE = 24

_templates = Environment(loader=FileSystemLoader(HERE), autoescape=select_autoescape(default=True))


def picture(item_id: str, title: str) -> dict[str, Any]:
    """Colours and letters of an item's drawn picture; equal for equal ids."""
    seed = zlib.crc32(item_id.encode("utf-8", "replace"))
    words = [word for word in title.split() if word[:1].isalnum()]
    letters = "".join(word[0] for word in words[:2]).upper() or "?"
    return {"hue": seed % 360, "shape": seed // 360 % 4, "turn": seed // 1440 % 360, "letters": letters}


def card(runtime: Runtime, item_id: str) -> dict[str, Any] | None:
    """What a card shows of an item; None where the catalogue lacks it."""
    now = runtime.snapshot
    at = now.items.index.get(item_id) if now else None
    if now is None or at is None:
        return None
    row = now.items.row(at)
    title, sign = row.title or item_id, SIGNS.get(row.currency or "")
    price = f"{sign or ''}{row.price:,.2f} {'' if sign else row.currency or ''}" if row.price is not None else ""
    return {
        "item_id": item_id,
        "title": title,
        "price": price.strip(),
        "category": row.category,
        **picture(item_id, title),
    }


def cards(runtime: Runtime, item_ids: list[str]) -> dict[str, Any]:
    """Cards of items that the catalogue knows."""
    found = (card(runtime, item_id) for item_id in item_ids)
    return {"cards": [one for one in found if one is not None]}


def storefront(runtime: Runtime, query: dict[str, str], cookies: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The shop's homepage for this browser session: HTML and headers."""
    session = cookies.get(COOKIE, "")
    if not (8 <= len(session) <= 64 and session.isalnum()):
        session = secrets.token_hex(12)
    persona = query.get("persona", "") if query.get("persona", "") in PERSONAS else ""
    user = f"demo-{persona}" if persona else None
    notice, page = "", None
    try:
        page = _answer(runtime, session, user, query.get("q", "").strip()[:500])
    except Problem as problem:
        notice = problem.detail
    for module in page["modules"] if page else ():
        for slot in module["slots"]:
            slot["card"] = card(runtime, slot["item_id"]) or {}
    text = _templates.get_template("shop.html").render(
        page=page, notice=notice, session=session, persona=persona, personas=PERSONAS, keyed=bool(runtime.keys)
    )
    cookie = f"{COOKIE}={session}; Path=/; SameSite=Strict; Max-Age=86400"
    return text, {**HEADERS, "set-cookie": cookie}


def _answer(runtime: Runtime, session: str, user: str | None, query: str) -> dict[str, Any]:
    """The homepage, or what a search finds, in the homepage's form."""
    if not query:
        request = HomepageRequest(session_id=session, user_id=user, page_size=PAGE_SIZE)
        return answers.homepage(runtime, request, now_us())
    search = SearchRequest(session_id=session, user_id=user, query=query.replace("\0", " "), limit=PAGE_SIZE)
    found = answers.find(runtime, search, now_us())
    title = f"Found for “{query}”" if found["results"] else f"Nothing found for “{query}”"
    return {**found, "policy": "search", "modules": [{"module": "search", "title": title, "slots": found["results"]}]}


@cache
def _file(name: str) -> bytes:
    return (HERE / FILES[name][1]).read_bytes()


async def static(request: Request) -> Response:
    """GET /static/{name}: one of the listed files."""
    name = request.path_params["name"]
    if name not in FILES:
        raise Problem(404, "there is no such file")
    headers = {"cache-control": "public, max-age=3600"}
    if FILES[name][1].endswith(".gz"):
        headers["content-encoding"] = "gzip"
    return Response(_file(name), 200, headers, media_type=FILES[name][0])


async def docs(request: Request) -> Response:
    """GET /docs: Swagger UI from files of ours."""
    text = (HERE / "docs.html").read_text(encoding="utf-8")
    return Response(text, 200, {**HEADERS, "content-security-policy": DOCS_POLICY}, media_type="text/html")
