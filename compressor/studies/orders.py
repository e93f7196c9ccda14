"""Which chains an order study runs: its parts become trials, and trials become steps that share prefixes. No torch."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations, permutations, product
from pathlib import Path
from typing import Any

from compressor.codec import decode, encode
from compressor.config import RunConfig, StudyConfig
from compressor.data.types import Data
from compressor.phase import BY_LETTER, Phase, parse_order
from compressor.pipeline import Source, Step
from compressor.planning import next_step, resolved, start
from compressor.studies.settings import changed, with_seed

CHANNELS, BLOCKS = 16, 3
"""Repeated techniques leave whole sixteenths of the channels, whole thirds of the blocks, in between, so that the last
turn of a CIFAR ResNet ends exactly where a single one would; in other networks rounding may differ by one."""


class Part(StrEnum):
    """What a trial is for."""

    SINGLES = "singles"
    PAIRWISE = "pairwise"
    INSERTION = "insertion"
    PERMUTATIONS = "permutations"
    REPETITION = "repetition"


@dataclass(frozen=True)
class Choice:
    """One letter of a trial: which of its settings, and that it is the `turn`-th of `turns` that share their effect."""

    letter: str
    setting: int
    turn: int = 1
    turns: int = 1


@dataclass(frozen=True)
class Trial:
    """One chain of a study: an order, each letter's setting, and a seed."""

    part: Part
    choices: tuple[Choice, ...]
    seed: int

    @property
    def order(self) -> str:
        """Its letters."""
        return "".join(choice.letter for choice in self.choices)

    @property
    def setting(self) -> str:
        """Name what both orders of the same letters share, such as `P0 Q1`."""
        return " ".join(sorted({f"{choice.letter}{choice.setting}" for choice in self.choices}))


def trials(config: StudyConfig) -> tuple[Trial, ...]:
    """List the trials of the parts that are switched on."""
    parts = {
        Part.SINGLES: _singles,
        Part.PAIRWISE: _pairwise,
        Part.INSERTION: _insertion,
        Part.PERMUTATIONS: _permutations,
        Part.REPETITION: _repetition,
    }
    chosen = [part for part in parts if getattr(config.parts, part)]
    return tuple(
        Trial(part, choices, seed) for part in chosen for choices in parts[part](config) for seed in config.seeds
    )


Choices = tuple[Choice, ...]


def _singles(config: StudyConfig) -> Iterator[Choices]:
    for letter in config.letters:
        yield from ((Choice(letter, i),) for i in range(len(config.grid[letter])))


def _pairwise(config: StudyConfig) -> Iterator[Choices]:
    for first, second in combinations(config.letters, 2):
        counts = (len(config.grid[first]), len(config.grid[second]))
        both = product(*map(range, counts)) if config.cross else ((i, i) for i in range(min(counts)))
        for i, j in both:
            pair = Choice(first, i), Choice(second, j)
            yield from (pair, pair[::-1])


def _insertion(config: StudyConfig) -> Iterator[Choices]:
    """A third technique, at the study's one setting, between the two of a pair, at the settings of equal number."""
    for first, second in combinations(config.letters, 2):
        for third in config.letters:
            if third in (first, second):
                continue
            for i in range(min(len(config.grid[first]), len(config.grid[second]))):
                three = Choice(first, i), Choice(third, config.setting), Choice(second, i)
                yield from (three, three[::-1])


def _permutations(config: StudyConfig) -> Iterator[Choices]:
    for order in permutations(config.letters):
        yield tuple(Choice(letter, config.setting) for letter in order)


def _repetition(config: StudyConfig) -> Iterator[Choices]:
    for order in config.repeats:
        yield tuple(
            Choice(letter, config.setting, order[: i + 1].count(letter), order.count(letter))
            for i, letter in enumerate(order)
        )


def settings_of(config: RunConfig, grid: Mapping[str, tuple[dict[str, Any], ...]], choice: Choice) -> Any:
    """Give the phase's settings of a choice.

    Raises:
        ConfigError: the grid names an unknown setting or a value out of its range, with the place in the grid.
    """
    phase = BY_LETTER[choice.letter]
    where = f"study.grid.{choice.letter}[{choice.setting}]"
    settings = changed(config, phase, grid[choice.letter][choice.setting], where)
    return settings if choice.turns == 1 else decode(phase.config, _portion(encode(settings), choice), where)


def check(config: RunConfig) -> None:
    """Refuse a study whose grid has an impossible setting, or whose letters are no techniques."""
    if config.study is None:
        return
    for letter in parse_order(config.study.letters):
        for number in range(len(config.study.grid[letter.letter])):
            settings_of(config, config.study.grid, Choice(letter.letter, number))


def _portion(settings: dict[str, Any], choice: Choice) -> dict[str, Any]:
    """Give one turn of a repeated technique so that all turns leave what a single one would; bits need no portion."""
    portions = dict(settings)
    if choice.letter == "P" and (target := {k: v for k, v in settings["target"].items() if v is not None}):
        portions["target"] = settings["target"] | {name: left ** (1 / choice.turns) for name, left in target.items()}
    elif choice.letter == "P":
        portions["ratio"] = 1 - _left(1 - settings["ratio"], choice, CHANNELS)
    elif choice.letter == "D":
        portions["depth"] = _left(settings["depth"], choice, BLOCKS)
        portions["width"] = _left(settings["width"], choice, CHANNELS)
    return portions


def _left(whole: float, choice: Choice, grain: int) -> float:
    """Give the share that one turn leaves, where all turns leave `whole`; in whole grains but for the last turn."""
    return _after(whole, choice.turn, choice.turns, grain) / _after(whole, choice.turn - 1, choice.turns, grain)


def _after(whole: float, turn: int, turns: int, grain: int) -> float:
    if turn in (0, turns):
        return whole if turn else 1.0
    even = whole ** (turn / turns)
    rounded = round(even * grain) / grain
    return rounded if whole < rounded < 1 else even


@dataclass(frozen=True)
class Plan:
    """The steps of each trial, first to last, and the file of each digest that a config names."""

    chains: dict[Trial, tuple[Source, ...]]
    files: dict[str, Path]

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps, each key once, inputs first."""
        found: dict[str, Step] = {}
        for chain in self.chains.values():
            for source in chain:
                found |= {step.key: step for step in _unlisted(source, found)}
        return tuple(found.values())


def _unlisted(source: Source, found: Mapping[str, Step]) -> Iterator[Step]:
    """Give a step and what it reads beside the chain, such as a teacher, unless it is listed."""
    if not isinstance(source, Step) or source.key in found:
        return
    for _, read in source.inputs:
        yield from _unlisted(read, found)
    yield source


def plan(config: RunConfig, study: StudyConfig, chosen: Iterable[Trial], data: Data) -> Plan:
    """Chain the steps of the trials; trials that begin alike share their steps.

    Raises:
        CompressorError: a setting is impossible, a file is missing, or a checkpoint does not fit the data.
    """
    planner = _Planner(config, study, data)
    return Plan({trial: planner.chain(trial.seed, trial.choices) for trial in chosen}, planner.files)


class _Planner:
    """Makes each step, and each choice's settings, once."""

    def __init__(self, config: RunConfig, study: StudyConfig, data: Data) -> None:
        self.config, self.study, self.data = config, study, data
        self.files: dict[str, Path] = {}
        self._chains: dict[tuple[int, Choices], tuple[Source, ...]] = {}
        self._settings: dict[tuple[int, Choice], tuple[RunConfig, Phase, Any]] = {}
        self._seeded: dict[int, RunConfig] = {}

    def chain(self, seed: int, choices: Choices) -> tuple[Source, ...]:
        """Give the sources of a chain, first to last."""
        if (seed, choices) not in self._chains:
            self._chains[seed, choices] = self._made(seed, choices)
        return self._chains[seed, choices]

    def _made(self, seed: int, choices: Choices) -> tuple[Source, ...]:
        if not choices:
            return (start(self._of(seed), self.data, self.files),)
        before = self.chain(seed, choices[:-1])
        config, phase, settings = self._chosen(seed, choices[-1])
        return (*before, next_step(config, phase, settings, self.data, before))

    def _of(self, seed: int) -> RunConfig:
        if seed not in self._seeded:
            self._seeded[seed] = with_seed(self.config, seed)
        return self._seeded[seed]

    def _chosen(self, seed: int, choice: Choice) -> tuple[RunConfig, Phase, Any]:
        if (seed, choice) not in self._settings:
            phase = BY_LETTER[choice.letter]
            config = self._of(seed)
            config = replace(config, **{phase.name: settings_of(config, self.study.grid, choice)})
            self._settings[seed, choice] = config, phase, resolved(config, phase, self.data, self.files)
        return self._settings[seed, choice]
