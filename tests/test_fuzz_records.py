"""Files that this program reads back, changed in hundreds of ways: each is refused by name, or says what it said."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import mutations
import pytest
import tampering
from terminal import TINY, call

from compressor import history
from compressor.deploy.note import EXPORT, read_note
from compressor.errors import CompressorError
from compressor.folders import CANDIDATES, FOUND, RECORD
from compressor.pipeline import given
from compressor.runs import RUN, Run, RunNote, keys_of, read_run, results_of
from compressor.search.candidates import Candidates
from compressor.search.found import read_found
from compressor.store import Store

SEARCH = ("search.budget.size=0.4", "search.evaluations=4", "search.warmup=2", "search.images=50",
          "search.recalibrate=40", "search.joint.calibrate=40", "search.joint.recalibrate=40", "search.finalists=0",
          "search.seeds=[0]", "search.rivals=[]", "search.figures=false")  # fmt: skip
ROUNDS, SLOW_ROUNDS = 14, 60
"""How often each kind of file is changed."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, an export of it, an evaluation, a search, and an interrupted step's draft."""
    place = tmp_path_factory.mktemp("made")
    model = "checkpoint=outputs/made/02-quantize"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for words in (
            ("run", "order=PQ", "hydra.run.dir=outputs/made"),
            ("run", "order=P", "hydra.run.dir=outputs/other"),
            ("export", model, "export.format=packed", "hydra.run.dir=outputs/exported"),
            ("evaluate", model, "hydra.run.dir=outputs/evaluated"),
            ("search", *SEARCH, "hydra.run.dir=outputs/found"),
        ):
            ended = call(words[0], *TINY, *words[1:])
            assert ended.code == 0, ended.err
    (searched,) = (place / "outputs" / "store").glob("search-*")
    draft = place / "draft"
    draft.mkdir()
    for name in (CANDIDATES, history.FILE):
        shutil.copyfile((searched if name == CANDIDATES else place / "outputs/made/02-quantize") / name, draft / name)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What was made, to be changed; the tests' own process stands in it."""
    shutil.copytree(made, tmp_path / "place", symlinks=True, copy_function=os.link)
    monkeypatch.chdir(tmp_path / "place")
    return Path()


Reader = Callable[[], Any]


def step(place: Path, phase: str) -> Path:
    (folder,) = (place / "outputs" / "store").glob(f"{phase}-*")
    return folder


def readers_of_step(place: Path, phase: str = "quantize") -> dict[str, Reader]:
    """How commands read a finished step: in the store to use it again or to clean, elsewhere as a checkpoint."""
    folder = step(place, phase)
    store = Store(folder.parent)
    return {
        "resume": lambda: store.record(folder.name),
        "checkpoint": lambda: given(folder),
        "clean": lambda: store.unreferenced([folder.name]),
    }


def readers_of_run(place: Path) -> dict[str, Reader]:
    folder, store = place / "outputs/made", Store(place / "outputs/store")
    note = RunNote(2, "made", "PQ", ())
    return {
        "clean": lambda: keys_of(folder),
        "list": lambda: results_of(folder),
        "resume": lambda: Run(folder, note, (), store) if not read_run(folder).steps else read_run(folder),
    }


def kinds(place: Path) -> dict[str, tuple[Path, dict[str, Reader]]]:
    """Each kind of file: where one is, and who reads it. The first of the readers must find every change."""
    folder, search = step(place, "quantize"), step(place, "search")
    of_step, of_search = readers_of_step(place), readers_of_step(place, "search")
    exported = place / "outputs/exported/packed"
    draft = place / "draft"
    return {
        "record": (folder / RECORD, of_step),
        "metrics": (folder / "metrics.json", of_step),
        "history": (folder / history.FILE, of_step),
        "config": (folder / "config.yaml", of_step),
        "arch": (folder / "arch.json", of_step),
        "run": (place / "outputs/made" / RUN, readers_of_run(place)),
        "export": (exported / EXPORT, {"predict": lambda: read_note(exported)}),
        "found": (search / FOUND, {**of_search, "search": lambda: read_found(search / FOUND)}),
        "candidates": (search / CANDIDATES, of_search),
        "draft's candidates": (draft / CANDIDATES, {"search": lambda: listed(draft / CANDIDATES)}),
        "draft's history": (draft / history.FILE, {"resume": lambda: history.read(draft)}),
    }


def listed(path: Path) -> list[Any]:
    return list(Candidates(path)._known.values())


NAMES = ("record", "metrics", "history", "config", "arch", "run", "export", "found", "candidates",
         "draft's candidates", "draft's history")  # fmt: skip


def outcome(reader: Reader) -> tuple[str, Any]:
    """Say what a reader came to: `refused` and its line, or `read` and what it read; all else is a defect."""
    try:
        return "read", reader()
    except CompressorError as error:
        return "refused", str(error)


def all_tried(kind: str, place: Path, seeds: Sequence[int]) -> None:
    """Change a file of a kind in as many ways as there are seeds."""
    before = {name: outcome(reader) for name, reader in kinds(place)[kind][1].items()}
    assert {state for state, _ in before.values()} == {"read"}
    for seed in seeds:
        tried(kind, place, seed, before)


def tried(kind: str, place: Path, seed: int, before: Mapping[str, tuple[str, Any]]) -> None:
    """Change a file of a kind in one way, and see that all who read it refuse it by name or read what it said."""
    path, readers = kinds(place)[kind]
    content = path.read_bytes()
    name = mutations.mutate(path, Random(f"{kind} {seed}"))
    try:
        for reader, (state, found) in {who: outcome(reader) for who, reader in readers.items()}.items():
            case = f"{name} in {kind}, seed {seed}, read by {reader}: {found}"
            if state == "refused":
                assert path.name in found or str(path.parent) in found, case
                assert found.isprintable(), case
                assert len(found) < 1000, case
            elif reader == "list" and found != before[reader][1]:
                assert (RUN, None) in found[1], case
            elif kind.startswith("draft's"):  # a line that was cut is dropped
                assert found == before[reader][1][: len(found)], case
                assert name != "number", case
            else:
                assert found == before[reader][1], case
                assert name != "number" or reader != next(iter(readers)), case
    finally:
        path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("kind", NAMES)
def test_a_changed_file_is_refused_by_name_in_one_line_or_says_what_it_said(kind, place):
    all_tried(kind, place, range(ROUNDS))


@pytest.mark.slow
@pytest.mark.parametrize("kind", NAMES)
def test_a_file_changed_in_many_more_ways_is_refused_too(kind, place):
    all_tried(kind, place, range(ROUNDS, ROUNDS + SLOW_ROUNDS))


@pytest.mark.parametrize("kind", ["record", "metrics", "run", "export", "found"])
def test_every_single_number_counts(kind, place):
    path, readers = kinds(place)[kind]
    first = next(iter(readers.values()))
    content = path.read_bytes()
    count = sum(type(inside[key]) in (int, float) for inside, key in mutations.places(json.loads(content)))
    assert count
    for place_of in range(count):
        changed = json.loads(content)
        numbers = [(inside, key) for inside, key in mutations.places(changed) if type(inside[key]) in (int, float)]
        inside, key = numbers[place_of]
        inside[key] += 1
        path.unlink()
        path.write_text(json.dumps(changed))
        assert outcome(first)[0] == "refused", f"{key} of {kind}"


@pytest.mark.parametrize("kind", NAMES)
def test_another_layout_of_json_changes_nothing_or_is_refused(kind, place):
    path, readers = kinds(place)[kind]
    if path.suffix != ".json":
        pytest.skip("is no JSON of one value")
    before = {name: outcome(reader) for name, reader in readers.items()}
    content = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps(dict(reversed(content.items())), indent=7))
    for name, reader in readers.items():
        state, found = outcome(reader)
        assert state == "refused" or found == before[name][1]


@pytest.mark.parametrize(
    "name", [RECORD, "metrics.json", "config.yaml", "arch.json", "weights.safetensors", history.FILE]
)
def test_a_file_of_another_step_is_refused_by_name(name, place):
    path, readers = step(place, "quantize") / name, readers_of_step(place)
    other = step(place, "prune") / name
    path.unlink()
    shutil.copyfile(other, path)
    state, found = outcome(readers["resume"])
    assert state == "refused"
    assert "\n" not in found


def test_a_note_of_another_run_is_refused_before_anything_is_deleted(place):
    shutil.copyfile("outputs/other/run.json", "outputs/copy.json")
    Path("outputs/made/run.json").unlink()
    Path("outputs/copy.json").rename("outputs/made/run.json")
    kept = sorted(Path("outputs/store").iterdir())
    ended = call("clean", "clean.delete=true")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "outputs/made/run.json: was changed" in ended.err
    assert sorted(Path("outputs/store").iterdir()) == kept


COMMANDS = {
    RECORD: ("evaluate", "export", "run"),
    "metrics.json": ("evaluate", "run"),
    "arch.json": ("evaluate", "predict"),
    EXPORT: ("predict",),
    RUN: ("list", "clean", "run"),
}


def words_of(command: str, path: Path) -> tuple[str, ...]:
    folder = path.parent
    return {
        "evaluate": ("evaluate", *TINY, f"checkpoint={folder}", "hydra.run.dir=again"),
        "export": ("export", *TINY, f"checkpoint={folder}", "export.format=packed", "hydra.run.dir=again"),
        "predict": ("predict", f"model={folder}", "input=none.png", "hydra.run.dir=again"),
        "run": ("run", *TINY, "order=PQ", "hydra.run.dir=outputs/made") if path.name == RUN
        else ("run", *TINY, "order=E", f"checkpoint={folder}", "hydra.run.dir=again"),
        "list": ("list",),
        "clean": ("clean", "clean.delete=true"),
    }[command]  # fmt: skip


@pytest.mark.parametrize(("name", "command"), [(name, command) for name, all_ in COMMANDS.items() for command in all_])
def test_a_command_names_a_file_whose_number_was_changed(name, command, place):
    path = {EXPORT: place / "outputs/exported/packed", RUN: place / "outputs/made"}.get(
        name, place / "outputs/made/02-quantize"
    ) / name
    content = json.loads(path.read_text())
    mutations.number(content, Random(name))
    path.unlink()
    path.write_text(json.dumps(content))
    kept = sorted(Path("outputs/store").iterdir())
    ended = call(*words_of(command, path))
    if command == "list":
        assert (ended.code, ended.err) == (0, "")
        assert any(line.split()[-2:] == [RUN, "damaged"] for line in ended.out.splitlines())
        return
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended.err
    assert path.name in ended.err
    assert sorted(Path("outputs/store").iterdir()) == kept


@pytest.mark.parametrize("key", ["../../x", "prune-0", "prune-0123456789abcdef\n", ".draft-prune-0123456789abcdef"])
def test_keys_of_another_form_are_refused_whoever_made_the_check(key, place):
    path = place / "outputs/made" / RUN
    tampering.edited(path, lambda note: note["steps"][0].update(key=key))
    ended = call("clean", "clean.delete=true")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "is not the form of a key" in ended.err


def test_what_nobody_reads_back_changes_nothing(place):
    before = call("list").out
    for name in ("outputs/evaluated/evaluate.json", "outputs/found/search.json", "outputs/found/candidates.jsonl"):
        path = Path(name)
        path.unlink()
        os.mkfifo(path)
    assert call("list").out == before
    ended = call("run", *TINY, "order=PQ", "hydra.run.dir=outputs/made")
    assert ended.code == 0, ended.err
