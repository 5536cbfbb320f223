"""Every policy of the protocol on the simulated page, and on small problems whose optimum is known.

    python -m benchmarks.policies [--episodes N] [--seeds S] [--only a,b]   value per session on the page. SIMULATED.
    python -m benchmarks.policies --small [--seeds S]                       share of the optimum on three problems

A share of the gap of 0 is the popular page, of 1 the oracle's, which knows taste and intent. "discount 0" fills each
slot for itself: a horizon above one page has to beat it, or the bandit ships.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks.command import finish
from models.policy.rl import AGENTS, make, train
from models.policy.rl.agents import Agent, best_of
from models.policy.rl.networks import Dqn
from models.policy.rl.page import PageProblem
from models.policy.rl.problem import Step, View, small_problems
from models.simulator import SimulatorParams

SHOP = SimulatorParams(users=400, items=400, sessions_per_day=400, days=4)
JUDGED = 300  # sessions
SMALL = {"Q-learning": 1500, "DQN": 250, "PPO": 800}


class Oracle:
    """The best candidate for the slot by the truth."""

    name, exploring = "oracle", False

    def __init__(self, problem: PageProblem) -> None:
        self._problem = problem

    def probabilities(self, view: View) -> np.ndarray:
        """All on the best."""
        return best_of(self._problem.best(), view)

    def learn(self, step: Step) -> None:
        """Nothing."""


def judged(problem: PageProblem, agent: Agent, sessions: int, seed: int) -> np.ndarray:
    """(sessions,) GBP of each session; the same shoppers and luck for every agent."""
    found = np.zeros(sessions)
    for session in range(sessions):
        rng = np.random.default_rng([seed, 11, session])
        view, ended = problem.reset(rng), False
        while not ended:
            probability_A = agent.probabilities(view)
            view, _, ended = problem.step(int(rng.choice(probability_A.size, p=probability_A)), rng)
        found[session] = sum(problem.values)
    return found


def from_logs(problem: PageProblem, episodes: int, seed: int) -> Agent:
    """A conservative DQN that only sees what an epsilon-greedy bandit's sessions logged."""
    steps: list[Step] = []

    class Recorder:
        name, exploring = "recorder", True

        def __init__(self) -> None:
            self.inner = make("epsilon-greedy", problem, seed)
            self.inner.exploring = True

        def probabilities(self, view: View) -> np.ndarray:
            return self.inner.probabilities(view)

        def learn(self, step: Step) -> None:
            self.inner.learn(step)
            steps.append(step)

    train(problem, Recorder(), episodes, seed)
    agent = Dqn(problem, seed, conservative=0.05)
    for step in steps:
        agent.learn(step)
    return agent


def print_page(episodes: int, seeds: int, only: list[str] | None) -> None:
    """The table."""
    problem, myopic = PageProblem(SHOP), PageProblem(SHOP, discount=0.0)
    rows: dict[str, tuple[list[np.ndarray], float]] = {}
    names = [name for name in AGENTS if only is None or name in only or name == "popular"]
    print(f"simulated: GBP a session over {JUDGED} sessions a seed, {seeds} seeds, {episodes} sessions of training")
    for name in ["oracle", *names, "DQN, discount 0", "PPO, discount 0", "DQN from logs, conservative"]:
        if only is not None and name not in ("oracle", "popular") and name.split(",")[0] not in only:
            continue
        values, seconds = [], 0.0
        for seed in range(seeds):
            start = time.perf_counter()
            place = myopic if name.endswith("discount 0") else problem
            if name == "oracle":
                agent: Agent = Oracle(problem)
            elif name.startswith("DQN from logs"):
                agent = from_logs(problem, episodes, seed)
            else:
                agent = make(name.split(",")[0], place, seed)
                train(place, agent, episodes, seed)
            seconds += (time.perf_counter() - start) / seeds
            values.append(judged(problem, agent, JUDGED, seed))
        rows[name] = (values, seconds)
        mean_S = np.array([value.mean() for value in values])
        half = 1.96 * float(np.concatenate(values).std()) / np.sqrt(sum(value.size for value in values))
        share = ""
        if "popular" in rows:
            low, high = (np.mean([v.mean() for v in rows[one][0]]) for one in ("popular", "oracle"))
            share = f"{(mean_S.mean() - low) / (high - low):8.1%}"
        print(f"{name:30}{mean_S.mean():9.4f} +- {half:.4f}  gap {share:>8}  {seconds:7.1f} s", flush=True)


def print_small(seeds: int) -> None:
    """Shares of the optimum by value iteration."""
    for title, problem in small_problems().items():
        for name, episodes in SMALL.items():
            shares = []
            for seed in range(seeds):
                agent = make(name, problem, seed)
                train(problem, agent, episodes, seed)
                shares.append(problem.share_of_optimum(agent))
            told = ", ".join(f"{share:.3f}" for share in shares)
            print(f"{title:10}{name:12}mean {np.mean(shares):.4f}, least {min(shares):.4f} of the optimum ({told})")


def main() -> None:
    """Parse the command line and print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", type=lambda text: text.split(","))
    args = parser.parse_args()
    if args.small:
        print_small(args.seeds)
    else:
        print_page(args.episodes, args.seeds, args.only)


if __name__ == "__main__":
    finish(main)
