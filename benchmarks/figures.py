"""Three figures that shops ask for and nobody publishes: clone to page, click to changed page, erasure asked to done.

    python -m benchmarks.figures MODEL_DIR [--clicks 200] [--erasures 20] [--clone]

Choices. Everything is measured from outside over HTTP, on a built Bento with one worker, as a browser would: the clock
of a click starts before its event is posted and stops when a page has arrived that names the clicked item's neighbours;
a page that has not changed yet is asked for again, and that counts. An erasure ends when its receipt says `done`.
`--clone` clones this repository and times `demo` with the packages that are installed here, from `git clone` to the
first page; installing takes minutes more, most of them the network's. The fourth figure is `python -m benchmarks.gate`.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.command import finish
from serving.package import build_bento, free_port, served

REPOSITORY = Path(__file__).resolve().parent.parent
PATIENCE_S = 60.0


def event(kind: str, item_id: str, **fields: Any) -> dict[str, Any]:
    """One row of `events`, now."""
    known = {"event_id": uuid.uuid4().hex, "event_time": datetime.now(UTC).isoformat(), "event_type": kind}
    return {**known, "item_id": item_id, **fields}


def post(client: httpx.Client, path: str, body: object) -> dict[str, Any]:
    """POST that must succeed."""
    answer = client.post(path, json=body)
    answer.raise_for_status()
    told: dict[str, Any] = answer.json()
    return told


def click_to_page(client: httpx.Client) -> float:
    """Milliseconds from a stranger's click to a page that follows it."""
    session = {"session_id": uuid.uuid4().hex}
    page = post(client, "/v1/homepage", session)
    slot = page["modules"][0]["slots"][0]
    clicked = event("click", slot["item_id"], **session, request_id=page["request_id"], position=slot["position"])
    started = time.perf_counter()
    post(client, "/v1/events", {"events": [clicked]})
    while time.perf_counter() - started < PATIENCE_S:
        page = post(client, "/v1/homepage", session)
        if "because_you_viewed" in {module["module"] for module in page["modules"]}:
            return (time.perf_counter() - started) * 1e3
    raise SystemExit("a page never followed its click")


def erased(client: httpx.Client, item_id: str) -> float:
    """Seconds from the wish to be erased to a receipt that says done."""
    user = uuid.uuid4().hex
    post(client, "/v1/events", {"events": [event("purchase", item_id, user_id=user) for _ in range(20)]})
    post(client, "/v1/homepage", {"user_id": user, "session_id": user})
    started = time.perf_counter()
    receipt = client.delete(f"/v1/users/{user}").json()["erasure_id"]
    while client.get(f"/v1/erasures/{receipt}").json()["status"] != "done":
        if time.perf_counter() - started > PATIENCE_S:
            raise SystemExit("an erasure was never done")
        time.sleep(0.02)
    return time.perf_counter() - started


def first_page(place: Path) -> tuple[float, float]:
    """(seconds of `git clone`, seconds from its start to the first page of `demo`)."""
    started, port, checkout = time.perf_counter(), free_port(), place / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(checkout)], check=True)
    cloned = time.perf_counter() - started
    told = {**os.environ, "HOMERANKER_HOME": str(place / "home")}
    command = [sys.executable, "-m", "flows.cli", "demo", "--port", str(port)]
    shop = subprocess.Popen(command, cwd=checkout, env=told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while shop.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/", timeout=5).text.count("data-item") >= 12:
                    return cloned, time.perf_counter() - started
            except httpx.HTTPError:
                time.sleep(0.1)
        raise SystemExit(f"demo ended with status {shop.returncode}")
    finally:
        shop.send_signal(signal.SIGTERM)
        shop.wait(60)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--clicks", type=int, default=200)
    parser.add_argument("--erasures", type=int, default=20)
    parser.add_argument("--clone", action="store_true", help="also time a fresh clone")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        bento = build_bento(asked.model_dir, root / "bento")
        with served(bento, root / "home") as (base, _), httpx.Client(base_url=base, timeout=PATIENCE_S) as client:
            item = post(client, "/v1/homepage", {"session_id": "warm"})["modules"][0]["slots"][0]["item_id"]
            clicks = [click_to_page(client) for _ in range(asked.clicks)]
            erasures = [erased(client, item) for _ in range(asked.erasures)]
        p50, p99 = np.percentile(clicks, [50, 99])
        print(f"click to changed page        p50 {p50:.0f} ms   p99 {p99:.0f} ms   ({asked.clicks} clicks)")
        p50, worst = np.median(erasures), max(erasures)
        print(f"erasure, asked to done       p50 {p50:.2f} s   longest {worst:.2f} s   ({asked.erasures} users)")
        if asked.clone:
            cloned, page = first_page(root)
            told = f"(of it the clone {cloned:.1f} s; packages installed before)"
            print(f"fresh clone to first page    {page:.0f} s   {told}")


if __name__ == "__main__":
    finish(main)
