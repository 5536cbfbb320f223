"""The agents: nine ways to choose the item of a slot, each with the exact probability of every choice.

Choices. An agent is a few lines over (A, F) features: linear bandits keep one ridge regression, networks stand in
networks.py. `exploring` is switched off to judge what was learned; a floor keeps every allowed action possible while it
is on. Sources: Li et al. (2010), LinUCB; Agrawal and Goyal (2013), Thompson; Foster and Rakhlin (2020), SquareCB;
Watkins (1989), Q-learning. Shapes: A actions, F features, S states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from models.policy.rl.problem import Floats, Problem, Step, View

FLOOR = 0.02


class Agent(Protocol):
    """Acts and learns; `probabilities` are exact, sum to 1 and are 0 where an action is not allowed."""

    name: str
    exploring: bool

    def probabilities(self, view: View) -> Floats:
        """(A,) chance of each action here and now."""
        ...

    def learn(self, step: Step) -> None:
        """Take in one step; agents that never learn do nothing."""
        ...


def best_of(worth_A: Floats, view: View, share: float = 0.0) -> Floats:
    """The best allowed action (ties to the lower), and a uniform share over all allowed ones."""
    probability_A = share * view.allowed_A / np.count_nonzero(view.allowed_A)
    probability_A[int(np.where(view.allowed_A, worth_A, -np.inf).argmax())] += 1.0 - share
    return np.asarray(probability_A, dtype=np.float64)


class Uniform:
    """Any allowed action."""

    name = "uniform"

    def __init__(self, problem: Problem, seed: int) -> None:
        self.exploring = False

    def probabilities(self, view: View) -> Floats:
        """All alike."""
        return best_of(np.zeros(view.allowed_A.size), view, 1.0)

    def learn(self, step: Step) -> None:
        """Nothing."""


class Popular(Uniform):
    """The first feature says how popular an item is; the best of it."""

    name = "popular"

    def probabilities(self, view: View) -> Floats:
        """The most popular allowed one."""
        return best_of(view.x_AF[:, 0], view)


class Linear:
    """Greedy on a ridge regression of the reward; the base of the bandits."""

    name = "greedy"
    share = 0.0

    def __init__(self, problem: Problem, seed: int) -> None:
        self.exploring = False
        self._precision_FF, self._target_F = np.eye(problem.features + 1), np.zeros(problem.features + 1)
        self._cov_FF: Floats = np.eye(problem.features + 1, dtype=np.float64)
        self._mean_F: Floats = np.zeros(problem.features + 1)
        self._rng = np.random.default_rng([seed, 2])
        self._seen = 0

    def probabilities(self, view: View) -> Floats:
        """Greedy, with a uniform share while it explores."""
        return best_of(self._worth(view), view, self.share if self.exploring else 0.0)

    def learn(self, step: Step) -> None:
        """One more row of the regression, solved every few rows."""
        x_F = _with_one(step.view.x_AF)[step.action]
        self._precision_FF += np.outer(x_F, x_F)
        self._target_F += step.reward * x_F
        self._seen += 1
        if self._seen % 20 == 0:
            self._cov_FF = np.asarray(np.linalg.inv(self._precision_FF), dtype=np.float64)
            self._mean_F = self._cov_FF @ self._target_F

    def _worth(self, view: View) -> Floats:
        return np.asarray(_with_one(view.x_AF) @ self._mean_F)

    def _spread(self, view: View) -> Floats:
        x_AF = _with_one(view.x_AF)
        return np.asarray(np.sqrt(np.einsum("af,fg,ag->a", x_AF, self._cov_FF, x_AF)))


class EpsilonGreedy(Linear):
    """A tenth of the draws is uniform."""

    name, share = "epsilon-greedy", 0.1


class LinUcb(Linear):
    """Optimism: the mean plus its spread."""

    name = "LinUCB"

    def probabilities(self, view: View) -> Floats:
        """The best upper bound while it explores, with the floor."""
        bonus = 0.5 if self.exploring else 0.0
        worth_A = self._worth(view) + bonus * self._spread(view)
        return best_of(worth_A, view, FLOOR if self.exploring else 0.0)


class Thompson(Linear):
    """A draw of the posterior; its probabilities are counted over many draws and are then what is played."""

    name, draws = "Thompson", 64

    def probabilities(self, view: View) -> Floats:
        """Shares of the posterior draws in which each action is best, with the floor."""
        if not self.exploring:
            return super().probabilities(view)
        root_FF = np.linalg.cholesky(self._cov_FF + 1e-9 * np.eye(len(self._cov_FF)))
        draw_DF = self._mean_F + 0.3 * self._rng.standard_normal((self.draws, self._mean_F.size)) @ root_FF.T
        worth_DA = np.where(view.allowed_A, draw_DF @ _with_one(view.x_AF).T, -np.inf)
        share_A = np.bincount(worth_DA.argmax(axis=1), minlength=view.allowed_A.size) / self.draws
        return np.asarray((1 - FLOOR) * share_A + FLOOR * view.allowed_A / view.allowed_A.sum(), dtype=np.float64)


class SquareCb(Linear):
    """Inverse gap weighting: an action that is worse by g is played with 1 / (A + gamma g)."""

    name, gamma = "SquareCB", 200.0

    def probabilities(self, view: View) -> Floats:
        """Exact by construction."""
        worth_A = np.where(view.allowed_A, self._worth(view), -np.inf)
        best = int(worth_A.argmax())
        if not self.exploring:
            return best_of(worth_A, view)
        gap_A = np.where(view.allowed_A, worth_A[best] - np.where(view.allowed_A, worth_A, 0.0), 0.0)
        probability_A: Floats = np.where(view.allowed_A, 1.0 / (view.allowed_A.sum() + self.gamma * gap_A), 0.0)
        probability_A[best] = 0.0
        probability_A[best] = 1.0 - probability_A.sum()
        return np.asarray(probability_A, dtype=np.float64)


class QLearning:
    """A table over coarse states; the rate falls with the visits of a cell."""

    name = "Q-learning"

    def __init__(self, problem: Problem, seed: int) -> None:
        self.exploring = False
        self._q_SA = np.zeros((problem.states, problem.actions))
        self._visits_SA = np.zeros_like(self._q_SA)
        self._discount, self._steps = problem.discount, 0

    def probabilities(self, view: View) -> Floats:
        """Epsilon-greedy while it explores; epsilon falls from 1 to 0.2."""
        epsilon = max(0.2, 1.0 - self._steps / 5_000) if self.exploring else 0.0
        return best_of(self._q_SA[view.state], view, epsilon)

    def learn(self, step: Step) -> None:
        """Towards reward + discounted best of what comes; a cut by the horizon ends nothing, so it bootstraps there."""
        s, a = step.view.state, step.action
        self._steps += 1
        self._visits_SA[s, a] += 1
        after = self._q_SA[step.after.state][step.after.allowed_A].max(initial=-np.inf)
        target = step.reward + self._discount * (after if np.isfinite(after) else 0.0)
        self._q_SA[s, a] += (target - self._q_SA[s, a]) / self._visits_SA[s, a] ** 0.6


def _with_one(x_AF: Floats) -> Floats:
    return np.concatenate([x_AF, np.ones((len(x_AF), 1))], axis=1)


def make(name: str, problem: Problem, seed: int = 0) -> Agent:
    """An agent by its name; KeyError for an unknown one."""
    return AGENTS[name](problem, seed)


def _networks() -> dict[str, Callable[[Problem, int], Agent]]:
    from models.policy.rl.networks import Dqn, Ppo, Reinforce

    return {one.name: one for one in (Dqn, Ppo, Reinforce)}


AGENTS: dict[str, Callable[[Problem, int], Agent]] = {
    one.name: one for one in (Uniform, Popular, Linear, EpsilonGreedy, LinUcb, Thompson, SquareCb, QLearning)
} | _networks()
