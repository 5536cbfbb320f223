"""What a visitor gets of the demo shop, in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
SIZES = ((360, 740), (768, 1024), (1100, 900), (1440, 900))
OVER = """() => [...document.querySelectorAll(".card button")].filter(button =>
  button.getBoundingClientRect().right > button.closest(".card").getBoundingClientRect().right).length"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, service: str) -> Iterator[Page]:
    """A fresh visitor; the test fails on any console error and on any request to another host."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda told: faults.append(told.text) if told.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith((service, "data:")) else faults.append(asked.url))
    page.goto(service)
    yield page
    context.close()
    assert not faults


def order(page: Page) -> list[str]:
    return [card.get_attribute("data-item") or "" for card in page.locator(".card").all()]


def test_a_click_reorders_the_page_within_two_seconds(page: Page) -> None:
    before = order(page)
    assert len(before) == 24
    with page.expect_response("**/v1/homepage", timeout=2000):
        page.locator(".look").nth(3).click()
    expect(page.locator('[data-module="because_you_viewed"]')).to_be_visible(timeout=2000)
    assert order(page) != before
    assert page.locator(".ad").first.inner_text() == "Ad"


def test_the_cart_the_reasons_and_the_drawer(page: Page) -> None:
    page.locator(".add").first.click()
    expect(page.locator("#cart")).to_have_text("1")
    page.wait_for_load_state("networkidle")  # a card that is replaced between press and release is not clicked
    page.locator('[data-module="for_you"] .why').first.click()
    expect(page.locator("#why")).to_contain_text("Score")
    page.keyboard.press("Escape")
    expect(page.locator("#why")).not_to_be_visible()
    page.get_by_role("button", name="Engineers").click()
    expect(page.locator("#facts")).to_contain_text("plackett-luce")
    assert page.locator("#slots tr").count() == 24
    page.keyboard.press("Escape")
    expect(page.locator("#drawer")).not_to_be_visible()


def test_search_and_keyboard_alone(page: Page) -> None:
    page.locator("#query").focus()
    page.keyboard.type("red lantren")
    page.keyboard.press("Enter")
    expect(page.locator("#page h2").first).to_contain_text("Found for")
    assert "lantern" in page.locator(".title").first.inner_text().lower()
    page.keyboard.press("Tab")
    for _ in range(8):
        if page.evaluate("document.activeElement.className") == "look":
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator('[data-module="for_you"]')).to_be_visible(timeout=3000)


def test_a_title_that_is_markup_stays_text(page: Page, service: str) -> None:
    title = "<script>document.title='broken'</script><img src=x onerror=alert(1)> qqq"
    row = {"item_id": "evil", "title": title, "available": True}
    assert httpx.put(f"{service}/v1/items", json={"items": [row]}).status_code == 202
    for _ in range(40):
        page.locator("#query").fill("qqq")
        page.keyboard.press("Enter")
        page.wait_for_timeout(150)
        if page.locator(".title").count() == 1:
            break
    assert page.locator(".title").first.text_content() == title
    assert "<script>document" not in httpx.get(f"{service}/?q=qqq").text
    assert page.title() != "broken"
    httpx.put(f"{service}/v1/items", json={"items": [{"item_id": "evil", "available": False}]})


def test_without_javascript_there_is_a_page_and_a_search(browser: Browser, service: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(service)
    assert page.locator(".card").count() == 24
    page.locator("#query").fill("teapot")
    page.get_by_role("button", name="Search").click()
    assert page.locator(".card").count() > 3 and "Found for" in (page.locator("h2").first.text_content() or "")
    context.close()


def test_a_lost_server_leaves_the_page_and_says_so(browser: Browser, service: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(service)
    before = order(page)
    context.set_offline(True)
    page.locator(".look").first.click()
    expect(page.locator("#notice")).to_contain_text("cannot be reached")
    assert order(page) == before
    context.close()


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_cut_off_at_any_width(page: Page, size: tuple[int, int], tmp_path: Path) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator(".card button").count() > 0 and page.evaluate(OVER) == 0
    page.screenshot(path=tmp_path / f"shop-{size[0]}.png")
    assert (tmp_path / f"shop-{size[0]}.png").stat().st_size > 10_000


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("size", SIZES)
def test_axe_has_no_serious_complaint_about_any_state_of_the_page(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    assert serious(page) == []
    page.locator(".look").nth(2).click()
    expect(page.locator(".ad")).to_be_visible(timeout=3000)
    page.wait_for_timeout(600)  # cards are faint while they glide
    assert serious(page) == []
    page.locator('[data-module="for_you"] .why').first.click()
    expect(page.locator("#why")).to_be_visible()
    assert serious(page) == []
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Engineers").click()
    assert serious(page) == []


def test_the_interface_is_described_offline(browser: Browser, service: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    outside: list[str] = []
    page.on("request", lambda asked: None if asked.url.startswith((service, "data:")) else outside.append(asked.url))
    page.goto(f"{service}/docs")
    expect(page.locator("#operations-default-homepage")).to_be_visible(timeout=10_000)
    assert not outside
    context.close()
