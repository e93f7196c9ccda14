"""One search as a step: an agent decides, and the network of the best policy is made, not yet trained."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from compressor.checked import checked
from compressor.compute import threads
from compressor.config.search import SearchConfig, SearchTask
from compressor.folders import CANDIDATES, FOUND, TRIALS, write_json
from compressor.measure import worst_macs
from compressor.model import Model
from compressor.search import found as note
from compressor.search.budget import Limits
from compressor.search.candidates import Candidates
from compressor.search.engine import Found, Problem, run_agent
from compressor.search.evaluation import Evaluator
from compressor.search.finals import winner
from compressor.search.space import EDGE, Layer, Space, ranking_of, realise, space_of, split
from compressor.search.timing import latency_of
from compressor.search.types import Policy
from compressor.training import Context, title


def search(config: SearchTask, context: Context, model: Model) -> Model:
    """Let an agent search, note what it found, and make the network of the best policy without training it.

    The best is the winner of the finals, where there are any. Every candidate is noted in the draft: a search that is
    run again there is told what was noted, and goes on.

    Raises:
        ConfigError: the agent cannot meet the budget, or a package of the extra `search` is missing.
    """
    settings, scratch = config.search, context.scratch
    with threads(context.runtime, lambda: worst_macs(model)):
        space = timed(model, settings, context.files[config.latency] if config.latency else None)
        limits = Limits.of(settings.budget, space)
        ranking = ranking_of(model, context.data, settings.criterion, config.seed)
        evaluator, log = Evaluator(model, context, space, ranking, settings), Candidates(scratch / CANDIDATES)
        earlier = len(log)
        score, evaluations = partial(evaluator.candidate, known=log), settings.evaluations
        problem = Problem(space, limits, ranking, score, evaluator.baseline, evaluations, settings)
        with context.progress(title(context), settings.evaluations + settings.finalists) as advance:
            found = run_agent(config.agent, problem, config.seed, advance, scratch / TRIALS)
            best = winner(problem, found, lambda policy: evaluator.finalist(policy, log), advance)
        found = replace(found, best=best)
        write_json(scratch / FOUND, checked(_noted(config, problem, found, earlier)))
        return evaluator.made(found.best.policy)


def timed(model: Model, settings: SearchConfig, table: Path | None) -> Space:
    """Give the space of a model, with the layers' timings of a file where there is one, else measured into it."""
    space = space_of(model, settings)
    return space if table is None else replace(space, table=latency_of(model, space, table).table)


def _noted(config: SearchTask, problem: Problem, found: Found, earlier: int) -> note.Found:
    """Say what was found; the first `earlier` candidates took their time in earlier sittings."""
    best = found.best
    kept, quantization = realise(best.policy, problem.space, problem.ranking)
    return note.Found(
        note.SCHEMA,
        config.agent,
        config.seed,
        problem.baseline,
        best.key,
        best.quality,
        best.bill,
        kept,
        quantization,
        layers=tuple(_layer(layer, best.policy, problem.space) for layer in problem.space.layers),
        tries=tuple(note.Try(each.quality, each.bill) for each in found.history),
        unique=found.unique,
        seconds=found.seconds + sum(each.seconds for each in found.history[:earlier]),
    )


def _layer(layer: Layer, policy: Policy, space: Space) -> note.LayerNote:
    count = policy.keep.get(layer.writes, layer.out)
    groups, bits = ((count,), (EDGE,)) if layer.edge else (split(count, space.groups), policy.bits[layer.name])
    act = policy.acts.get(layer.tensor, space.act_bits if layer.tensor in space.tensors else EDGE)
    return note.LayerNote(layer.name, layer.out, groups, bits, act)
