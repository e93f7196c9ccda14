"""Several networks as one model: a router, or how sure the cheaper ones are, says which few are run for an image."""

from compressor.mixture.choice import at_budget, decide, oracle, outcome
from compressor.mixture.costs import MixtureCosts, PartCost, cost_table, costs
from compressor.mixture.execution import Answers, Survey, answer, mix, run, survey
from compressor.mixture.files import load_mixture, save_mixture
from compressor.mixture.measuring import measure, settle
from compressor.mixture.rule import asked
from compressor.mixture.types import Mixture, assemble

__all__ = [
    "Answers",
    "Mixture",
    "MixtureCosts",
    "PartCost",
    "Survey",
    "answer",
    "asked",
    "assemble",
    "at_budget",
    "cost_table",
    "costs",
    "decide",
    "load_mixture",
    "measure",
    "mix",
    "oracle",
    "outcome",
    "run",
    "save_mixture",
    "settle",
    "survey",
]
