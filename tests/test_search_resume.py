"""A search that was killed goes on where it was, and ends as one that was not."""

from dataclasses import replace
from functools import partial

import hunts
import pytest
import samples
import spaces

from compressor.search.budget import Limits
from compressor.search.candidates import Candidates
from compressor.search.engine import run_agent
from compressor.search.evaluation import Evaluator
from compressor.search.problem import Problem
from compressor.search.space import ranking_of, space_of
from compressor.search.types import Agent
from compressor.training import Context

SOME = 12
"""Evaluations after which a search is killed."""


@pytest.mark.parametrize("agent", hunts.AGENTS)
def test_a_killed_search_evaluates_only_what_is_missing_and_ends_as_one_that_was_not(agent, tmp_path):
    whole = hunts.hunt(agent, hunts.problem(1, evaluations=20, warmup=14), seed=3)
    at = min(SOME, whole.unique - 1)
    killed = hunts.problem(1, evaluations=20, warmup=14, log=tmp_path / "candidates.jsonl")
    hunts.oracle_of(killed).dies = at
    with pytest.raises(KeyboardInterrupt):
        hunts.hunt(agent, killed, seed=3)
    again = hunts.problem(1, evaluations=20, warmup=14, log=tmp_path / "candidates.jsonl")
    found = hunts.hunt(agent, again, seed=3)
    assert [each.key for each in found.history] == [each.key for each in whole.history]
    assert found.best == whole.best
    assert hunts.oracle_of(again).fresh == whole.unique - at


def test_so_does_one_that_evaluates_networks_on_digits(context: Context, tmp_path):
    model = samples.model(samples.arch())
    config = spaces.config(budget=spaces.budget(size=0.12), groups=2, evaluations=16, warmup=12, recalibrate=40)
    config = replace(config, joint=replace(config.joint, calibrate=40))
    space, ranking = space_of(model, config), ranking_of(model, context.data, config.criterion, 0)
    limits = Limits.of(config.budget, space)

    def found(log: str, evaluations: int) -> tuple[list[tuple[str, float, float]], int]:
        evaluator, known = Evaluator(model, context, space, ranking, config), Candidates(tmp_path / log)
        score = partial(evaluator.candidate, known=known)
        problem = Problem(space, limits, ranking, score, evaluator.baseline, 16, config)
        left = evaluations

        def watch(units: int, remark: str) -> None:
            nonlocal left
            left -= units
            if left == 0:
                raise KeyboardInterrupt

        try:
            history = run_agent(Agent.JOINT, problem, 1, watch).history
        except KeyboardInterrupt:
            history = ()
        return [(each.key, each.likeness, each.quality) for each in history], evaluator.count

    whole, count = found("whole.jsonl", 100)
    assert found("killed.jsonl", 9) == ([], 9)
    assert found("killed.jsonl", 100) == (whole, count - 9)
    assert len(whole) == 16
