"""The first five minutes: a page without a champion that says what it is, and a worse model that is refused."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from pathlib import Path

import pytest

from serving.package import free_port
from tests.flows.checkout import make_checkout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_live_page_without_a_champion_and_a_worse_model_refused(tmp_path: Path) -> None:
    checkout, port = make_checkout(tmp_path), free_port()
    status, said, err = checkout.run("demo", "--worse")
    assert status == 3, err
    assert "the gate says: refuse" in said and "NDCG@10 against champion: -" in said
    shop = checkout.start("demo", "--port", str(port))
    try:
        for _ in range(480):
            assert shop.poll() is None
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    page = answer.read().decode()
                break
            except OSError:
                time.sleep(0.5)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/model", timeout=5) as answer:
            model = json.loads(answer.read())
    finally:
        shop.send_signal(signal.SIGTERM)
        shop.communicate(timeout=60)
    assert page.count("<article") >= 12 or page.count("data-item") >= 12
    assert model["verdict"] == "not gated: a quick model for a demo"
    assert not (checkout.home / "registry" / "champion").exists()
