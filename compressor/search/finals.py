"""The last round of a search: its few best candidates are trained for a while, and the best of them then is taken."""

from collections.abc import Callable

from compressor.progress import Advance
from compressor.search.problem import Found, Problem
from compressor.search.types import Candidate, Policy


def finalists_of(problem: Problem, found: Found) -> list[Candidate]:
    """Give the candidates within the budget that are most alike, falling; none where there is nothing to decide."""
    within = [each for each in found.history if problem.limits.allow(each.bill)]
    chosen = sorted(within, key=lambda each: -each.likeness)[: problem.config.finalists]
    return chosen if len(chosen) > 1 else []


def winner(problem: Problem, found: Found, train: Callable[[Policy], Candidate], watch: Advance) -> Candidate:
    """Give the finalist, as it was found, that is most alike after its training; of equals the one that was before.

    `train` scores a policy after a short training.
    """
    best, most = found.best, -float("inf")
    for number, finalist in enumerate(finalists_of(problem, found), start=1):
        trained = train(finalist.policy)
        if trained.likeness > most:
            best, most = finalist, trained.likeness
        watch(1, f"finalist {number} {trained.quality:.4f}")
    return best
