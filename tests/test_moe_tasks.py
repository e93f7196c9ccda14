"""Mixtures of every kind of task and routing; MedMNIST's sets, in their own layout, get the scores of its evaluator."""

import json
from pathlib import Path

import layouts
import numpy as np
import pytest
import torch
from medmnist.evaluator import getACC, getAUC
from terminal import TINY, Ended, call

from compressor.codec import decode
from compressor.data.types import Data
from compressor.mixture import answer, load_mixture
from compressor.studies.moe_results import AS_CHEAP, EQUAL, MIXTURE, Study, named

EXPERTS = "moe.experts=[{order:D,distill:{width:0.5}},{order:D,distill:{width:1.0}}]"
SINGLE = ("moe.single.order=D", "~moe.single.quantize", "moe.equal.order=D", "~moe.equal.quantize")
QUICK = (*TINY, EXPERTS, *SINGLE, "moe.figures=false", "runs=.")
SETS = {
    "bloodmnist": ("multi-class", {"colour": True, "labels": 8}),
    "chestmnist": ("multi-label, binary-class", {"colour": False, "labels": 2, "columns": 14}),
    "pneumoniamnist": ("binary-class", {"colour": False, "labels": 2}),
    "retinamnist": ("ordinal-regression", {"colour": True, "labels": 5}),
}


def study_of(ended: Ended) -> Study:
    assert ended.code == 0, ended.err
    return decode(Study, json.loads(Path(ended.out.splitlines()[-1].removeprefix("mixtures: ")).read_text()))


def medical(folder: Path, flag: str) -> Data:
    return layouts.load(folder / "cache", "medmnist", root=folder, flag=flag, limit=100)


def mixed_labels(path: Path) -> None:
    """Give each label images with it and images without, which an AUC needs."""
    arrays = dict(np.load(path))
    for seed, part in enumerate(("train", "val", "test")):
        labels = np.broadcast_to(np.arange(24)[:, None] % 2, arrays[f"{part}_labels"].shape)
        arrays[f"{part}_labels"] = np.random.default_rng(seed).permuted(labels, axis=0)
    np.savez_compressed(path, **arrays)


@pytest.mark.parametrize("flag", SETS)
def test_a_medical_set_is_scored_as_medmnist_does(flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    task, layout = SETS[flag]
    layouts.medical(tmp_path / f"{flag}.npz", size=28, **layout)
    if task.startswith("multi-label"):
        mixed_labels(tmp_path / f"{flag}.npz")
    words = ("dataset=medmnist", f"dataset.root={tmp_path}", f"dataset.flag={flag}", "runtime.data_cache=cache")
    ended = call("moe", *QUICK, *words)
    study = study_of(ended)
    assert "AUC" in ended.out
    test = medical(tmp_path, flag).test
    outputs = answer(load_mixture(tmp_path / "store" / study.trials[0].key), test).outputs
    many = task.startswith("multi-label")
    scores = (torch.sigmoid(outputs) if many else torch.softmax(outputs, dim=1)).numpy()
    mixture = named(study.trials[0], MIXTURE)
    assert mixture is not None
    found, truth = mixture.test.quality.scores, np.array(test.targets)
    assert found["auc"].value == pytest.approx(getAUC(truth, scores, task))
    assert found["accuracy"].value == pytest.approx(getACC(truth, scores, task))
    assert study.summaries[0].auc == found["auc"]
    assert len(study.trials[0].by_class) == len(study.classes) == outputs.shape[1]


@pytest.mark.parametrize("routing", ["topk", "threshold", "soft"])
def test_every_routing_has_its_rivals_and_its_budget(
    routing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    study = study_of(call("moe", *QUICK, f"moe.routing={routing}", "moe.k=2"))
    (trial,) = study.trials
    mixture, random = named(trial, MIXTURE), named(trial, "random router")
    assert mixture is not None
    assert random is not None
    assert random.test.bitops == pytest.approx(mixture.test.bitops)
    assert len(trial.sweep) == (1 if routing == "soft" else 16)
    if routing == "soft":
        assert trial.sweep[0].test == pytest.approx(mixture.test.quality.scores["accuracy"].value)
    if routing != "threshold":
        assert mixture.shares == (1.0, 1.0)


def test_without_a_recipe_the_rival_as_cheap_is_the_dearest_such_expert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in QUICK if not word.removeprefix("~").startswith("moe.equal")]
    study = study_of(call("moe", *words, "moe.equal=null"))
    (trial,) = study.trials
    mixture, rival = named(trial, MIXTURE), trial.candidates[-1]
    assert mixture is not None
    assert rival.name == AS_CHEAP
    costs = [expert.val.bitops for expert in trial.candidates[:2]]
    assert rival.val.bitops == max(cost for cost in costs if cost <= EQUAL * mixture.val.bitops)


def test_numbers_are_answered_by_a_mixture_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = call("moe", "dataset=rotated_digits", *QUICK)
    study = study_of(ended)
    assert study.score == "mae"
    assert "test MAE" in ended.out
    assert study.trials[0].by_class == ()
    mixture = named(study.trials[0], MIXTURE)
    assert mixture is not None
    assert study.summaries[0].test == mixture.test.quality.scores["mae"]
