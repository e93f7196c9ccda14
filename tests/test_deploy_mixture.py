"""Exported mixtures: images go where PyTorch sends them, experts not chosen are not run, and torch is not needed."""

import json
from pathlib import Path

import deployed
import numpy as np
import pytest
import samples
import tampering
from terminal import process

from compressor.arch import Routing, TaskKind
from compressor.codec import digest_file
from compressor.config import Engine, ExportConfig, ExportFormat
from compressor.deploy.export import export
from compressor.deploy.note import EXPORT, ExportNote, read_note
from compressor.deploy.runtime import load_export
from compressor.errors import CompressorError, ModelError
from compressor.mixture import Mixture, answer, save_mixture

NAMES = ("own", "shared", "cascade")
CONFIGS = {"onnx": deployed.ONNX, "openvino": deployed.OPENVINO, "packed": deployed.PACKED}


def mixture_of(name: str) -> Mixture:
    routing = Routing.CASCADE if name == "cascade" else Routing.TOP1
    return deployed.mixed(routing=routing, shared=name == "shared")[1]


@pytest.fixture(scope="module")
def folders(tmp_path_factory, digits) -> dict[str, Path]:
    """Give the exports of networks of their own, of networks with one first stage, and of a cascade, by format."""
    place, made = tmp_path_factory.mktemp("place"), {}
    for name in NAMES:
        (place / name).mkdir()
        save_mixture(mixture_of(name), place / name)
        for kind, config in CONFIGS.items():
            made[f"{name}-{kind}"] = place / f"{name}-{kind}"
            export(place / name, config, place / f"{name}-{kind}", digits.test, samples.RUNTIME)
    return made


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("name", NAMES)
class TestExport:
    def test_agrees_with_pytorch_on_every_engine_and_says_how_many_images_went_elsewhere(
        self, name, kind, folders, digits
    ):
        note, want = read_note(folders[f"{name}-{kind}"]), answer(mixture_of(name), digits.test)
        right = want.outputs.argmax(dim=1).numpy() == digits.test.targets
        assert (note.parity.images, note.parity.reference) == (120, pytest.approx(right.mean()))
        assert note.parity.engines
        for parity in note.parity.engines:
            assert parity.refused is None
            found = deployed.routes(
                load_export(folders[f"{name}-{kind}"], parity.engine, 1), digits.test.images[:], 120
            )
            other = ((found.heads < 0) != (want.heads.numpy() < 0)).any(axis=1)
            moved = (found.heads != want.heads.numpy()).any(axis=1) & ~other
            differing = found.outputs.argmax(axis=1) != want.outputs.numpy().argmax(axis=1)
            counts = parity.differing, parity.moved, parity.rerouted
            assert counts == (differing.sum(), moved.sum(), other.sum())
            assert differing.sum() <= 1
            assert other.sum() <= 1

    def test_grouped_answers_are_those_of_each_image_alone(self, name, kind, folders, digits):
        exported, images = load_export(folders[f"{name}-{kind}"], threads=1), digits.test.images[60:120]
        alone, together = (deployed.routes(exported, images, batch) for batch in (1, 60))
        assert (alone.heads == together.heads).all()
        np.testing.assert_allclose(alone.outputs, together.outputs, atol=2e-3)
        assert len(set(together.weights.argmax(axis=1))) > 1

    def test_describes_its_parts_and_how_images_are_sent(self, name, kind, folders):
        note, mixture = read_note(folders[f"{name}-{kind}"]), mixture_of(name)
        assert note.mixture is not None
        assert (note.stages, note.exits) == ((), None)
        assert note.mixture.rule == mixture.rule
        packed, shared = kind == "packed", mixture.rule.shared
        suffix = {"onnx": "onnx", "openvino": "xml", "packed": "packed"}[kind]
        router = note.mixture.router and note.mixture.router.file
        assert router == (None if name == "cascade" else f"router.{suffix}")
        assert (note.mixture.first is not None) is (shared and not packed)
        for i, (part, expert) in enumerate(zip(note.mixture.experts, mixture.experts, strict=True)):
            names = [""] if packed else [f"-stage-{head}" for head in range(len(expert.net.cuts))]
            assert [stage.file for stage in part.stages] == [f"expert-{i}{each}.{suffix}" for each in names]
            assert (part.exits is not None) is (expert.arch.exits is not None)

    def test_is_as_small_as_it_says(self, name, kind, folders):
        folder = folders[f"{name}-{kind}"]
        note = read_note(folder)
        assert note.mixture is not None
        assert note.file_bytes == sum(path.stat().st_size for path in folder.iterdir() if path.name != EXPORT)
        if kind == "packed":
            assert note.file_bytes <= 1.02 * note.size_bits / 8 + 4096 * (1 + len(note.mixture.experts))


def test_a_first_stage_that_all_share_is_stored_once(folders):
    note = read_note(folders["shared-onnx"])
    assert note.mixture is not None
    assert note.mixture.first is not None
    assert (note.mixture.first.inputs, note.mixture.first.outputs) == (("images",), ("features",))
    assert note.mixture.router is not None
    rests = [note.mixture.router, *(part.stages[0] for part in note.mixture.experts)]
    assert {rest.inputs for rest in rests} == {("features",)}
    from compressor.deploy.packed import read_packed

    router = read_packed(folders["shared-packed"] / "router.packed")
    with pytest.raises(ModelError, match=r"expert-0\.packed: its layers are not those of its network"):
        read_packed(folders["shared-packed"] / "expert-0.packed")
    assert any(name.startswith("stem") for name in router.layers)


@pytest.mark.parametrize("kind", [TaskKind.MULTILABEL, TaskKind.REGRESSION])
@pytest.mark.parametrize("config", [deployed.ONNX, deployed.OPENVINO], ids=["onnx", "openvino"])
def test_weighted_answers_of_other_tasks_agree_too(kind, config: ExportConfig, tmp_path):
    data, mixture = deployed.mixed(kind, Routing.TOPK)
    (tmp_path / "model").mkdir()
    save_mixture(mixture, tmp_path / "model")
    note: ExportNote = export(tmp_path / "model", config, tmp_path / "made", data.test, samples.RUNTIME)
    for found in note.parity.engines:
        assert found.differing in (0, 1)
        assert found.score == pytest.approx(note.parity.reference, abs=0.01)


def test_the_numpy_reference_answers_packed_files_as_torch_does(folders, digits):
    for name in NAMES:
        found = [
            deployed.routes(load_export(folders[f"{name}-packed"], engine), digits.test.images[:20], 20)
            for engine in (Engine.TORCH, Engine.NUMPY)
        ]
        assert (found[0].heads != found[1].heads).any(axis=1).sum() <= 1
        assert (found[0].outputs.argmax(axis=1) != found[1].outputs.argmax(axis=1)).sum() <= 1


ANSWER = """
import json
import numpy as np
from pathlib import Path
from compressor.deploy.runtime import load_export
images = np.load("images.npy")
exported = load_export(Path({folder!r}), engine={engine!r}, threads=1)
found = [exported.predict(images[i : i + n]).heads.tolist() for n in (1, 40) for i in range(0, 40, n)]
print(json.dumps(sum(found, [])))
"""


@pytest.mark.parametrize(("kind", "engine"), [("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino")])
def test_it_runs_with_numpy_and_its_engine_and_neither_torch_nor_hydra(kind, engine, folders, digits, tmp_path):
    images = digits.test.images[:40]
    np.save(tmp_path / "images.npy", images)
    folder = folders[f"own-{kind}"]
    ended = process("-c", deployed.ALONE + ANSWER.format(folder=str(folder), engine=engine), folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    heads = deployed.routes(load_export(folder, engine, 1), images, 40).heads.tolist()
    assert json.loads(ended.stdout) == heads + heads


@pytest.fixture
def copied(folders, tmp_path):
    """Copy an export so that it can be harmed."""

    def copy(name: str) -> Path:
        (tmp_path / name).mkdir()
        for path in folders[name].iterdir():
            (tmp_path / name / path.name).write_bytes(path.read_bytes())
        return tmp_path / name

    return copy


def edited(folder: Path, change) -> None:
    tampering.edited(folder / EXPORT, change)


class TestDamage:
    @pytest.mark.parametrize("name", ["router.onnx", "expert-2-stage-1.onnx"])
    @pytest.mark.parametrize("harm", ["cut", "changed", "removed"])
    def test_a_damaged_file_is_refused_by_name(self, name, harm, copied):
        path = copied("own-onnx") / name
        data = path.read_bytes()
        path.unlink()
        if harm != "removed":
            path.write_bytes(data[:-1] if harm == "cut" else data[:-1] + b"?")
        with pytest.raises(ModelError, match=f"{name}: .*export the model again"):
            load_export(path.parent)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda note: note["mixture"]["rule"].update(order=[0, 1, 1]), "order and prices of experts 0 to 2"),
            (lambda note: note["mixture"]["rule"].update(prices=[0.0]), "order and prices"),
            (lambda note: note["mixture"]["rule"].update(k=0), "k is 0"),
            (lambda note: note["mixture"]["rule"].update(routing="best"), "not one of top1"),
            (lambda note: note["mixture"]["rule"].update(shared=True), "first stage"),
            (lambda note: note["mixture"].update(first=note["mixture"]["router"]), "first stage"),
            (lambda note: note["mixture"].update(experts=note["mixture"]["experts"][:1]), "2 to 16 experts"),
            (lambda note: note["mixture"]["experts"][1].update(stages=[]), "stage without a file"),
            (lambda note: note["mixture"]["router"].update(file="../router.onnx"), "stage without a file"),
            (lambda note: note["mixture"]["experts"][0].update(exits=None), "2 stages for 1 heads"),
            (lambda note: note["files"].update({"expert-0-../stage-0.onnx": "0" * 16}), "names the file"),
            (lambda note: note.update(mixture=None), "stage without a file"),
        ],
    )
    def test_a_note_of_no_possible_mixture_is_refused_by_name(self, change, said, copied):
        folder = copied("own-onnx")
        edited(folder, change)
        with pytest.raises(ModelError, match=said) as caught:
            load_export(folder)
        assert str(caught.value).startswith(f"{folder / EXPORT}: ")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "other", "said"),
        [
            ("router", "expert-1-stage-0", r"the router gives \[2, 10\] numbers, not \[2, 3\]; export the model again"),
            ("expert-1-stage-0", "router", r"a head gives \[\d, 3\] numbers, not \[\d, 10\]; export the model again"),
        ],
    )
    def test_files_that_changed_places_are_refused(self, name, other, said, copied, digits):
        folder = copied("own-onnx")
        (folder / f"{name}.onnx").write_bytes((folder / f"{other}.onnx").read_bytes())
        edited(folder, lambda note: note["files"].update({f"{name}.onnx": digest_file(folder / f"{name}.onnx")}))
        exported = load_export(folder)
        with pytest.raises(ModelError, match=said):
            deployed.routes(exported, digits.test.images[:], 2)

    @pytest.mark.parametrize("engine", [Engine.ONNXRUNTIME, Engine.OPENVINO])
    def test_a_file_that_its_engine_cannot_run_is_named(self, engine, copied, digits):
        folder = copied("shared-onnx")
        other = folder / "expert-0-stage-0.onnx"  # reads features, not images
        (folder / "first.onnx").write_bytes(other.read_bytes())
        edited(folder, lambda note: note["files"].update({"first.onnx": digest_file(other)}))
        exported = load_export(folder, engine, threads=1)
        with pytest.raises(ModelError, match=rf"first\.onnx: {engine} [\d.]+\S* cannot run it") as caught:
            exported.predict(digits.test.images[:2])
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("name", ["own", "shared"])
    def test_packed_files_that_do_not_belong_together_are_refused(self, name, copied):
        folder = copied(f"{name}-packed")
        source = folder / "expert-1.packed"
        (folder / "router.packed").write_bytes(source.read_bytes())
        edited(folder, lambda note: note["files"].update({"router.packed": digest_file(source)}))
        with pytest.raises(CompressorError, match=str(folder)) as caught:
            load_export(folder)
        assert "\n" not in str(caught.value)

    def test_a_cut_packed_file_with_a_forged_digest_is_refused_by_name(self, copied):
        folder = copied("own-packed")
        path = folder / "expert-0.packed"
        path.write_bytes(path.read_bytes()[:-50])
        edited(folder, lambda note: note["files"].update({path.name: digest_file(path)}))
        with pytest.raises(ModelError, match=r"expert-0\.packed: is missing, cut or not a packed file"):
            load_export(folder)


def test_the_note_of_one_network_has_nothing_of_mixtures(digits, tmp_path):
    source = deployed.folder_of(samples.model(samples.arch()), tmp_path / "model")
    note = export(source, deployed.PACKED, tmp_path / "made", digits.test, samples.RUNTIME)
    data = json.loads((tmp_path / "made" / EXPORT).read_text())
    assert note.format is ExportFormat.PACKED
    assert "mixture" not in data
    assert "rerouted" not in data["parity"]["engines"][0]
