"""How often does the gate let an equal model pass, and how often a worse or a better one?

    python -m benchmarks.gate [--home .homeranker] [--run last] [--trials 2000]

Choices. Users and their differences are real: the values by user of a finished run. What is SIMULATED is the pair of
models: the challenger's difference to the champion is the run's own difference to its trees, user by user, centred,
with a random sign and resampled, then moved by a stated share of the mean. So noise, ties and zeros are those of this
shop, and the truth is known. Only the rule against the champion is asked; a real gate has more rules and passes less.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.command import finish
from flows.paths import Home
from flows.registry import Registry
from models.gate import PASS, GateParams, compare

SHIFTS = (-0.10, -0.05, -0.02, 0.0, 0.02, 0.05, 0.10)
COLUMN = "ndcg@10"


def passed(champion_N: np.ndarray, difference_N: np.ndarray, shift: float, trials: int, params: GateParams) -> float:
    """Share of trials in which a challenger whose true mean lies `shift` (a share) away passes."""
    rng = np.random.default_rng(7)
    centred_N, users = difference_N - difference_N.mean(), difference_N.size
    moved = shift * float(champion_N.mean())
    count = 0
    for _ in range(trials):
        at = rng.integers(0, users, users)
        noise_N = centred_N[at] * rng.choice([-1.0, 1.0], users)
        # Rounded as far as values of users are: a bootstrap of few distinct values is quick.
        mine_N = np.round(champion_N[at] + noise_N + moved, 4)
        count += compare(mine_N, np.round(champion_N[at], 4), params.margin_champion, params.level)[0] == PASS
    return count / trials


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Share of equal, worse and better models that the gate lets pass")
    parser.add_argument("--home", type=Path, default=Home.from_environment().root)
    parser.add_argument("--run", default="last")
    parser.add_argument("--trials", type=int, default=2000)
    asked = parser.parse_args()
    place = Registry(Home(asked.home)).run_dir(asked.run)
    table = pq.read_table(place / "evaluation" / "per_user.parquet")
    champion_N, other_N = (table[f"{name}/{COLUMN}"].to_numpy() for name in ("challenger", "lightgbm"))
    params = GateParams()
    print(f"{champion_N.size} real users of run {place.name}; pairs of models SIMULATED from their differences")
    print(f"rule: lower bound of the paired difference > {params.margin_champion:+g} at level {params.level:g}\n")
    print(f"{'true difference':>16}  {'lets pass':>9}  of {asked.trials}")
    for shift in SHIFTS:
        share = passed(champion_N, champion_N - other_N, shift, asked.trials, params)
        print(f"{shift:>+15.0%}   {share:>8.1%}")


if __name__ == "__main__":
    finish(main)
