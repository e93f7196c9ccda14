"""Searches whose truth is planted, and settings of a search, for tests of what is said of them."""

from settings import FIT, NO_TEACHER

from compressor.arch import Bits, Quantization
from compressor.config import Importance
from compressor.config.search import Algorithm, FinalConfig, SearchBudget, SearchConfig
from compressor.records import Cost, Quality, Value
from compressor.search.found import SCHEMA, Found, LayerNote, Try
from compressor.search.types import Agent, Bill, Mode
from compressor.studies.joint_results import Baseline, Study, Trial, duels, summaries

SETTINGS = SearchConfig(
    budget=SearchBudget(0.2, None, None, None),
    agent=Agent.JOINT,
    algorithm=Algorithm.DDPG,
    mode=Mode.MIXED,
    bits=4,
    act_bits=8,
    search_acts=False,
    groups=2,
    min_keep=0.1,
    criterion=Importance.L1,
    evaluations=4,
    images=0,
    recalibrate=40,
    tune=0,
    tune_lr=0.01,
    rivals=(Agent.STEPWISE, Agent.RANDOM),
    seeds=(0, 1, 2),
    warmup=2,
    noise=0.3,
    workers=1,
    figures=False,
    finalists=0,
    finalist_batches=1,
    joint=FinalConfig(40, 40, NO_TEACHER, FIT),
)
LAYERS = (
    LayerNote("stem.conv", 8, (8,), (8,), 8),
    LayerNote("blocks.s0b0.1.conv", 8, (3, 2), (6, 2), 8),
    LayerNote("head.score", 10, (10,), (8,), 8),
)


def scored(value: float, name: str = "accuracy") -> Quality:
    return Quality(200, 0.1, {name: Value(value, value - 0.01, value + 0.01)})


def cost(size: int) -> Cost:
    return Cost(params=100, macs=500, bitops=10 * size, size_bits=size, checkpoint_bytes=400)


def baseline(seed: int, test: float = 0.99, name: str = "accuracy") -> Baseline:
    return Baseline(seed, f"baseline-{seed}", scored(0.98, name), scored(test, name), cost(1000))


def trial(agent: Agent, seed: int, test: float, name: str = "accuracy") -> Trial:
    tries = tuple(Try(test - 0.1 * i, Bill(190 + i, 1900 + 10 * i, 300, None)) for i in range(4))
    keys = (f"joint-{agent}{seed}",)
    score = scored(test, name)
    return Trial(agent, seed, f"search-{agent}{seed}", keys, 0.9, score, score, cost(200), 1.5, 4, 2.0, LAYERS, tries)


def found(agent: Agent = Agent.JOINT) -> Found:
    rule, bill = Quantization(Bits(8, 8), 8), Bill(190, 1900, 300, None)
    kept = {"s0": (0, 2)}
    return Found(SCHEMA, agent, 0, 0.99, "c", 0.9, bill, kept, rule, LAYERS, (), 4, 2.0)


def study(*trials: Trial, name: str = "accuracy") -> Study:
    seeds = dict.fromkeys(t.seed for t in trials)
    whole = [baseline(seed, name=name) for seed in seeds]
    parts = summaries(trials, whole), duels(trials, Agent.JOINT)
    quality = "accuracy" if name == "accuracy" else "-mae"
    return Study(1, "test", "data", 0, quality, 200, 200, SETTINGS, None, tuple(whole), trials, *parts, (), 10.0)
