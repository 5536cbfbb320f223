"""The agents with a network: DQN, PPO and off-policy REINFORCE, over features of every action.

Choices. A network scores (A, F) rows one by one and reads the page through their mean, so that the same weights serve
any set of items. DQN is double and dueling, with replay and a target network; from logs it is conservative: the
log-sum-exp of all actions is pushed down, the logged one up. PPO clips the ratio and averages advantages (GAE).
REINFORCE learns from logs alone: rewards weighted by clipped propensity ratios with the top-K factor of the page.
Sources: van Hasselt (2016), Wang (2016), Kumar (2020), Schulman (2017), Chen et al. (2019).
Shapes: A actions, F features, B steps of a batch.
"""

from __future__ import annotations

import copy
from collections import deque

import numpy as np
import torch
from torch import nn

from models.policy.rl.problem import Floats, Problem, Step, View

HIDDEN = 64


class Scorer(nn.Module):
    """(B, A, F) -> (B, A) scores and (B,) a value of the state."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2 * features, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh())
        self.action, self.value = nn.Linear(HIDDEN, 1), nn.Linear(HIDDEN, 1)

    def forward(self, x_BAF: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores and values."""
        whole_BAF = x_BAF.mean(dim=1, keepdim=True).expand_as(x_BAF)
        body_BAH = self.body(torch.cat([x_BAF, whole_BAF], dim=2))
        return self.action(body_BAH)[..., 0], self.value(body_BAH.mean(dim=1))[:, 0]


def _stacked(views: list[View]) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.from_numpy(np.stack([view.x_AF for view in views]).astype(np.float32))
    return x, torch.from_numpy(np.stack([view.allowed_A for view in views]))


class _Network:
    """What the three share."""

    name = ""
    rate = 1e-3

    def __init__(self, problem: Problem, seed: int) -> None:
        torch.manual_seed(seed)
        self.exploring = False
        self.net = Scorer(problem.features)
        self.discount = problem.discount
        self._optimizer = torch.optim.Adam(self.net.parameters(), lr=self.rate)
        self._rng = np.random.default_rng([seed, 3])

    def _scores(self, view: View) -> Floats:
        with torch.inference_mode():
            x_BAF, _ = _stacked([view])
            return self.net(x_BAF)[0][0].double().numpy()  # type: ignore[no-any-return]

    def _step(self, loss: torch.Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._optimizer.step()


class Dqn(_Network):
    """Double, dueling deep Q-learning; `conservative` > 0 for learning from logs."""

    name = "DQN"
    batch, memory, every, refresh, warm = 64, 20_000, 2, 200, 200

    def __init__(self, problem: Problem, seed: int, conservative: float = 0.0) -> None:
        super().__init__(problem, seed)
        self._target, self._steps = copy.deepcopy(self.net), 0
        self._memory: deque[Step] = deque(maxlen=self.memory)
        self._conservative = conservative

    @staticmethod
    def _q(net: Scorer, x_BAF: torch.Tensor) -> torch.Tensor:
        advantage_BA, value_B = net(x_BAF)
        q: torch.Tensor = value_B[:, None] + advantage_BA - advantage_BA.mean(dim=1, keepdim=True)
        return q

    def probabilities(self, view: View) -> Floats:
        """Epsilon-greedy; epsilon falls from 1 to 0.1 while it learns."""
        from models.policy.rl.agents import best_of

        epsilon = max(0.1, 1.0 - self._steps / 2_000) if self.exploring else 0.0
        with torch.inference_mode():
            q_A = self._q(self.net, _stacked([view])[0])[0].double().numpy()
        return best_of(q_A, view, epsilon)

    def learn(self, step: Step) -> None:
        """Remember; every other step a batch, now and then a new target network."""
        self._memory.append(step)
        self._steps += 1
        if self._steps > self.warm and self._steps % self.every == 0:
            self.replay()
        if self._steps % self.refresh == 0:
            self._target.load_state_dict(self.net.state_dict())

    def replay(self) -> None:
        """One batch of remembered steps."""
        steps = [self._memory[at] for at in self._rng.integers(len(self._memory), size=self.batch)]
        x_BAF, _ = _stacked([step.view for step in steps])
        after_BAF, allowed_BA = _stacked([step.after for step in steps])
        action_B = torch.tensor([step.action for step in steps])
        reward_B = torch.tensor([step.reward for step in steps], dtype=torch.float32)
        last_B = torch.tensor([step.ended and not step.after.allowed_A.all() for step in steps])
        with torch.no_grad():
            best_B = self._q(self.net, after_BAF).masked_fill(~allowed_BA, -1e9).argmax(dim=1)
            next_B = self._q(self._target, after_BAF)[torch.arange(len(steps)), best_B]
            goal_B = reward_B + self.discount * next_B * ~last_B
        q_BA = self._q(self.net, x_BAF)
        q_B = q_BA[torch.arange(len(steps)), action_B]
        loss = nn.functional.smooth_l1_loss(q_B, goal_B)
        if self._conservative:
            loss = loss + self._conservative * (torch.logsumexp(q_BA, dim=1) - q_B).mean()
        self._step(loss)


class _Softmax(_Network):
    """A policy that is a softmax of the scores."""

    def probabilities(self, view: View) -> Floats:
        """The policy itself while it learns, its best action when it is judged."""
        from models.policy.rl.agents import best_of

        score_A = np.where(view.allowed_A, self._scores(view), -np.inf)
        if not self.exploring:
            return best_of(score_A, view)
        weight_A = np.exp(score_A - score_A.max())
        return np.asarray(weight_A / weight_A.sum(), dtype=np.float64)

    def _log_policy(self, views: list[View]) -> tuple[torch.Tensor, torch.Tensor]:
        x_BAF, allowed_BA = _stacked(views)
        score_BA, value_B = self.net(x_BAF)
        return torch.log_softmax(score_BA.masked_fill(~allowed_BA, -1e9), dim=1), value_B


class Ppo(_Softmax):
    """Proximal policy optimisation with generalised advantages; it needs a simulator.

    While it learns a fifth of its moves is uniform, and the ratio is taken to that mixture: without it one seed in five
    settles for the bait of the corridor.
    """

    name, rate, share = "PPO", 3e-3, 0.2
    rollout, passes, batch, clip, trace, entropy = 1024, 8, 256, 0.2, 0.95, 0.02

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed)
        self._steps: list[Step] = []

    def probabilities(self, view: View) -> Floats:
        """The policy with its uniform share while it learns."""
        probability_A = super().probabilities(view)
        if not self.exploring:
            return probability_A
        even_A = view.allowed_A / view.allowed_A.sum()
        return np.asarray((1 - self.share) * probability_A + self.share * even_A, dtype=np.float64)

    def learn(self, step: Step) -> None:
        """Gather a rollout, then improve on it."""
        self._steps.append(step)
        if len(self._steps) >= self.rollout:
            self._improve()
            self._steps = []

    def _improve(self) -> None:
        steps = self._steps
        with torch.inference_mode():
            _, value_B = self._log_policy([step.view for step in steps])
            _, after_B = self._log_policy([step.after for step in steps])
        value_N, after_N = value_B.double().numpy(), after_B.double().numpy()
        advantage_N, carried = np.zeros(len(steps)), 0.0
        for at in reversed(range(len(steps))):
            # The horizon cuts an episode, it does not end the value: bootstrap, but carry nothing over the cut.
            final = steps[at].ended and not steps[at].after.allowed_A.all()
            surprise = steps[at].reward + self.discount * after_N[at] * (not final) - value_N[at]
            carried = surprise + self.discount * self.trace * carried * (not steps[at].ended)
            advantage_N[at] = carried
        goal_N = torch.from_numpy((advantage_N + value_N).astype(np.float32))
        scaled_N = (advantage_N - advantage_N.mean()) / (advantage_N.std() + 1e-8)
        old_N = torch.tensor([np.log(step.probability) for step in steps], dtype=torch.float32)
        action_N = torch.tensor([step.action for step in steps])
        good_N = torch.from_numpy(scaled_N.astype(np.float32))
        for _ in range(self.passes):
            order = self._rng.permutation(len(steps))
            for start in range(0, len(steps), self.batch):
                rows = order[start : start + self.batch]
                log_BA, value_B = self._log_policy([steps[at].view for at in rows])
                ratio_B = torch.exp(log_BA[torch.arange(len(rows)), action_N[rows]] - old_N[rows])
                gain_B = torch.minimum(
                    ratio_B * good_N[rows], ratio_B.clamp(1 - self.clip, 1 + self.clip) * good_N[rows]
                )
                spread = -(log_BA.exp() * log_BA.clamp(min=-20)).sum(dim=1).mean()
                missed = ((value_B - goal_N[rows]) ** 2).mean()
                self._step(-gain_B.mean() + 0.5 * missed - self.entropy * spread)


class Reinforce(_Softmax):
    """Top-K off-policy REINFORCE: learns from what another policy logged, reward to go, weights clipped."""

    name, rate = "REINFORCE", 2e-3
    batch, cap, top = 256, 10.0, 4

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed)
        self._episode: list[Step] = []
        self._log: list[tuple[Step, float]] = []
        self._mean = 0.0

    def learn(self, step: Step) -> None:
        """Gather episodes; a batch of steps with their rewards to go moves the policy once."""
        self._episode.append(step)
        if not step.ended:
            return
        to_go = 0.0
        for one in reversed(self._episode):
            to_go = one.reward + self.discount * to_go
            self._log.append((one, to_go))
        self._episode = []
        if len(self._log) >= self.batch:
            self._improve([step for step, _ in self._log], np.array([worth for _, worth in self._log]))
            self._log = []

    def _improve(self, steps: list[Step], worth_N: Floats) -> None:
        self._mean += 0.1 * (float(worth_N.mean()) - self._mean)
        log_BA, _ = self._log_policy([step.view for step in steps])
        action_B = torch.tensor([step.action for step in steps])
        log_B = log_BA[torch.arange(len(steps)), action_B]
        logged_B = torch.tensor([step.probability for step in steps], dtype=torch.float32)
        with torch.no_grad():
            chance_B = log_B.exp()
            weight_B = (chance_B / logged_B).clamp(max=self.cap) * self.top * (1 - chance_B) ** (self.top - 1)
            weight_B = weight_B / weight_B.mean().clamp(min=1e-6)
        good_B = torch.from_numpy(((worth_N - self._mean) / (worth_N.std() + 1e-8)).astype(np.float32))
        spread = -(log_BA.exp() * log_BA.clamp(min=-20)).sum(dim=1).mean()
        self._step(-(weight_B * good_B * log_B).mean() - 0.01 * spread)
