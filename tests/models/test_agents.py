"""One contract for every policy that learns by reinforcement, and problems whose optimum is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.policy.rl import AGENTS, make, train
from models.policy.rl.page import PageProblem
from models.policy.rl.problem import View, small_problems
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
    ("name", "episodes", "share"), [("Q-learning", 1500, 0.99), ("DQN", 250, 0.95), ("PPO", 400, 0.95)]
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
