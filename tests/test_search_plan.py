"""Which steps a joint search plans: a search of each agent with each seed, and the training of what it finds."""

from dataclasses import replace
from importlib import util

import pytest
from searches import SETTINGS, found
from settings import CONFIG, DATA, model_folder

from compressor.arch import Bits, Quantization
from compressor.config.search import FinalConfig, SearchConfig
from compressor.errors import ConfigError
from compressor.pipeline import Step
from compressor.search.types import Agent, Mode
from compressor.studies import joint
from compressor.studies.joint_study import feasible


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

    @pytest.mark.parametrize("agent", [Agent.JOINT, Agent.FLAT])
    def test_a_fixed_rival_is_the_step_of_the_method_in_fixed_mode_and_trained_as_that_is(self, agent):
        settings = replace(SETTINGS, agent=agent, rivals=(Agent.FIXED_2, Agent.FIXED_8), seeds=(0,))
        mixed, two, eight = hunts(settings)
        itself = replace(settings, mode=Mode.FIXED, bits=2, rivals=())
        (alone,) = hunts(itself)
        assert (two.agent, two.step.key) == (Agent.FIXED_2, alone.step.key)
        assert len({mixed.step.key, two.step.key, eight.step.key}) == 3
        trained = (joint.training(hunt, found(), settings, DATA) for hunt in (two, alone))
        assert len({step.key for chain in trained for step in chain}) == 1

    def test_a_fixed_rival_that_the_method_is_itself_is_refused(self):
        settings = replace(SETTINGS, mode=Mode.FIXED, bits=2)
        assert replace(settings, rivals=(Agent.FIXED_3,)).rivals
        with pytest.raises(ConfigError, match=r"agents other than fixed_2, as search.mode=fixed search.bits=2 is that"):
            replace(settings, rivals=(Agent.FIXED_2,))

    def test_a_fixed_rival_that_nothing_meets_the_budget_for_is_refused_before_anything_runs(self):
        def planned(size: float, rival: Agent) -> joint.Plan:
            settings = replace(SETTINGS, budget=replace(SETTINGS.budget, size=size), rivals=(rival,))
            return joint.plan(CONFIG, settings, DATA, feasible(CONFIG, settings))

        small = 0.007
        assert planned(small, Agent.FIXED_1).hunts
        line = f"^search.budget.size={small}: the smallest feasible value is "
        with pytest.raises(ConfigError, match=line) as caught:
            planned(small, Agent.FIXED_8)
        said = str(caught.value)
        assert said.endswith(" with fixed_8; give that, or leave fixed_8 out of search.rivals")
        value = float(said.partition("value is ")[2].partition(" ")[0])
        assert planned(value, Agent.FIXED_8).hunts

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
