"""The platform without containers: the parts of compose.yaml as plain processes, from the same settings, end to end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.package import free_port
from tests.flows.checkout import Checkout, make_checkout, quarter_of_the_shop

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not POSTGRES or not shutil.which("prometheus"), reason="needs postgresql and prometheus"),
]
KEY = "a-key-of-the-test"


@contextmanager
def running(words: list[str], log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process until the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(words, env=os.environ | variables, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def until(check: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = check()
        except (OSError, ValueError, KeyError, IndexError):
            found = None
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds} s")


def ask(url: str, body: Any = None, key: str = "") -> Any:
    headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
        text = answer.read()
        return json.loads(text) if text.startswith((b"{", b"[")) else text


def as_postgres(*words: str) -> list[str]:
    """The server refuses root."""
    return (
        ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words] if os.getuid() == 0 else [*words]
    )


@contextmanager
def postgres(place: Path) -> Iterator[str]:
    """The address of a PostgreSQL with the user and the database that compose names."""
    told, port, tools = COMPOSE["postgres"]["environment"], free_port(), POSTGRES[-1]
    data = Path("/tmp") / f"homeranker-pg-{os.getpid()}"  # noqa: S108 - the server's user must reach it
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o700)
    if os.getuid() == 0:
        shutil.chown(data, "postgres", "postgres")
    user, base = told["POSTGRES_USER"], told["POSTGRES_DB"]
    make = [str(tools / "initdb"), "-D", str(data / "db"), "-U", user, "-A", "trust"]
    subprocess.run(as_postgres(*make), check=True, capture_output=True, cwd=data)
    start = [str(tools / "postgres"), "-D", str(data / "db"), "-p", str(port), "-k", str(data), "-h", "127.0.0.1"]
    try:
        with running(as_postgres(*start), place / "postgres.log"):
            create = [str(tools / "createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", user, base]
            until(lambda: subprocess.run(create, check=False, capture_output=True).returncode == 0, 60)
            yield f"postgresql+asyncpg://{user}@127.0.0.1:{port}/{base}"
    finally:
        shutil.rmtree(data, ignore_errors=True)


def champion(place: Path) -> Checkout:
    """A checkout with a promoted run."""
    checkout = make_checkout(place)
    shop = quarter_of_the_shop(place)
    run = checkout.retrain(shop)
    words = ["promote", run["run"]]
    if run["verdict"] != "pass":
        words += ["--override", "--by", "test", "--why", "the platform is tested, not the model"]
    status, _, err = checkout.run(*words)
    assert status == 0, err
    return checkout


def test_the_parts_work_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        redis, serve, prefect, prom = (free_port() for _ in range(4))
        redis_words = COMPOSE["redis"]["command"]
        stack.enter_context(
            running([*redis_words, "--port", str(redis), "--dir", str(tmp_path)], tmp_path / "redis.log")
        )
        database = stack.enter_context(postgres(tmp_path))
        api = f"http://127.0.0.1:{prefect}/api"
        told = {name: str(value) for name, value in COMPOSE["prefect"]["environment"].items()}
        told |= {"PREFECT_UI_API_URL": api, "PREFECT_HOME": str(tmp_path / "prefect")}
        told["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
        words = [sys.executable, "-m", "prefect", "server", "start", "--port", str(prefect)]
        stack.enter_context(running(words, tmp_path / "prefect.log", **told))
        monkeypatch.setenv("HOMERANKER_REDIS_URL", f"redis://127.0.0.1:{redis}/0")
        checkout = champion(tmp_path)
        keys = tmp_path / "api_keys"
        keys.write_text(KEY + "\n")
        monkeypatch.setenv("HOMERANKER_API_KEYS_FILE", str(keys))
        workers = COMPOSE["service"]["environment"]["HOMERANKER_WORKERS"]
        service = checkout.start("serve", "--port", str(serve), "--workers", workers)
        stack.callback(lambda: (service.terminate(), service.communicate(timeout=60)))
        base = f"http://127.0.0.1:{serve}"
        until(lambda: ask(f"{base}/readyz"), 120)
        history = ask(f"{base}/v1/homepage", {"session_id": "s1", "user_id": "12748"}, KEY)
        assert history["fallback"] is None and len(history["modules"]) >= 1
        item = history["modules"][0]["slots"][0]["item_id"]
        event = {"event_id": "e1", "event_time": "2026-01-01T00:00:00Z", "event_type": "click", "item_id": item}
        answer = ask(f"{base}/v1/events", {"events": [event | {"session_id": "s1"}]}, KEY)
        assert answer["accepted"] == 1

        config = prometheus_config(tmp_path, serve)
        words = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        words += [f"--web.listen-address=127.0.0.1:{prom}"]
        stack.enter_context(running(words, tmp_path / "prometheus.log"))
        query = urllib.parse.quote('sum(homeranker_requests_total{route="/v1/homepage",status="200"})')
        found = until(lambda: ask(f"http://127.0.0.1:{prom}/api/v1/query?query={query}")["data"]["result"], 90)
        assert float(found[0]["value"][1]) >= 1
        rules = ask(f"http://127.0.0.1:{prom}/api/v1/rules")["data"]["groups"][0]["rules"]
        assert all(rule["health"] in ("ok", "unknown") for rule in rules)

        until(lambda: ask(f"{api}/health"), 180)
        monkeypatch.setenv("PREFECT_API_URL", api)
        words = ["schedule", "--cron", "0 3 * * *", "--data", str(tmp_path / "shop"), "--json"]
        status, deployed, err = checkout.run(*words)
        assert status == 0, err
        assert isinstance(deployed, dict)
        watch = deployed["deployments"]["watch"]
        flow_run = ask(f"{api}/deployments/{watch}/create_flow_run", {"parameters": {"on_new_data": False}})
        work = [sys.executable, "-m", "prefect", "worker", "start", "--pool", deployed["pool"], "--type", "process"]
        variables = checkout.environment() | {"PREFECT_HOME": str(tmp_path / "worker")}
        stack.enter_context(running(work, tmp_path / "worker.log", **variables))
        state = until(lambda: finished(ask(f"{api}/flow_runs/{flow_run['id']}")), 240)
        assert state == "COMPLETED", (tmp_path / "worker.log").read_text()[-3000:]


def finished(run: dict[str, Any]) -> str | None:
    return run["state_type"] if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED") else None


def prometheus_config(place: Path, port: int) -> Path:
    """The shipped configuration, with this machine's address of the service and a quicker beat."""
    told = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    told["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
    told["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{port}"]
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", place / "alerts.yml")
    path = place / "prometheus.yml"
    path.write_text(yaml.safe_dump(told))
    checked = subprocess.run(["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return path
