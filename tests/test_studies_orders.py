"""An order study's trials and steps: what is compared, what is shared, and that repeats end at equal cost."""

import itertools
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given as examples
from hypothesis import strategies as st
from settings import CONFIG, DATA, STUDY

from compressor import planning
from compressor.arch import Arch, shrink
from compressor.config import DistillConfig, PruneConfig
from compressor.errors import ConfigError
from compressor.families import architecture
from compressor.phases.prune import layer_counts
from compressor.pipeline import Step
from compressor.studies.orders import Choice, Part, plan, settings_of, trials
from compressor.studies.settings import with_seed

CHOSEN = trials(STUDY)


class TestTrials:
    def test_each_pair_is_run_both_ways_over_all_combinations_of_settings_and_seeds(self):
        pairs = [trial for trial in CHOSEN if trial.part is Part.PAIRWISE]
        assert len(pairs) == len(set(pairs)) == 6 * 2 * 4 * len(STUDY.seeds)
        found = {(trial.order, trial.setting, trial.seed) for trial in pairs}
        assert found == {(order[::-1], setting, seed) for order, setting, seed in found}

    def test_uncrossed_pairs_take_settings_of_equal_number(self):
        pairs = [trial for trial in trials(replace(STUDY, cross=False)) if trial.part is Part.PAIRWISE]
        assert {trial.setting for trial in pairs if trial.order in ("DP", "PD")} == {"D0 P0", "D1 P1"}

    def test_each_third_technique_stands_between_each_pair_both_ways(self):
        between = [trial for trial in CHOSEN if trial.part is Part.INSERTION and trial.seed == STUDY.seeds[0]]
        orders = Counter(trial.order for trial in between)
        assert set(orders) == {"".join(order) for order in itertools.permutations("DPQE", 3)}
        assert set(orders.values()) == {2}

    def test_permutations_are_all_orders_at_one_setting(self):
        found = [trial for trial in CHOSEN if trial.part is Part.PERMUTATIONS and trial.seed == STUDY.seeds[0]]
        assert {trial.order for trial in found} == {"".join(order) for order in itertools.permutations("DPQE")}
        assert {trial.setting for trial in found} == {"D1 E1 P1 Q1"}

    @pytest.mark.parametrize("part", list(Part))
    def test_each_part_can_be_switched_off(self, part):
        without = trials(replace(STUDY, parts=replace(STUDY.parts, **{part.value: False})))
        assert {trial.part for trial in without} == set(Part) - {part}


class TestSteps:
    def test_trials_that_begin_alike_share_their_steps(self):
        planned = plan(CONFIG, STUDY, CHOSEN, DATA)
        orders = {tuple(source.key for source in chain) for chain in planned.chains.values()}
        prefixes = {order[: i + 1] for order in orders for i in range(len(order))}
        assert len(planned.steps) == len(prefixes) < sum(map(len, planned.chains.values())) / 2

    def test_inputs_are_listed_before_their_readers(self):
        seen = set()
        for step in plan(CONFIG, STUDY, CHOSEN, DATA).steps:
            assert all(source.key in seen for _, source in step.inputs)
            seen.add(step.key)

    def test_a_chain_has_the_keys_that_run_gives_the_same_settings(self):
        (trial,) = [t for t in CHOSEN if (t.part, t.order, t.seed) == (Part.PERMUTATIONS, "DPQE", STUDY.seeds[1])]
        config = with_seed(CONFIG, trial.seed)
        for choice in trial.choices:
            name = {"D": "distill", "P": "prune", "Q": "quantize", "E": "exit"}[choice.letter]
            config = replace(config, **{name: settings_of(config, STUDY.grid, choice)})
        expected = planning.plan(replace(config, order="DPQE"), DATA).steps
        chain = plan(CONFIG, STUDY, [trial], DATA).chains[trial]
        assert [source.key for source in chain] == [source.key for source in expected]

    def test_a_seed_reaches_every_training(self):
        for chain in plan(CONFIG, STUDY, CHOSEN, DATA).chains.items():
            trial, sources = chain
            assert {source.config.fit.seed for source in sources if isinstance(source, Step)} == {trial.seed}

    def test_planning_ten_thousand_steps_takes_under_two_seconds_and_no_torch(self):
        script = (
            "import sys, time; sys.path.insert(0, sys.argv[1]); import settings as s; from dataclasses import replace\n"
            "from compressor.studies.orders import plan, trials\n"
            "study = replace(s.STUDY, seeds=tuple(range(75)))\n"
            "began = time.process_time(); steps = plan(s.CONFIG, study, trials(study), s.DATA).steps\n"
            "keys = {step.key for step in steps}; took = time.process_time() - began\n"
            "assert 'torch' not in sys.modules; assert len(keys) > 10_000, len(keys); assert took < 2, took"
        )
        command = [sys.executable, "-c", script, str(Path(__file__).parent)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestRepeats:
    @examples(st.floats(0.01, 0.95), st.integers(2, 4))
    def test_repeated_pruning_leaves_what_one_pruning_leaves(self, ratio, turns):
        left = 1.0
        for turn in range(1, turns + 1):
            settings = settings_of(CONFIG, {"P": ({"ratio": ratio},)}, Choice("P", 0, turn, turns))
            assert isinstance(settings, PruneConfig)
            left *= 1 - settings.ratio
        assert left == pytest.approx(1 - ratio)

    @examples(st.sampled_from([0.2, 0.3, 0.4, 0.5, 0.6, 0.7]))
    def test_two_prunings_of_a_resnet_end_in_the_widths_of_one(self, ratio):
        widths = []
        for turns in (1, 2):
            sizes = {"s0": 16, "s1": 32, "s2": 64}
            for turn in range(1, turns + 1):
                settings = settings_of(CONFIG, {"P": ({"ratio": ratio},)}, Choice("P", 0, turn, turns))
                sizes = layer_counts({axis: torch.zeros(size) for axis, size in sizes.items()}, settings.ratio, 1)
            widths.append(sizes)
        assert widths[0] == widths[1]

    @examples(st.sampled_from([0.34, 0.5, 0.67]), st.sampled_from(["resnet20", "resnet56"]))
    def test_two_distillations_end_in_the_depth_of_one(self, depth, name):
        network = replace(CONFIG.architecture, name=name)
        whole = architecture(network, DATA.channels, DATA.size, DATA.mean, DATA.std, DATA.task)

        def distilled(turns: int) -> Arch:
            arch = whole
            for turn in range(1, turns + 1):
                settings = settings_of(CONFIG, {"D": ({"depth": depth},)}, Choice("D", 0, turn, turns))
                assert isinstance(settings, DistillConfig)
                arch = shrink(arch, settings.depth, settings.width)
            return arch

        assert distilled(1) == distilled(2)


class TestBadGrids:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"ratio": 1.5}, r"study.grid.P\[0\]"),
            ({"ration": 0.5}, r"study.grid.P\[0\]: unknown key 'ration'"),
            ({"target": {"macs": 2.0}}, r"study.grid.P\[0\].*macs"),
        ],
    )
    def test_a_setting_that_is_impossible_is_refused_with_its_place(self, change, message):
        study = replace(STUDY, grid={**STUDY.grid, "P": (change, {})})
        with pytest.raises(ConfigError, match=message):
            plan(CONFIG, study, trials(study), DATA)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"letters": "DPP"}, "study.letters=DPP: give each letter once"),
            ({"letters": "D"}, "study.letters=D: give two letters or more"),
            ({"letters": "DX"}, "study.letters=DX: give settings for X"),
            ({"seeds": ()}, "study.seeds=.*at least one seed"),
            ({"seeds": (1, 1)}, "study.seeds=.*each seed once"),
            ({"grid": {"D": (), "P": ({},), "Q": ({},), "E": ({},)}}, "study.grid.D"),
            ({"setting": 2}, "study.setting=2: give .*0 to 1"),
            ({"repeats": ("DXE",)}, "study.repeats=DXE"),
            ({"reference": "XD"}, "study.reference=XD"),
            ({"level": 0.0}, "study.level=0.0"),
            ({"executor": "cloud"}, "study.executor=cloud"),
        ],
    )
    def test_what_cannot_be_compared_is_refused_in_one_line(self, changes, message):
        with pytest.raises(ConfigError, match=message):
            replace(STUDY, **changes)
