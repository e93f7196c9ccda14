"""What a user can get wrong about mixtures ends in exit code 2 and one line; recipes become the steps they describe."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import samples
from settings import CONFIG, DATA
from terminal import TINY, call

from compressor.arch import Bits, Input, Task, TaskKind
from compressor.codec import decode
from compressor.config import RunConfig
from compressor.config.moe import MoeSettings, Recipe
from compressor.errors import ConfigError
from compressor.pipeline import Step, given
from compressor.studies.mixtures import Plan, plan
from compressor.studies.moe_single import epochs, longer

TWO = "moe.experts=[{checkpoint:small},{checkpoint:same}]"
UNTRAINED = ("baseline.fit.epochs=0", "distill.fit.epochs=0", "quantize.fit.epochs=0")
WRONG: dict[str, str] = {
    "moe.experts=[]": "2 to 16 experts",
    "moe.experts=[{checkpoint:small}]": "2 to 16 experts",
    f"moe.experts=[{','.join(['{order:DQ}'] * 17)}]": "moe.experts=[17 of them]: give 2 to 16 experts",
    "moe.experts=3": "expected a list",
    "moe.experts=[{},{order:DQ}]": "moe.experts[0].order=None: give the phases",
    "moe.experts=[{order:DX},{order:DQ}]": "moe.experts[0]: order 'DX' has 'X'",
    "moe.experts=[{order:DQ},{order:DQ}]": "moe.experts[1]: is the same network as moe.experts[0]",
    "moe.experts=[{order:DQ,seed:-1},{order:DQ}]": "moe.experts[0].seed=-1",
    "moe.experts=[{order:DQ,distil:{depth:0.5}},{order:DQ}]": "unknown key 'distil'",
    "moe.experts=[{order:DQ,distill:{dept:0.5}},{order:DQ}]": "moe.experts[0].distill: unknown key 'dept'",
    "moe.experts=[{order:DQ,distill:{depth:2}},{order:DQ}]": "moe.experts[0].distill.depth=2.0: give",
    "moe.experts=[{order:DQ,prune:{ratio:0.2}},{order:DQ}]": "moe.experts[0].prune: order DQ has no such phase",
    "moe.experts=[{order:DQ,checkpoint:small},{order:DQ}]": "checkpoint=small: give a model's folder alone",
    "moe.experts=[{checkpoint:small},{checkpoint:nowhere}]": "moe.experts[1].checkpoint=nowhere: no arch.json",
    "moe.experts=[{checkpoint:small},{checkpoint:colour}]": "checkpoint=colour: reads images of 3 x 32 x 32",
    "moe.experts=[{checkpoint:small},{checkpoint:five}]": "moe.experts[1].checkpoint=five: answers multiclass with 5",
    "moe.k=4": "at most the number of experts, 3",
    "moe.k=0": "1 to 16 experts",
    "moe.routing=best": "not one of top1, topk, threshold, cascade, soft",
    "moe.seeds=[]": "at least one seed",
    "moe.seeds=[0,0]": "each seed once",
    "moe.seeds=[-1]": "0 to 2147483647",
    "moe.balance=-1": "moe.balance=-1.0: give 0 (off)",
    "moe.cost=-1": "moe.cost=-1.0: give 0 (off)",
    "moe.budget={macs:0.1,bitops:0.1}": "macs or bitops, not both",
    "moe.budget.macs=2": "a share above 0, at most 1",
    "moe.busiest=0.4": "moe.busiest=0.4: give 0.5 to 1",
    "moe.busiest=0.8": "moe.busiest=0.8: give 1 where moe.routing=top1",
    "moe.router.width=0": "1 to 1024 channels",
    "moe.router.depth=9": "1 to 8 convolutions",
    "moe.router.hidden=-1": "moe.router.hidden=-1: give 0 (no such layers)",
    "moe.router.task.epochs=-1": "fit.epochs=-1: give 0 to 100000",
    "moe.router.task.epochs=3": "moe.router.task.epochs=3: give 0 where moe.routing=top1",
    "moe.router.bits.weight=9": "moe.router: weights of 9 bits",
    "moe.joint.recovery.teacher=input": "none or baseline",
    "moe.single.order=P": "moe.single.order=P: give an order of one D",
    "moe.equal.order=DD": "moe.equal.order=DD: give an order of one D",
    "distill.student=resnet20": "moe.single.distill.student=resnet20: give null",
    "moe.routing=cascade moe.stem=shared": "moe.stem=shared: give own where moe.routing=cascade",
    "moe.routing=cascade moe.router.task.epochs=3": "moe.router.task.epochs=3: give 0 where moe.routing=cascade",
    "moe.routing=cascade dataset=rotated_digits": "moe.routing=cascade: give another; numbers do not say",
    "moe=nope": "there are cascade, shared, threshold, top1",
    "moe.foo=1": "no setting 'moe.foo'",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models that fit the digits and models that do not."""
    folder = tmp_path_factory.mktemp("place")
    samples.saved(folder / "small")
    samples.saved(folder / "same", samples.arch(depth=1))
    samples.saved(folder / "colour", samples.arch(input=Input(3, 32, (0.3,) * 3, (0.4,) * 3)))
    samples.saved(folder / "five", samples.arch(task=Task(TaskKind.MULTICLASS, 5, tuple("01234"))))
    return folder


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


@pytest.mark.parametrize(("word", "says"), WRONG.items(), ids=WRONG)
def test_a_wrong_setting_is_one_line_and_nothing_is_made(word: str, says: str, place: Path) -> None:
    ended = call("moe", *TINY, *word.split())
    assert ended.code == 2
    assert says in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == ""
    assert not (place / "outputs" / "store").exists()


def test_a_budget_below_the_cheapest_expert_is_one_line_that_says_how_much_is_needed() -> None:
    ended = call("moe", *TINY, *UNTRAINED, TWO, "moe.budget.macs=0.0001", "runs=small_budget")
    assert ended.code == 2
    assert "moe.budget.macs=0.0001: the cheapest expert and the router need 0." in ended.err
    assert ended.err.count("\n") == 1


def moe(*experts: dict[str, Any], **changes: Any) -> MoeSettings:
    """Give the settings of a mixture as a config file would."""
    fit = {"epochs": 2, "batch": 32, "optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}
    fit |= {"schedule": "cosine", "warmup": 0, "label_smoothing": 0.0, "ema": 0.0, "precision": "auto"}
    fit |= {"channels_last": False, "compile": False, "seed": 0}
    values = {"experts": list(experts), "seeds": [0], "routing": "top1", "k": 1, "stem": "own", "balance": 0.01}
    values |= {"cost": 0.0, "budget": {"macs": None, "bitops": None}, "busiest": 1.0, "figures": False}
    values |= {"single": {"order": "DQ"}, "equal": {"order": "DQ"}}
    router = {"width": 4, "depth": 2, "hidden": 0, "bits": {"weight": 4, "act": 4}, "edge_bits": 8}
    values |= {"router": router | {"task": fit | {"epochs": 0, "warmup": 0}, "fit": fit}}
    values |= {"joint": {"recovery": {"teacher": "baseline", "temperature": 4.0, "weight": 0.9}, "fit": fit}}
    return decode(MoeSettings, values | changes, "moe")


TWO_RECIPES = ({"order": "PQ", "prune": {"ratio": 0.3}}, {"order": "DQ", "distill": {"width": 0.5}, "seed": 5})


def planned(settings: MoeSettings, config: RunConfig = CONFIG) -> Plan:
    return plan(config, settings, DATA)


class TestPlan:
    def test_an_expert_is_its_order_from_the_mixtures_baseline_with_what_it_changes(self) -> None:
        (mixed,) = planned(moe(*TWO_RECIPES)).mixtures
        pruned, thinner = mixed.chains
        assert [source.name for source in pruned] == ["baseline", "prune", "quantize"]
        assert [source.name for source in thinner] == ["baseline", "distill", "quantize"]
        assert pruned[0].key == thinner[0].key == mixed.baseline.key
        steps = [step for step in (pruned[1], thinner[1]) if isinstance(step, Step)]
        assert steps[0].config.ratio == 0.3
        assert steps[0].config.criterion == CONFIG.prune.criterion
        assert (steps[1].config.width, steps[1].config.depth) == (0.5, CONFIG.distill.depth)

    def test_the_seed_of_a_recipe_is_added_to_the_mixtures(self) -> None:
        mixtures = planned(moe(*TWO_RECIPES, seeds=[3, 4])).mixtures
        seeds = [
            [step.config.fit.seed for chain in mixed.chains for step in chain if isinstance(step, Step)]
            for mixed in mixtures
        ]
        assert seeds == [[3, 3, 3, 3, 8, 8], [4, 4, 4, 4, 9, 9]]
        trained = [(mixed.step.config.router.fit.seed, mixed.step.config.joint.fit.seed) for mixed in mixtures]
        assert trained == [(3, 3), (4, 4)]

    def test_the_mixture_reads_its_original_its_experts_and_its_teacher(self) -> None:
        (mixed,) = planned(moe(*TWO_RECIPES)).mixtures
        assert [role for role, _ in mixed.step.inputs] == ["original", "expert0", "expert1", "teacher"]
        settings = moe(*TWO_RECIPES)
        alone = replace(
            settings, joint=replace(settings.joint, recovery=replace(settings.joint.recovery, teacher="none"))
        )
        assert "teacher" not in dict(planned(alone).mixtures[0].step.inputs)

    def test_experts_of_one_beginning_share_its_steps(self) -> None:
        recipes = ({"order": "PQ"}, {"order": "PQ", "quantize": {"bits": {"weight": 2}}})
        (mixed,) = planned(moe(*recipes)).mixtures
        first, second = mixed.chains
        assert [a.key == b.key for a, b in zip(first, second, strict=True)] == [True, True, False]
        last = second[-1]
        assert isinstance(last, Step)
        assert last.config.bits == Bits(2, CONFIG.quantize.bits.act)

    @pytest.mark.parametrize(
        "change",
        [
            {"routing": "soft"},
            {"balance": 0.5},
            {"budget": {"macs": 0.5, "bitops": None}},
            {"seeds": [1]},
            {"stem": "shared"},
        ],
        ids=str,
    )
    def test_every_setting_of_the_mixture_is_in_its_key(self, change: dict[str, Any]) -> None:
        before, after = (planned(moe(*TWO_RECIPES, **c)).mixtures[0].step.key for c in ({}, change))
        assert before != after

    def test_rivals_and_figures_are_not_in_its_key(self) -> None:
        changed = {"figures": True, "single": {"order": "QD"}, "equal": {"order": "QD"}}
        before, after = (planned(moe(*TWO_RECIPES, **c)).mixtures[0].step.key for c in ({}, changed))
        assert before == after

    def test_a_run_refers_to_all_that_its_mixtures_are_made_from(self) -> None:
        found = planned(moe(*TWO_RECIPES, seeds=[0, 1]))
        sources = {source.key for mixed in found.mixtures for chain in mixed.chains for source in chain}
        assert set(found.keys) == sources | {mixed.step.key for mixed in found.mixtures}
        assert [source.name for source in found.ends] == ["baseline", "moe", "baseline", "moe"]


class TestLonger:
    def test_a_chain_trains_as_long_as_the_longest_and_the_joint_training_together(self) -> None:
        recipes = ({"order": "PQ", "prune": {"fit": {"epochs": 7}}}, {"order": "DQ"})
        (mixed,) = planned(moe(*recipes)).mixtures
        for chain in mixed.chains:
            found = longer(chain, mixed)
            assert [source.key for source in found[:-1]] == [source.key for source in chain[:-1]]
            assert epochs(found) == epochs(mixed.chains[0]) + 2

    def test_a_shared_stem_has_a_second_training_together(self) -> None:
        (mixed,) = planned(moe(*TWO_RECIPES, stem="shared")).mixtures
        assert epochs(longer(mixed.chains[0], mixed)) == epochs(mixed.chains[0]) + 4

    def test_what_trained_as_long_or_was_given_stays(self, place: Path) -> None:
        (mixed,) = planned(moe(*TWO_RECIPES)).mixtures
        once = longer(mixed.chains[0], mixed)
        assert [source.key for source in longer(once, mixed)] == [source.key for source in once]
        there = (given(place / "small"),)
        assert longer(there, mixed) == there


def test_a_rival_as_cheap_needs_no_recipe() -> None:
    assert [where for where, _ in moe(*TWO_RECIPES).solved] == ["moe.single", "moe.equal"]
    assert [where for where, _ in moe(*TWO_RECIPES, equal=None).solved] == ["moe.single"]


def test_a_recipe_names_its_place_when_it_is_wrong() -> None:
    with pytest.raises(ConfigError, match=r"^here\.checkpoint=x: give a model's folder alone"):
        Recipe(order="D", checkpoint="x").check("here")
