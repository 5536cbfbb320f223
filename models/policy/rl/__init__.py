"""Policies that learn by reinforcement, behind one protocol: bandits, Q-learning, DQN, PPO, off-policy REINFORCE.

State (what is known of person, session and page so far), action (the item for the next slot), reward, discount: an
`Agent` acts slot by slot and tells the exact probability of every allowed action, so that whatever it shows can be
logged and judged off-policy.
"""

from models.policy.rl.agents import AGENTS, Agent, make
from models.policy.rl.problem import Problem, Step, play, train

__all__ = ["AGENTS", "Agent", "Problem", "Step", "make", "play", "train"]
