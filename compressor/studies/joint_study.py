"""A joint search as it runs: all searches, then the training of what each found, then what it comes to."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from compressor.checked import read_lines
from compressor.codec import canonical, digest, encode
from compressor.config import RunConfig
from compressor.config.execution import ExecutionConfig
from compressor.config.search import SearchConfig
from compressor.data.types import Data
from compressor.environment import environment_of
from compressor.errors import CompressorError, ConfigError, StoreError, UnfinishedError
from compressor.folders import CANDIDATES, FOUND, LIMITS, disk, proved_metrics
from compressor.model import fresh, load
from compressor.pipeline import Source, Step
from compressor.records import Metrics
from compressor.search.budget import Limits
from compressor.search.found import read_found
from compressor.search.space import Space
from compressor.search.step import timed
from compressor.search.timing import read_latency
from compressor.search.types import Agent
from compressor.store import Store
from compressor.studies.board import USABLE, Outcome, State, Watch
from compressor.studies.execution import Workplace, execute
from compressor.studies.joint import Check, Hunt, Plan, steps_of, training
from compressor.studies.joint_results import Baseline, Study, Timings, Trial, conclude, trial
from compressor.studies.study import failures

RETRIES = 1
"""How often a step is run again whose worker died."""


def feasible(config: RunConfig, settings: SearchConfig) -> Check:
    """Give the check of a budget, made before anything is trained.

    What layers take is measured once for an architecture and a processor, and kept in the store.
    """

    def check(source: Source) -> Path | None:
        model = fresh(source.config.arch, seed=0) if isinstance(source, Step) else load(source.folder)
        table = None
        if settings.budget.latency_ms is not None:
            cause = {"arch": encode(model.arch), "cpu": environment_of(config.runtime).cpu}
            table = Path(config.store) / f"latency-{digest(canonical(cause))}.json"
            with disk(table):
                table.parent.mkdir(parents=True, exist_ok=True)
        for agent in (settings.agent, *(rival for rival in settings.rivals if rival.fixed)):
            _check(settings, agent, timed(model, settings.told(agent), table))
        return table

    return check


def _check(settings: SearchConfig, agent: Agent, space: Space) -> None:
    try:
        Limits.of(settings.budget, space)
    except ConfigError as error:
        if not agent.fixed:
            raise
        raise ConfigError(f"{error} with {agent}; give that, or leave {agent} out of search.rivals") from None


def study(
    config: RunConfig,
    settings: SearchConfig,
    plan: Plan,
    data: Data,
    watch: Watch,
    refer: Callable[[Sequence[str]], None],
) -> tuple[Study, dict[Step, bool]]:
    """Run what is not stored yet, and compare; `refer` hears the keys of steps that the run needs, before they run.

    Gives the comparison, and the baselines and the method's trained networks, each with whether it was there already.

    Raises:
        UnfinishedError: nothing was found at all.
        CompressorError: nothing can run, or a stored result is damaged.
    """
    place, store = Workplace(Path(config.store), config.dataset, config.runtime, plan.files), Store(Path(config.store))
    execution = ExecutionConfig("local", settings.workers, "local", 1.0, RETRIES)
    searches = steps_of(tuple(hunt.step for hunt in plan.hunts))
    refer([step.key for step in searches])
    outcomes = execute(searches, place, execution, watch)
    chains = {
        hunt: training(hunt, read_found(store.folder(hunt.step.key) / FOUND), settings, data)
        for hunt in plan.hunts
        if _usable(outcomes, hunt.step)
    }
    trainings = steps_of(tuple(step for chain in chains.values() for step in chain))
    refer([step.key for step in trainings])
    outcomes |= execute(trainings, place, execution, watch)
    trials = [
        _trial(hunt, chain, store) for hunt, chain in chains.items() if all(_usable(outcomes, step) for step in chain)
    ]
    missing = failures(outcomes)
    if not trials:
        raise UnfinishedError(f"no search has a result, the first because: {missing[0].error}")
    baselines = _baselines(trials, plan, store)
    seconds = sum(outcome.seconds for outcome in outcomes.values() if outcome.state in USABLE)
    ends = {
        step: outcomes[step.key].state is State.STORED
        for hunt, chain in chains.items()
        if hunt.agent is settings.agent
        for step in (hunt.baseline, chain[-1])
        if isinstance(step, Step) and _usable(outcomes, step)
    }
    latency = _timings(plan.files[name]) if (name := plan.hunts[0].step.config.latency) else None
    return conclude(config.name, settings, baselines, trials, missing, data, seconds, latency), ends


def _timings(path: Path) -> Timings:
    record = read_latency(path)
    return Timings(record.engine, record.error)


def _usable(outcomes: Mapping[str, Outcome], step: Source) -> bool:
    return outcomes[step.key].state in USABLE


def _trial(hunt: Hunt, chain: Sequence[Source], store: Store) -> Trial:
    found = read_found(store.folder(hunt.step.key) / FOUND)
    return trial(hunt.agent, found, hunt.step.key, [_metrics(store.folder(step.key)) for step in chain])


def _metrics(folder: Path) -> Metrics:
    try:
        return proved_metrics(folder)
    except CompressorError as error:
        raise StoreError(f"{error}; remove {folder} and the step is run again") from None


def _baselines(trials: Sequence[Trial], plan: Plan, store: Store) -> list[Baseline]:
    """Give the network of each seed as it was before a search of it."""
    found = []
    for seed, source in plan.baselines.items():
        key = next((t.search for t in trials if t.seed == seed), None)
        before = _metrics(store.folder(key)).before if key else None
        if before is not None:
            found.append(Baseline(seed, source.key, before.val.quality, before.test.quality, before.cost))
    return found


def write_candidates(plan: Plan, store: Store, path: Path) -> None:
    """Write every candidate of every finished search as a line of JSON, with the agent and seed that found it."""
    with disk(path), path.open("w", encoding="utf-8") as file:
        for hunt in plan.hunts:
            log = store.folder(hunt.step.key) / CANDIDATES
            for line in read_lines(log, LIMITS[CANDIDATES])[0]:
                said = {"agent": hunt.agent.value, "seed": hunt.seed} | line
                file.write(json.dumps(said) + "\n")
