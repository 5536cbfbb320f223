"""The commands that touch the service and its log."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from features.errors import HomerankerError, UsageError
from features.schema import MAX_ID_LENGTH
from flows.registry import Registry


def serve_champion(
    registry: Registry, host: str, port: int, workers: int, fallback: bool, beginning: Callable[[], None]
) -> int:
    """Serve the champion's Bento until SIGTERM; the exit status of the service.

    Without a champion: exit 1, or with `fallback` the newest finished run's catalogue as a popular page.
    """
    from serving.package import build_bento, serve

    home, champion = registry.home, registry.pointer("champion")
    if champion is not None:
        return serve(home.runs / champion["run"] / "bento", home.root, host, port, workers, fallback, beginning)
    if not fallback:
        raise HomerankerError("there is no champion to serve; homeranker retrain --promote makes one (or --fallback)")
    try:
        bento = registry.run_dir("last") / "bento"
    except UsageError:  # no run yet: a shop that comes over HTTP alone
        bento = build_bento(None, home.root / "bentos" / "no-model")
    return serve(bento, home.root, host, port, workers, True, beginning)


def why_not(home: Path, item: str, user: str | None) -> str:
    """What keeps an item off a page, asked of the state that the service of this home would serve from."""
    from serving import answers
    from serving.params import from_environment
    from serving.runtime import Runtime

    environment = dataclasses.replace(from_environment(), home=home.absolute(), fallback=True)
    runtime = Runtime(environment, None)
    try:
        runtime.start()
        runtime.settle()
        return answers.why_not(runtime, item, user, int(time.time() * 1e6))
    finally:
        runtime.stop()


def unlearn(home: Path, since: str, until: str | None) -> dict[str, Any]:
    """Roll online learning back: leave out what arrived from `since` to `until` (RFC 3339), by default until now."""
    from serving.contract import format_time, now_us, parse_time
    from serving.event_log import EventLog
    from serving.learning import unlearn as leave_out

    try:
        start, end = parse_time(since), parse_time(until) if until else now_us()
    except ValueError as error:
        raise UsageError(f"--since and --until: {error}") from error
    if end < start:
        raise UsageError(f"--until {until} lies before --since {since}")
    log = EventLog(home)
    try:
        leave_out(log, start, end)
    finally:
        log.close()
    return {"since": format_time(start), "until": format_time(end)}


def export(home: Path, dest: Path, until: str | None) -> dict[str, Any]:
    """Write the log as canonical tables; counts."""
    from serving.export import export_log

    try:
        day = None if until is None else date.fromisoformat(until)
    except ValueError as error:
        raise UsageError(f"--until {until}: no date; write YYYY-MM-DD (UTC, inclusive)") from error
    return dataclasses.asdict(export_log(home, dest, day))


def erase(home: Path, user: str) -> dict[str, Any]:
    """Ask for the erasure in the log and carry it out here, by the service's own steps; returns its receipt."""
    from serving import erasure
    from serving.event_log import EventLog
    from serving.online import OnlineHistory
    from serving.params import from_environment
    from serving.session import RedisSessions
    from serving.tokens import Signer, read_secret

    text = user.encode("utf-8", "ignore").decode()  # without what no text holds, such as half of a character
    if not 1 <= len(user) <= MAX_ID_LENGTH or text != user or "\0" in user:
        raise UsageError(f"{user!r} is no user id: ids are 1 to {MAX_ID_LENGTH} characters; nothing was erased")
    log, redis_url = EventLog(home), from_environment().redis_url
    online, shared = OnlineHistory(home, redis_url), RedisSessions(redis_url) if redis_url else None
    try:
        asked = erasure.request(log, user, int(time.time() * 1e6))
        online.open()
        signer = Signer(read_secret(home))
        while (told := erasure.receipt(log, asked) or {}).get("status") == "pending":
            erasure.perform(log, signer, shared, online)
            time.sleep(0.1)  # where a service is at it, this waits for it
        return told
    finally:
        log.close()
