"""A controller: an actor and a critic of stable-baselines3, taught by whole episodes.

Every step of an episode gets the episode's reward (He et al., AMC, ECCV 2018; Wang et al., HAQ, CVPR 2019). That return
is known when a step is stored, so each is stored as the last of its episode: the critic has nothing to bootstrap from.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.logger import Logger

from compressor.config.search import Algorithm
from compressor.search.envs import WalkEnv

HIDDEN = [64, 64]
RATE = 1e-3
BATCH = 64
UPDATES = 20
"""Batches that a controller learns from after an episode."""

ENTROPY = 0.01
"""What SAC pays for a spread of actions; rewards lie within -1 and 1."""


@dataclass(frozen=True)
class Played:
    """What one controller saw and wished in an episode: features (steps, features) and wishes (steps,), in [0, 1]."""

    features: np.ndarray
    wishes: np.ndarray


class Controller:
    """Turns features into a wish and learns from episodes; the same seed and episodes give the same wishes.

    The library draws from the process's random states: they are lent to it and put back, so neither disturbs the other.
    """

    def __init__(self, env: WalkEnv, algorithm: Algorithm, seed: int, capacity: int) -> None:
        self._states: Any = None
        self._episodes = np.zeros(capacity, np.int64)
        with self._alone():
            self._model = _model(env, algorithm, seed, capacity)

    def wish(self, features: np.ndarray) -> float:
        """Give the actor's wish in [0, 1], without noise."""
        action, _ = self._model.predict(features, deterministic=True)
        return float((action.item() + 1) / 2)

    def store(self, played: Played, episode: int) -> None:
        """Keep an episode of the given number; its reward is said when learning."""
        buffer = self._model.replay_buffer
        for features, wish in zip(played.features, played.wishes, strict=True):
            self._episodes[buffer.pos] = episode
            action = np.array([[2 * wish - 1]], np.float32)
            buffer.add(features[None], features[None], action, np.zeros(1), np.ones(1), [{}])

    def learn(self, rewards: np.ndarray) -> None:
        """Train on what is kept; `rewards` (episodes,) may change from call to call, as their baseline moves."""
        buffer = self._model.replay_buffer
        size = buffer.size()
        buffer.rewards[:size, 0] = rewards[self._episodes[:size]]
        with self._alone():
            self._model.train(gradient_steps=UPDATES, batch_size=BATCH)

    def worth(self, features: np.ndarray, wishes: np.ndarray) -> np.ndarray:
        """Give what the critic expects of each wish (steps,)."""
        with self._alone(), torch.no_grad():
            actions = torch.as_tensor(2 * wishes[:, None] - 1, dtype=torch.float32)
            values = self._model.critic(torch.as_tensor(features, dtype=torch.float32), actions)
        return torch.stack(values).amin(dim=0)[:, 0].numpy()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        before, threads = _states(), torch.get_num_threads()
        torch.set_num_threads(1)  # fastest for networks this small, and sums do not hang on the number of cores
        if self._states is not None:
            _restore(self._states)
        try:
            yield
        finally:
            self._states = _states()
            _restore(before)
            torch.set_num_threads(threads)


def _states() -> tuple[Any, Any, torch.Tensor]:
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def _restore(states: tuple[Any, Any, torch.Tensor]) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])
    torch.set_rng_state(states[2])


def _model(env: WalkEnv, algorithm: Algorithm, seed: int, capacity: int) -> Any:
    kind = {Algorithm.DDPG: DDPG, Algorithm.TD3: TD3, Algorithm.SAC: SAC}[algorithm]
    extra = {"ent_coef": ENTROPY} if algorithm is Algorithm.SAC else {}
    model = kind(
        "MlpPolicy",
        env,
        learning_rate=RATE,
        buffer_size=capacity,
        batch_size=BATCH,
        policy_kwargs={"net_arch": HIDDEN},
        seed=seed,
        device="cpu",
        **extra,
    )
    model.set_logger(Logger(None, []))
    return model
