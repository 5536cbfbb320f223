"""One contract for every policy that learns by reinforcement, and problems whose optimum is known."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.policy.rl import AGENTS, make, train
from models.policy.rl.page import PageProblem
from models.policy.rl.problem import Tabular, View, small_problems
from models.simulator import SimulatorParams

SHOP = SimulatorParams(users=60, items=120, sessions_per_day=60, days=2)
SMALL = small_problems()


@pytest.fixture(scope="module")
def page() -> PageProblem:
    return PageProblem(SHOP, candidates=10, slots=3)


@pytest.mark.parametrize("name", AGENTS)
@given(seed=st.integers(0, 10_000), exploring=st.booleans())
@settings(max_examples=10, deadline=None)
def test_probabilities_are_exact_and_keep_to_what_is_allowed(
    page: PageProblem, name: str, seed: int, exploring: bool
) -> None:
    rng = np.random.default_rng(seed)
    agent = make(name, page, seed)
    agent.exploring = exploring
    allowed_A = rng.random(10) < 0.6
    allowed_A[rng.integers(10)] = True
    view = View(int(rng.integers(page.states)), rng.standard_normal((10, page.features)), allowed_A)
    probability_A = agent.probabilities(view)
    assert probability_A.sum() == pytest.approx(1.0)
    assert (probability_A >= 0).all() and (probability_A[~allowed_A] == 0).all()


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_learns_on_the_page_and_the_same_seed_learns_the_same(page: PageProblem, name: str) -> None:
    told = []
    for _ in range(2):
        agent = make(name, page, 3)
        train(page, agent, 4, 3)
        told.append(agent.probabilities(page.reset(np.random.default_rng(5))))
    assert np.array_equal(*told)


@pytest.mark.parametrize("title", SMALL)
def test_q_learning_finds_the_optimum(title: str) -> None:
    problem = SMALL[title]
    agent = make("Q-learning", problem, 0)
    train(problem, agent, 600, 0)
    assert problem.share_of_optimum(agent) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("title", SMALL)
@pytest.mark.parametrize(
    ("name", "episodes", "share"), [("Q-learning", 1500, 0.99), ("DQN", 250, 0.95), ("PPO", 800, 0.95)]
)
def test_learners_reach_their_share_of_the_optimum_over_five_seeds(
    title: str, name: str, episodes: int, share: float
) -> None:
    problem, found = SMALL[title], []
    for seed in range(5):
        agent = make(name, problem, seed)
        train(problem, agent, episodes, seed)
        found.append(problem.share_of_optimum(agent))
    assert np.mean(found) >= share, found


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("title", SMALL)
@pytest.mark.parametrize(("name", "episodes"), [("DQN", 250), ("PPO", 800)])
def test_ours_lie_within_the_interval_of_stable_baselines(title: str, name: str, episodes: int) -> None:
    """Three seeds each on the same problem; ours is not below theirs beyond its spread."""
    baselines = pytest.importorskip("stable_baselines3")
    problem, ours, theirs = SMALL[title], [], []
    for seed in range(3):
        agent = make(name, problem, seed)
        train(problem, agent, episodes, seed)
        ours.append(problem.share_of_optimum(agent))
        model = getattr(baselines, name)("MlpPolicy", _Gym(problem), seed=seed, gamma=problem.discount, device="cpu")
        model.learn(16_000)
        policy_SA = np.eye(problem.actions)[
            [int(model.predict(np.eye(problem.states, dtype=np.float32)[s], deterministic=True)[0])
             for s in range(problem.states)]
        ]  # fmt: skip
        theirs.append(float(problem.values(policy_SA)[0] / problem.values()[0]))
    half = 1.96 * np.std(theirs, ddof=1) / np.sqrt(len(theirs))
    assert np.mean(ours) >= np.mean(theirs) - max(half, 0.02), (ours, theirs)


class _Gym(gymnasium.Env[np.ndarray, np.int64]):
    """A small problem as Gymnasium sees it: the state's one-hot code."""

    def __init__(self, problem: Tabular) -> None:
        self._problem, self._rng = problem, np.random.default_rng(0)
        self.observation_space = gymnasium.spaces.Box(0.0, 1.0, (problem.states,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(problem.actions)

    def reset(self, *, seed: int | None = None, options: object = None) -> tuple[np.ndarray, dict[str, object]]:
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        return self._seen(self._problem.reset(self._rng)), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
        view, reward, ended = self._problem.step(int(action), self._rng)
        return self._seen(view), reward, False, ended, {}

    def _seen(self, view: View) -> np.ndarray:
        return np.eye(self._problem.states, dtype=np.float32)[view.state]
