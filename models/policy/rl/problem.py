"""What an agent plays: a problem of states and actions, its steps, and the loop that plays it.

Choices. One interface for three small decision problems (whose optimum value iteration knows) and for the simulated
page: a state is a coarse number (for tables) and, for every action, a row of features (for networks), because on a page
the actions are other items each time. Shapes: A actions, F features, S states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from models.policy.rl.agents import Agent

SWEEPS = 500
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class View:
    """What an agent sees: `state` of `Problem.states`, (A, F) features, (A,) what may be done."""

    state: int
    x_AF: Floats
    allowed_A: Bools


@dataclass(frozen=True, eq=False)
class Step:
    """One move: what was seen, what was done with which probability, what came of it."""

    view: View
    action: int
    probability: float
    reward: float
    after: View
    ended: bool


class Problem(Protocol):
    """An episodic problem with a fixed number of actions; `reset` draws a new episode."""

    states: int
    actions: int
    features: int
    discount: float

    def reset(self, rng: np.random.Generator) -> View:
        """A new episode."""
        ...

    def step(self, action: int, rng: np.random.Generator) -> tuple[View, float, bool]:
        """(what is seen next, reward, whether the episode ended)."""
        ...


def play(problem: Problem, agent: Agent, episodes: int, rng: np.random.Generator, learn: bool = False) -> Floats:
    """(episodes,) discounted returns; with `learn` the agent sees every step."""
    returns = np.zeros(episodes)
    for episode in range(episodes):
        view, ended, weight = problem.reset(rng), False, 1.0
        while not ended:
            probability_A = agent.probabilities(view)
            action = int(rng.choice(probability_A.size, p=probability_A))
            after, reward, ended = problem.step(action, rng)
            returns[episode] += weight * reward
            weight *= problem.discount
            if learn:
                agent.learn(Step(view, action, float(probability_A[action]), reward, after, ended))
            view = after
    return returns


def train(problem: Problem, agent: Agent, episodes: int, seed: int) -> None:
    """Let the agent learn by playing."""
    agent.exploring = True
    play(problem, agent, episodes, np.random.default_rng([seed, 1]), learn=True)
    agent.exploring = False


class Tabular:
    """A known decision problem: (S, A, S) transitions, (S, A) rewards; ends with probability 1 - `goes_on`.

    Features are the state's one-hot code times the action's, so that a network could learn any table.
    """

    def __init__(self, move_SAS: Floats, reward_SA: Floats, discount: float, start: int = 0, horizon: int = 30) -> None:
        self.move_SAS, self.reward_SA, self.discount = move_SAS, reward_SA, discount
        self.states, self.actions = reward_SA.shape
        self.features = self.states + self.actions
        self._start, self._horizon, self._at, self._left = start, horizon, start, horizon

    def view(self, state: int) -> View:
        """A state as an agent sees it."""
        x_AF = np.zeros((self.actions, self.features))
        x_AF[:, state] = 1.0
        x_AF[np.arange(self.actions), self.states + np.arange(self.actions)] = 1.0
        return View(state, x_AF, np.ones(self.actions, np.bool_))

    def reset(self, rng: np.random.Generator) -> View:
        """Back to the start."""
        self._at, self._left = self._start, self._horizon
        return self.view(self._at)

    def step(self, action: int, rng: np.random.Generator) -> tuple[View, float, bool]:
        """Move as the table says; the horizon cuts an episode."""
        reward = float(self.reward_SA[self._at, action])
        self._at = int(rng.choice(self.states, p=self.move_SAS[self._at, action]))
        self._left -= 1
        return self.view(self._at), reward, self._left == 0

    def values(self, policy_SA: Floats | None = None) -> Floats:
        """(S,) discounted values without a horizon, of the best policy or of a given one: value iteration."""
        value_S = np.zeros(self.states)
        for _ in range(SWEEPS):
            worth_SA = self.reward_SA + self.discount * self.move_SAS @ value_S
            value_S = worth_SA.max(axis=1) if policy_SA is None else (policy_SA * worth_SA).sum(axis=1)
        return value_S

    def share_of_optimum(self, agent: Agent) -> float:
        """An agent's value from the start over the best policy's."""
        policy_SA = np.stack([agent.probabilities(self.view(state)) for state in range(self.states)])
        return float(self.values(policy_SA)[self._start] / self.values()[self._start])


def small_problems() -> dict[str, Tabular]:
    """Three: a corridor with a bait, a shop that bores its visitors, a slippery ring."""
    corridor = Tabular(*_corridor(), discount=0.9, horizon=20)
    boredom = Tabular(*_boredom(), discount=0.95, horizon=20)
    ring = Tabular(*_ring(), discount=0.9, horizon=25)
    return {"corridor": corridor, "boredom": boredom, "ring": ring}


def _corridor() -> tuple[Floats, Floats]:
    """Six rooms: left pays a little at once, right pays a lot at the end."""
    move, reward = np.zeros((6, 2, 6)), np.zeros((6, 2))
    for room in range(6):
        move[room, 0, 0] = 1.0
        move[room, 1, min(room + 1, 5)] = 1.0
    reward[:, 0], reward[5, 1] = 0.1, 1.0
    return move, reward


def _boredom() -> tuple[Floats, Floats]:
    """Interest falls with every hard sell (which pays more while interest is there) and recovers with a soft one."""
    levels = 4
    move, reward = np.zeros((levels, 3, levels)), np.zeros((levels, 3))
    for level in range(levels):
        for action, change in enumerate((1, 0, -1)):  # soft, mild, hard
            move[level, action, int(np.clip(level + change, 0, levels - 1))] = 0.9
            move[level, action, level] += 0.1
        reward[level] = (0.1, 0.3 * level / 3, 1.0 * level / 3)
    return move, reward


def _ring() -> tuple[Floats, Floats]:
    """Eight places in a ring, two directions and a stop; steps slip, two places pay differently for stopping."""
    n = 8
    move, reward = np.zeros((n, 3, n)), np.zeros((n, 3))
    for place in range(n):
        for action, change in enumerate((-1, 1)):
            move[place, action, (place + change) % n] = 0.8
            move[place, action, (place - change) % n] = 0.2
        move[place, 2, place] = 1.0
    reward[2, 2], reward[5, 2] = 0.4, 1.0
    return move, reward
