"""Parameters of the closed loop: its shop, the days before it, and what its nights change of a retrain."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from models.simulator.params import SimulatorParams

# A night has minutes: fewer lists and pages than a shop's own retrain, no sequence network.
NIGHT: dict[str, dict[str, Any]] = {
    "split": {"tune_days": 1, "gate_days": 1},
    "train": {
        "threads": 2,
        "use_sequence": False,
        "tune_users": 100,
        "examples": {"cuts": 2, "tune_cuts": 1, "places": 160, "max_users_per_cut": 300},
        "ranker": {"loop": {"epochs": 2}},
    },
    "gate": {"max_users": 250},
    "policy": {
        "value": {"max_pages": 14_000},
        "ope": {"margin": 0.05, "min_pages": 200, "min_effective": 50},
    },
}


@dataclass(frozen=True)
class LoopParams:
    """The loop's shop and the days before it; the shop's seed and sessions a day come from the command."""

    warm_days: int = 10
    old_page_weight: float = 1.5  # of popularity in the page that the shop had before
    old_page_logged: bool = True  # false: before its first model the shop logged events only, and not what it showed
    shop: SimulatorParams = field(default_factory=lambda: SimulatorParams(users=1000, bots=1))
