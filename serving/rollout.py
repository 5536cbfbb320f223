"""Shadow and canary: a second model beside the champion, and the reasons that send it home by itself.

Choices. Who gets the canary is decided by a keyed hash of the person, so it is sticky, the same on every worker and
not to be guessed; a shadow ranks a share of pages without showing one, and its pages are logged as such and never
exported. Every few seconds the newest pages of both arms are compared; one clear fault ends the rollout, and a rollout
that nobody meets is held for a while and then ended too: no evidence is no reason to stay. Rewards are compared by a
confidence sequence, which may be looked at as often as one likes.
Source: Howard, Ramdas, McAuliffe, Sekhon (2021), time-uniform Chernoff bounds, the polynomial stitched boundary.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from features.errors import ArtifactError

ROLLOUT = Path("registry") / "rollout"
SHADOW, CANARY, ENDED = "shadow", "canary", "ended"


@dataclass(frozen=True)
class RolloutParams:
    """When a rollout goes back; shares lie between 0 and 1."""

    min_pages: int = 50  # of each arm, before a share is judged
    min_timed: int = 100
    errors: float = 0.01  # more than the champion's share by this
    fallbacks: float = 0.05
    empty: float = 0.01
    p99_ratio: float = 2.0
    p99_floor_s: float = 0.1  # a p99 below this is never too slow
    score_spread: float = 1e-6
    reward_margin: float = 0.0  # "not worse" by more than this
    level: float = 0.95
    hold_s: float = 900.0  # without a page of the new model for so long, it goes back


@dataclass(frozen=True)
class Rollout:
    """What `homeranker promote --shadow|--canary` wrote."""

    mode: str
    share: float  # per cent of people (canary) or of pages (shadow)
    run: str
    version: str
    model_dir: str
    since_us: int


@dataclass
class Arm:
    """What one model did since the rollout began, as far as this worker knows."""

    pages: int = 0
    errors: int = 0
    fallbacks: int = 0
    empty: int = 0
    rewarded: int = 0  # pages with a click or more
    score_spread: float = 1.0
    seconds: list[float] = field(default_factory=list)  # newest pages

    def share(self, count: int) -> float:
        """Of the pages and errors."""
        return count / max(1, self.pages + self.errors)


def read_rollout(home: Path) -> Rollout | None:
    """The rollout that is under way, None without one; ArtifactError where the file makes no sense."""
    path = home / ROLLOUT
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: no rollout can be read from it: {error!r}") from error
    if told.get("mode") not in (SHADOW, CANARY):
        return None
    names = ("mode", "share", "run", "version", "model_dir", "since_us")
    missing = [name for name in names if name not in told]
    if missing:
        raise ArtifactError(f"{path}: {', '.join(missing)} missing; start the rollout again with homeranker promote")
    return Rollout(**{name: told[name] for name in names})


def is_chosen(secret: bytes, person: str, share: float) -> bool:
    """Whether a person belongs to the first `share` per cent; sticky, and uniform over people."""
    digest = hmac.new(secret, b"rollout:" + person.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 < share / 100


def radius(n: int, level: float) -> float:
    """Half width of a confidence sequence for the mean of n values in [0, 1]; it holds for all n at once."""
    if n == 0:
        return math.inf
    v = max(1.0, n / 4)
    return (
        1.7
        * math.sqrt(v * (math.log(math.log(2 * v) + 1e-9) if v > 2 else 0.0) + v * 0.72 * math.log(5.2 / (1 - level)))
        / n
    )


def why_back(new: Arm, old: Arm, params: RolloutParams, age_s: float) -> str | None:
    """The reason to end a rollout now, None where it may go on."""
    if not math.isfinite(new.score_spread) or new.score_spread < params.score_spread:
        return "its scores are all alike or no numbers"
    seen = new.pages + new.errors
    if seen == 0:
        return f"no page of it for {age_s:.0f} s" if age_s > params.hold_s else None
    if seen >= params.min_pages:
        limits = {
            "errors": (new.errors, old.errors, params.errors),
            "fallback pages": (new.fallbacks, old.fallbacks, params.fallbacks),
            "empty pages": (new.empty, old.empty, params.empty),
        }
        for what, (mine, theirs, more) in limits.items():
            if new.share(mine) > old.share(theirs) + more:
                return f"{what}: {new.share(mine):.1%} against {old.share(theirs):.1%} of the champion's"
    if min(len(new.seconds), len(old.seconds)) >= params.min_timed:
        mine_s, theirs_s = p99(new.seconds), p99(old.seconds)
        if mine_s > max(params.p99_floor_s, params.p99_ratio * theirs_s):
            return f"p99 {1000 * mine_s:.0f} ms against {1000 * theirs_s:.0f} ms of the champion's"
    return _worse(new, old, params)


def _worse(new: Arm, old: Arm, params: RolloutParams) -> str | None:
    """Whether the sequence of rewards excludes "not worse": both arms' bounds, each at half the error."""
    level = 1 - (1 - params.level) / 2
    mine, theirs = new.rewarded / max(1, new.pages), old.rewarded / max(1, old.pages)
    high, low = mine + radius(new.pages, level), theirs - radius(old.pages, level)
    if high < low - params.reward_margin:
        return f"pages with a click: {mine:.1%} (at most {high:.1%}) against {theirs:.1%} (at least {low:.1%})"
    return None


def p99(seconds: list[float]) -> float:
    """The value that 99 of 100 do not exceed."""
    return sorted(seconds)[min(len(seconds) - 1, math.ceil(0.99 * len(seconds)) - 1)]


def ended(rollout: Rollout, why: str, at_us: int) -> Mapping[str, object]:
    """What the rollout's file says after the service ended it."""
    return {
        "mode": ENDED,
        "was": rollout.mode,
        "run": rollout.run,
        "version": rollout.version,
        "why": why,
        "at_us": at_us,
    }
