"""A joint search and its rivals: what its trials say over seeds, and how that is shown."""

from dataclasses import replace

import numpy as np
import pytest
import searches
from PIL import Image
from scipy import stats
from searches import found, study, trial

from compressor.checked import checked
from compressor.errors import StoreError, UnfinishedError
from compressor.folders import write_json
from compressor.report import drawing, search_figures, search_tables
from compressor.search.found import read_found
from compressor.search.types import Agent
from compressor.studies.joint_results import Timings
from compressor.studies.study import Failure, State

AGENTS = tuple(Agent)


class TestFound:
    def test_is_read_as_it_was_written(self, tmp_path):
        write_json(tmp_path / "found.json", checked(found()))
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
        assert set(search_figures.STYLES) == set(AGENTS)
        for each in zip(*search_figures.STYLES.values(), strict=True):  # the colours, then the markers
            assert len(set(each)) == len(AGENTS)
