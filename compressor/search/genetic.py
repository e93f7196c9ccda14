"""The genetic rival: NSGA-II of optuna, with likeness and cost as its two objectives."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import InMemoryStorage

from compressor.search.opening import opening, probed
from compressor.search.problem import Ledger, Problem, SpentError
from compressor.search.types import Bill
from compressor.search.wishes import levelled, parts_of, starts, walked

NAME = "search"
"""The study's name in its file."""

GENERATIONS = 8
"""So many generations at least; a population has no more than 50."""


def nsga2(problem: Problem, ledger: Ledger, seed: int, study: Path | None = None) -> None:
    """Breed wishes, brought to the budget, beginning as those that learn do; keep the study as an sqlite file.

    The second objective is the cost in whole percent of the limit, so that bytes do not count.
    """
    parts, names = parts_of(problem), [f"w{i:04d}" for i in range(len(problem.decisions))]
    population = max(4, min(50, problem.evaluations // GENERATIONS))
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler, storage = optuna.samplers.NSGAIISampler(population_size=population, seed=seed), InMemoryStorage()
    bred = optuna.create_study(study_name=NAME, storage=storage, directions=["maximize", "minimize"], sampler=sampler)

    def breed() -> float:
        trial = bred.ask()
        wishes = np.array([trial.suggest_float(name, 0.0, 1.0) for name in names])
        candidate = ledger.judge(walked(problem, levelled(problem, parts, wishes)))
        bred.tell(trial, [candidate.likeness, _cost(candidate.bill, problem)])
        return candidate.likeness

    def given(wishes: np.ndarray) -> float:
        bred.enqueue_trial(dict(zip(names, wishes.tolist(), strict=True)))
        return breed()

    try:
        curves = partial(probed, problem, ledger, parts, np.ones(len(names), bool))
        opening(problem, parts, list(starts(problem, parts)), curves, given)
        while True:
            breed()
    except SpentError:
        if study is not None:
            _keep(storage, study)
        raise
    finally:
        optuna.logging.set_verbosity(before)


def _cost(bill: Bill, problem: Problem) -> float:
    """Give the share of the tightest limit that is used, to whole percent."""
    spent = (bill.size, bill.bitops, bill.macs, bill.latency)
    both = zip(spent, problem.limits.totals(), strict=True)
    return round(max(now / limit for now, limit in both if now is not None and limit), 2)


def _keep(storage: InMemoryStorage, path: Path) -> None:
    """Write a study beside its place first: a half-written file is never taken for one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    optuna.copy_study(from_study_name=NAME, from_storage=storage, to_storage=f"sqlite:///{draft}")
    draft.replace(path)
