"""Every agent stays in its budget and within its evaluations; the joint search finds what was planted."""

import random
import sys

import hunts
import numpy as np
import pytest
import spaces
import torch
from stable_baselines3.common.env_checker import check_env

from compressor.config.search import Algorithm
from compressor.errors import ConfigError
from compressor.search.actor import Controller, Played
from compressor.search.envs import ALL, CHANNEL, LAYER, WalkEnv, channel_env, flat_env, layer_env
from compressor.search.problem import Ledger
from compressor.search.team import rewards_of
from compressor.search.types import Agent, Mode
from compressor.search.wishes import walked

BUDGETS = {
    "size": spaces.budget(size=0.12),
    "bitops": spaces.budget(bitops=0.02),
    "macs": spaces.budget(macs=0.5),
    "both": spaces.budget(size=0.15, macs=0.5),
}


def envs() -> dict[str, WalkEnv]:
    """Give the environments around one planted problem whose activations are searched too."""
    problem = hunts.problem(1, search_acts=True)

    def judge(wishes: np.ndarray) -> float:
        return problem.score(walked(problem, wishes)).quality

    return {
        "layer": layer_env(problem, judge, lambda walk: 0.4),
        "channel": channel_env(problem, judge, lambda walk: 0.6),
        "flat": flat_env(problem, judge),
    }


class TestEnvironments:
    @pytest.mark.parametrize("name", ["layer", "channel", "flat"])
    def test_they_are_what_gymnasium_and_stable_baselines_expect(self, name):
        check_env(envs()[name])

    @pytest.mark.parametrize(("name", "kinds"), [("layer", LAYER), ("channel", CHANNEL), ("flat", ALL)])
    def test_each_decides_its_kinds_and_only_the_last_step_is_rewarded(self, name, kinds):
        env, problem = envs()[name], hunts.problem(1, search_acts=True)
        own = [decision for decision in problem.decisions if decision.kind in kinds]
        rewards, done, seen = [], False, env.reset()[0]
        while not done:
            assert env.observation_space.contains(seen)
            seen, reward, done, _, _ = env.step(np.array([0.2], np.float32))
            rewards.append(reward)
        assert len(rewards) == len(own)
        assert not any(rewards[:-1])
        assert 0 < rewards[-1] < 1


class TestController:
    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_it_learns_which_wishes_are_rewarded(self, algorithm):
        env, source = envs()["layer"], np.random.default_rng(0)
        controller = Controller(env, algorithm, seed=1, capacity=200)
        wishes = source.random((50, 4))
        features = source.random((50, 4, env.width)).astype(np.float32)
        for i in range(50):
            controller.store(Played(features[i], wishes[i]), i)
        for _ in range(15):
            controller.learn(1 - 4 * np.abs(wishes - 0.8).mean(axis=1))
        assert np.mean([controller.wish(each) for each in features[0]]) > 0.65
        good, bad = (controller.worth(features[0], np.full(4, wish)).mean() for wish in (0.8, 0.1))
        assert good > bad + 0.5

    def test_it_leaves_the_random_states_of_the_process_alone(self):
        def drawn() -> list[int]:
            _, keys, *_ = np.random.get_state(legacy=True)
            return np.asarray(keys).tolist()

        controller = Controller(envs()["layer"], Algorithm.SAC, seed=1, capacity=200)
        states = random.getstate(), drawn(), torch.get_rng_state()
        controller.store(Played(np.zeros((4, envs()["layer"].width), np.float32), np.ones(4)), 0)
        controller.learn(np.ones(1))
        assert random.getstate() == states[0]
        assert drawn() == states[1]
        assert torch.equal(torch.get_rng_state(), states[2])

    def test_equal_qualities_have_equal_rewards_around_0(self):
        rewards = rewards_of(np.array([0.5, 0.9, 0.5, 0.7]))
        assert rewards[0] == rewards[2] < rewards[3] < rewards[1] <= 1
        assert rewards.mean() == pytest.approx(0.0)


@pytest.mark.parametrize("agent", hunts.AGENTS)
class TestEveryAgent:
    @pytest.mark.parametrize("name", BUDGETS)
    def test_its_best_is_within_the_budget_and_the_best_of_those(self, agent, name):
        problem = hunts.problem(2, budget=BUDGETS[name], evaluations=14, warmup=6, search_acts=name == "bitops")
        found = hunts.hunt(agent, problem)
        within = [each for each in found.history if problem.limits.allow(each.bill)]
        assert found.best in within
        assert found.best.likeness == max(each.likeness for each in within)

    def test_it_evaluates_no_more_than_it_may_and_counts_a_candidate_once(self, agent):
        problem = hunts.problem(3, evaluations=18, warmup=8)
        found = hunts.hunt(agent, problem)
        keys = [each.key for each in found.history]
        assert len(set(keys)) == len(keys) == found.unique <= 18
        assert set(hunts.oracle_of(problem).asked) == set(keys)

    def test_it_depends_on_nothing_but_the_problem_and_the_seed(self, agent):
        first, second = (hunts.hunt(agent, hunts.problem(4, evaluations=16, warmup=6), seed=5) for _ in range(2))
        assert [each.key for each in first.history] == [each.key for each in second.history]

    def test_it_works_with_one_number_of_bits_too(self, agent):
        problem = hunts.problem(5, mode=Mode.FIXED, bits=4, evaluations=12, warmup=4)
        bits = {each for group in hunts.hunt(agent, problem).best.policy.bits.values() for each in group}
        assert bits <= {0, 4}


@pytest.mark.parametrize("agent", [Agent.JOINT, Agent.FLAT, Agent.RANDOM, Agent.NSGA2, Agent.SENSITIVITY])
def test_another_seed_goes_another_way(agent):
    one, two = (hunts.hunt(agent, hunts.problem(4), seed=seed) for seed in (1, 2))
    assert [each.key for each in one.history] != [each.key for each in two.history]


def test_the_joint_search_beats_chance_on_every_seed_and_comes_near_what_was_planted():
    gaps = {}
    for agent in (Agent.JOINT, Agent.RANDOM):
        gaps[agent] = [1 - hunts.hunt(agent, hunts.problem(s, evaluations=80), seed=s).best.quality for s in range(3)]
    joint, chance = gaps[Agent.JOINT], gaps[Agent.RANDOM]
    assert all(ours < theirs for ours, theirs in zip(joint, chance, strict=True))
    assert sum(joint) < 0.75 * sum(chance)


@pytest.mark.parametrize("algorithm", Algorithm)
def test_every_algorithm_searches(algorithm):
    found = hunts.hunt(Agent.JOINT, hunts.problem(6, algorithm=algorithm, evaluations=20, warmup=6))
    assert found.unique == 20


def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch):
    for name in ("learning", "team", "actor", "envs"):
        monkeypatch.delitem(sys.modules, f"compressor.search.{name}", raising=False)
        monkeypatch.delattr(sys.modules["compressor.search"], name, raising=False)
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    with pytest.raises(ConfigError, match=r"joint needs the package stable-baselines3: .*compressor\[search\]"):
        hunts.hunt(Agent.JOINT, hunts.problem(1))


def test_the_watcher_hears_of_every_candidate_and_of_the_best_so_far():
    heard: list[tuple[int, str]] = []
    problem = hunts.problem(1)
    ledger = Ledger(problem, lambda units, remark: heard.append((units, remark)))
    wishes = np.ones(len(problem.decisions))
    for share in (1.0, 0.5, 1.0):
        ledger.judge(walked(problem, share * wishes))
    assert [units for units, _ in heard] == [1, 1]
    assert ledger.best is not None
    assert heard[-1][1] == f"best {ledger.best.quality:.4f}"
