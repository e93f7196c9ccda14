"""The one way to run an agent. An agent is a function of the problem and a seed: to go on is to run it again."""

from pathlib import Path

from compressor.errors import ConfigError
from compressor.progress import Advance
from compressor.search import rivals
from compressor.search.problem import Found, Ledger, Problem, SpentError
from compressor.search.types import Agent

__all__ = ["Found", "Problem", "run_agent"]

EXTRA = ("gymnasium", "stable_baselines3", "optuna")
"""What the extra `search` brings."""


def run_agent(agent: Agent, problem: Problem, seed: int, watch: Advance, study: Path | None = None) -> Found:
    """Let an agent search with all its evaluations, and give what it found.

    `watch` hears of every new candidate; `study` is where NSGA-II keeps what optuna knows of it, an sqlite file.

    Raises:
        ConfigError: a package of the extra `search` is missing, or the agent has no way to meet the budget.
    """
    ledger = Ledger(problem, watch)
    try:
        _search(agent, problem, ledger, seed, study)
    except SpentError:
        pass
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        package = error.name.replace("_", "-")
        raise ConfigError(f"search: {agent} needs the package {package}: pip install 'compressor[search]'") from None
    return ledger.found()


def _search(agent: Agent, problem: Problem, ledger: Ledger, seed: int, study: Path | None) -> None:
    match agent:
        case Agent.UNIFORM:
            rivals.uniform(problem, ledger, seed)
        case Agent.SENSITIVITY:
            rivals.sensitivity(problem, ledger, seed)
        case Agent.RANDOM:
            rivals.chance(problem, ledger, seed)
        case Agent.NSGA2:
            from compressor.search.genetic import nsga2

            nsga2(problem, ledger, seed, study)
        case _:
            from compressor.search import learning

            learning.AGENTS[agent](problem, ledger, seed)
