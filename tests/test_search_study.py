"""A joint search and its rivals: which steps there are, what they say over seeds, and how that is shown."""

from dataclasses import replace
from importlib import util

import numpy as np
import pytest
import searches
from PIL import Image
from scipy import stats
from searches import SETTINGS, study, trial
from settings import CONFIG, DATA, model_folder

from compressor.arch import Bits, Quantization
from compressor.config.search import FinalConfig, SearchConfig
from compressor.errors import ConfigError, StoreError, UnfinishedError
from compressor.folders import write_json
from compressor.pipeline import Step
from compressor.report import drawing, search_figures, search_tables
from compressor.search.found import SCHEMA, Found, read_found
from compressor.search.types import Agent, Bill
from compressor.studies import joint
from compressor.studies.joint_results import Timings
from compressor.studies.study import Failure, State

AGENTS = tuple(Agent)


def found(agent: Agent = Agent.JOINT) -> Found:
    rule, bill = Quantization(Bits(8, 8), 8), Bill(190, 1900, 300, None)
    kept = {"s0": (0, 2)}
    return Found(SCHEMA, agent, 0, 0.99, "c", 0.9, bill, kept, rule, searches.LAYERS, (), 4, 2.0)


def hunts(settings: SearchConfig = SETTINGS, **changes) -> tuple[joint.Hunt, ...]:
    return joint.plan(replace(CONFIG, **changes), settings, DATA).hunts


def with_final(**changes) -> SearchConfig:
    return replace(SETTINGS, joint=replace(SETTINGS.joint, **changes))


class TestPlan:
    def test_has_a_search_of_each_agent_with_each_seed_on_that_seeds_baseline(self):
        planned = hunts()
        assert [(h.seed, h.agent) for h in planned] == [
            (seed, agent) for seed in (0, 1, 2) for agent in (Agent.JOINT, Agent.STEPWISE, Agent.RANDOM)
        ]
        assert len({h.step.key for h in planned}) == 9
        assert len({h.baseline.key for h in planned}) == 3

    @pytest.mark.parametrize(
        "settings",
        [
            replace(SETTINGS, rivals=(), seeds=(0,), workers=2, figures=True),
            replace(SETTINGS, rivals=(Agent.UNIFORM,), seeds=(0, 5)),
            with_final(fit=replace(SETTINGS.joint.fit, epochs=30, lr=0.5)),
            with_final(recovery=replace(SETTINGS.joint.recovery, teacher="baseline")),
        ],
    )
    def test_a_search_is_the_same_step_whoever_else_searches_and_however_long_is_trained(self, settings):
        assert hunts(settings)[0].step.key == hunts()[0].step.key

    @pytest.mark.parametrize(
        "settings",
        [
            replace(SETTINGS, evaluations=5),
            replace(SETTINGS, budget=replace(SETTINGS.budget, size=0.1)),
            replace(SETTINGS, tune=3),
            replace(SETTINGS, groups=3),
            replace(SETTINGS, seeds=(1,)),
        ],
    )
    def test_what_changes_a_search_changes_its_key(self, settings):
        assert hunts(settings)[0].step.key != hunts()[0].step.key

    @pytest.mark.parametrize(("count", "same"), [(0, True), (1, True), (2, False)])
    def test_who_teaches_what_is_found_changes_an_untrained_search_only_where_there_are_finalists(self, count, same):
        taught = with_final(recovery=replace(SETTINGS.joint.recovery, teacher="baseline"))
        keys = {hunts(replace(each, finalists=count))[0].step.key for each in (SETTINGS, taught)}
        assert len(keys) == (1 if same else 2)
        longer = hunts(replace(SETTINGS, finalists=count, finalist_batches=9))[0].step.key
        assert (longer in keys) is same
        assert (hunts()[0].step.key in keys) is same

    def test_who_teaches_what_is_found_changes_a_search_whose_candidates_are_trained(self):
        taught = with_final(recovery=replace(SETTINGS.joint.recovery, teacher="baseline"))
        assert len({hunts(replace(each, tune=2))[0].step.key for each in (SETTINGS, taught)}) == 2

    def test_a_given_network_is_everybodys_baseline(self, tmp_path):
        folder = model_folder(tmp_path / "model")
        assert {h.baseline.key for h in hunts(checkpoint=str(folder))} == {joint.start(
            replace(CONFIG, checkpoint=str(folder)), DATA, {}).key}  # fmt: skip

    def test_layers_timings_are_part_of_the_key_by_their_content(self, tmp_path):
        def key(text: str) -> str:
            (tmp_path / "table.json").write_text(text)
            return joint.plan(CONFIG, SETTINGS, DATA, lambda source: tmp_path / "table.json").hunts[0].step.key

        assert key("1") == key("1") != key("2")
        assert key("1") != hunts()[0].step.key

    def test_a_network_that_is_quantized_already_is_refused(self, tmp_path):
        folder = model_folder(tmp_path / "model", quantization=Quantization(Bits(4, 4), 8))
        with pytest.raises(ConfigError, match="is quantized already; give the folder of an uncompressed network"):
            hunts(checkpoint=str(folder))

    @pytest.mark.parametrize(
        ("missing", "line"),
        [
            ("stable_baselines3", "search.agent=joint needs the package stable-baselines3: pip install"),
            ("optuna", r"search.rivals=\[nsga2\] needs the package optuna: pip install 'compressor\[search\]'"),
        ],
    )
    def test_a_package_that_is_not_there_is_named_before_anything_runs(self, missing, line, monkeypatch):
        find = util.find_spec
        monkeypatch.setattr(joint, "find_spec", lambda name: None if name == missing else find(name))
        with pytest.raises(ConfigError, match=line):
            hunts(replace(SETTINGS, rivals=(Agent.NSGA2,)))


class TestTraining:
    def test_is_one_step_with_what_was_found(self):
        hunt = hunts()[0]
        (step,) = joint.training(hunt, found(), SETTINGS, DATA)
        assert step.name == "joint"
        assert dict(step.inputs) == {"model": hunt.baseline}
        assert (step.config.kept, step.config.quantization) == (found().kept, found().quantization)
        assert step.config.fit.epochs == SETTINGS.joint.fit.epochs

    @pytest.mark.parametrize("epochs", [0, 1, 5, 10])
    def test_step_wise_prunes_then_quantizes_in_as_many_epochs_together(self, epochs):
        settings = with_final(fit=replace(SETTINGS.joint.fit, epochs=epochs))
        first, second = joint.training(hunts()[1], found(Agent.STEPWISE), settings, DATA)
        assert dict(second.inputs)["model"] is first
        assert first.config.quantization.bits == Bits(32, 32)
        assert (first.config.kept, second.config.kept) == (found().kept, {})
        assert second.config.quantization == found().quantization
        assert first.config.fit.epochs + second.config.fit.epochs == epochs

    def test_each_seed_trains_with_its_own(self):
        steps = [joint.training(h, found(), SETTINGS, DATA)[0] for h in hunts() if h.agent is Agent.JOINT]
        assert [step.config.fit.seed for step in steps] == [0, 1, 2]

    def test_learns_from_the_baseline_where_told(self):
        teacher = FinalConfig(40, 40, replace(SETTINGS.joint.recovery, teacher="baseline"), SETTINGS.joint.fit)
        hunt = hunts()[0]
        (step,) = joint.training(hunt, found(), replace(SETTINGS, joint=teacher), DATA)
        assert dict(step.inputs)["teacher"] is hunt.baseline

    def test_steps_are_listed_inputs_first_and_once(self):
        chains = [joint.training(hunt, found(hunt.agent), SETTINGS, DATA)[-1] for hunt in hunts()]
        steps = joint.steps_of(tuple(chains))
        assert len({step.key for step in steps}) == len(steps)
        for i, step in enumerate(steps):
            assert all(source in steps[:i] for _, source in step.inputs if isinstance(source, Step))


class TestFound:
    def test_is_read_as_it_was_written(self, tmp_path):
        write_json(tmp_path / "found.json", found())
        assert read_found(tmp_path / "found.json") == found()

    @pytest.mark.parametrize("text", ["{", "[]", '{"schema": 2}', '{"schema": 1}'])
    def test_a_damaged_one_says_what_to_remove(self, text, tmp_path):
        (tmp_path / "found.json").write_text(text)
        with pytest.raises(StoreError, match=f"remove {tmp_path} and the search is run again"):
            read_found(tmp_path / "found.json")


class TestResults:
    def test_ratios_are_shares_of_each_seeds_baseline(self):
        (row,) = study(trial(Agent.JOINT, 0, 0.9), trial(Agent.JOINT, 1, 0.92)).summaries
        assert (row.size, row.bitops, row.macs, row.n) == (0.2, 0.2, 1.0, 2)
        assert row.per_second == 2.0
        assert row.test.value == pytest.approx(0.91)

    def test_one_seed_has_the_interval_over_images_and_several_one_over_seeds(self):
        (one,) = study(trial(Agent.JOINT, 0, 0.9)).summaries
        assert (one.test.low, one.test.high) == (0.89, 0.91)
        values = [0.9, 0.92, 0.93]
        (three,) = study(*(trial(Agent.JOINT, i, value) for i, value in enumerate(values))).summaries
        oracle = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
        assert (three.test.low, three.test.high) == pytest.approx((oracle.low, oracle.high))

    def test_an_interval_of_accuracy_ends_at_1(self):
        (row,) = study(trial(Agent.JOINT, 0, 0.9), trial(Agent.JOINT, 1, 0.99)).summaries
        assert row.test.high == 1.0

    def test_a_duel_is_paired_by_seed(self):
        pairs = [(0.95, 0.94), (0.90, 0.91), (0.93, 0.90)]
        trials = [
            trial(agent, i, score)
            for i, both in enumerate(pairs)
            for agent, score in zip((Agent.JOINT, Agent.STEPWISE), both, strict=True)
        ]
        (duel,) = study(*trials).duels
        assert duel.differences == pytest.approx((0.01, -0.01, 0.03))
        assert (duel.wins, duel.seeds) == (2, (0, 1, 2))
        a, b = zip(*pairs, strict=True)
        oracle = stats.ttest_rel(a, b).confidence_interval(0.95)
        assert (duel.difference.low, duel.difference.high) == pytest.approx((oracle.low, oracle.high))

    def test_a_seed_that_one_of_both_lacks_counts_for_neither(self):
        trials = trial(Agent.JOINT, 0, 0.9), trial(Agent.JOINT, 1, 0.9), trial(Agent.RANDOM, 1, 0.8)
        (duel,) = study(*trials).duels
        assert duel.seeds == (1,)

    def test_of_regression_the_smaller_error_wins(self):
        (duel,) = study(trial(Agent.JOINT, 0, 3.0, "mae"), trial(Agent.RANDOM, 0, 4.0, "mae"), name="mae").duels
        assert duel.difference.value == 1.0


class TestShown:
    def shown(self, *trials, **how) -> str:
        console = search_tables.console()
        with console.capture() as capture:
            console.print(search_tables.agents_table(study(*trials, **how)))
        return capture.get()

    def test_every_agent_has_a_line_and_no_line_is_wide(self):
        text = self.shown(*(trial(agent, seed, 0.9) for seed in range(3) for agent in AGENTS))
        for title in ("baseline", "size 0.2 of the baseline's; 3 seeds", *search_tables.TITLES.values()):
            assert title in text
        assert max(map(len, text.splitlines())) <= 118

    def test_an_agent_that_lacks_seeds_says_of_how_many_it_is(self):
        text = self.shown(trial(Agent.JOINT, 0, 0.9), trial(Agent.JOINT, 1, 0.9), trial(Agent.BITS, 0, 0.9))
        assert "bits (HAQ) (n=1)" in text

    @pytest.mark.parametrize(
        ("scores", "line"),
        [
            ((0.95, 0.90), "joint beats step-wise P, Q: +5.00 points of accuracy on test (1 seed)"),
            ((0.90, 0.95), "joint does NOT beat step-wise P, Q: -5.00 points of accuracy on test (1 seed)"),
            ((0.90, 0.90), "joint equals step-wise P, Q: +0.00 points of accuracy on test (1 seed)"),
        ],
    )
    def test_says_plainly_whether_joint_beats_step_wise(self, scores, line):
        trials = [trial(agent, 0, score) for agent, score in zip((Agent.JOINT, Agent.STEPWISE), scores, strict=True)]
        assert next(search_tables.duel_lines(study(*trials))) == line

    @pytest.mark.parametrize(("size", "said"), [(195, ""), (206, ""), (193, ", at sizes of 0.2000 and 0.1930")])
    def test_says_both_sizes_where_one_is_an_advantage(self, size, said):
        rival = replace(trial(Agent.STEPWISE, 0, 0.9), cost=searches.cost(size))
        line = next(search_tables.duel_lines(study(trial(Agent.JOINT, 0, 0.95), rival)))
        assert line == f"joint beats step-wise P, Q: +5.00 points of accuracy on test (1 seed){said}"

    def test_an_interval_that_holds_0_is_said(self):
        trials = [trial(Agent.JOINT, i, 0.9 + 0.03 * (-1) ** i) for i in range(3)]
        trials += [trial(Agent.STEPWISE, i, 0.9) for i in range(3)]
        line = next(search_tables.duel_lines(study(*trials)))
        assert "above in 2 of 3 seeds" in line
        assert "the interval holds 0" in line

    def test_latencies_are_said_with_the_error_of_what_foretold_them(self):
        whole = study(trial(Agent.JOINT, 0, 0.9))
        assert list(search_tables.latency_lines(whole)) == []
        (line,) = search_tables.latency_lines(replace(whole, latency=Timings("onnxruntime", 0.12)))
        assert line == "latency: joint 1.5 ms (layers timed on onnxruntime, off whole networks by up to 12 %)"

    def test_says_that_step_wise_was_left_out(self):
        assert list(search_tables.duel_lines(study(trial(Agent.JOINT, 0, 0.9)))) == [
            "joint was not compared with the step-wise way"
        ]

    def test_what_failed_ends_in_exit_code_1(self):
        whole = study(trial(Agent.JOINT, 0, 0.9))
        search_tables.complete(whole)
        with pytest.raises(UnfinishedError, match="1 steps have no result, the first because: no room"):
            search_tables.complete(replace(whole, failures=(Failure("search-1", State.FAILED, "no room"),)))


class TestFigures:
    @pytest.mark.parametrize("name", ["front", "policy"])
    @pytest.mark.parametrize("agents", [AGENTS, (Agent.JOINT,)], ids=["all", "alone"])
    def test_are_written_as_png_and_svg_and_are_not_blank(self, name, agents, tmp_path):
        planted = study(*(trial(agent, seed, 0.9 - 0.01 * seed) for seed in range(2) for agent in agents))
        drawn = getattr(search_figures, f"{name}_figure")(planted)
        png, svg = drawing.write(drawn, tmp_path, name)
        grey = np.asarray(Image.open(png).convert("L"))
        assert 0.005 < (grey < 200).mean() < 0.6
        assert grey[:, [0, -1]].min() > 200, "something is cut at an edge"
        assert svg.read_text().count("<path") > 10

    def test_a_front_leaves_out_what_another_beats_in_both(self):
        assert search_figures.front([(1.0, 0.9), (2.0, 0.8), (1.5, 0.7), (3.0, 0.6)]) == [
            (1.0, 0.9), (2.0, 0.8), (3.0, 0.6),
        ]  # fmt: skip

    def test_every_agent_has_a_colour_and_a_marker_of_its_own(self):
        assert len(set(search_figures.STYLES.values())) == len(AGENTS)
        assert {marker for _, marker in search_figures.STYLES.values()} | set() == {
            marker for _, marker in (search_figures.STYLES[agent] for agent in AGENTS)
        }
