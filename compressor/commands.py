"""One short function a command: the readable main paths. Each gets the settings and the run directory."""

import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

from compressor import process
from compressor.codec import encode
from compressor.config import RunConfig, RuntimeConfig
from compressor.data import load_data
from compressor.data.summary import summary
from compressor.data.types import Data
from compressor.errors import ConfigError, ModelError
from compressor.folders import CANDIDATES, MIXTURE, RUNS, STORE, disk, form_of, read_metrics, write_json
from compressor.pipeline import Bench, Step, run, with_bytes
from compressor.planning import fitting, plan
from compressor.records import Measurement
from compressor.report import tables
from compressor.report.progress import progress_of
from compressor.report.study_progress import followed
from compressor.report.text import bytes_of, compact, console
from compressor.runs import SCHEMA, Run, RunNote, find_runs, keys_of, results_of
from compressor.store import Store
from compressor.studies import mixtures

BENCHMARK = "bench.json"
EVALUATION, STUDY = "evaluate.json", "study.json"
MIXTURES, SEARCH = "moe.json", "search.json"


def run_order(config: RunConfig, folder: Path) -> None:
    """Run an order, phase by phase, and show what each cost and scored."""
    data = load_data(config.dataset, config.runtime)
    planned, store = plan(config, data), Store(Path(config.store))
    note = RunNote(SCHEMA, config.name, config.order.upper(), (), data.skipped)
    made = Run(folder, note, planned.steps, store)
    _begin(made, data)
    bench = Bench(store, data, config.runtime, planned.files, progress_of(config.runtime.progress))
    run(planned.last, bench, made.add)
    shown = console()
    shown.print(tables.chain_table(f"{config.name} {config.order.upper()}".rstrip(), made.rows))
    shown.print(f"run: {_short(folder)}", soft_wrap=True)


def _begin(made: Run, data: Data) -> None:
    """Write the note of a run, and say what it reads."""
    made.begin()
    made.store.begin()
    _say(data)


def _say(data: Data) -> None:
    """Say in a line what the images are and what was left out; before the work, which may take hours."""
    console().print(summary(data), soft_wrap=True, markup=False)


def order(config: RunConfig, folder: Path) -> None:
    """Measure each pair of techniques both ways, decide with statistics, sort, and show what was found."""
    assert config.study is not None, "configs/order.yaml has it"
    from compressor.report import study as report
    from compressor.studies import orders
    from compressor.studies.execution import Workplace, execute
    from compressor.studies.outlook import outlook
    from compressor.studies.study import conclude

    data, store = load_data(config.dataset, config.runtime), Store(Path(config.store))
    planned = orders.plan(config, config.study, orders.trials(config.study), data)
    if config.study.plan:
        _say(data)
        console().print(report.outlook_table(outlook(planned.steps, store)))
        return
    keys = tuple(step.key for step in planned.steps)
    _begin(Run(folder, RunNote(SCHEMA, config.name, config.study.letters, (), data.skipped, keys), (), store), data)
    place = Workplace(store.root, config.dataset, config.runtime, planned.files)
    with followed(config.runtime.progress) as watch:
        outcomes = execute(planned.steps, place, config.study.execution, watch)
    found = conclude(config.name, config.study, planned, outcomes, store, data)
    with disk(folder, RUNS):
        write_json(folder / STUDY, found)
    report.show(found, folder, figures=config.study.figures)
    console().print(f"study: {_short(folder / STUDY)}", soft_wrap=True)
    report.complete(found)


def moe(config: RunConfig, folder: Path) -> None:
    """Make mixtures of compressed networks, one a seed, and show each beside its rivals."""
    assert config.moe is not None, "configs/moe.yaml has it"
    data, store = load_data(config.dataset, config.runtime), Store(Path(config.store))
    planned = mixtures.plan(config, config.moe, data)
    made = Run(folder, RunNote(SCHEMA, config.name, "MoE", (), data.skipped, planned.keys), planned.ends, store)
    _begin(made, data)
    from compressor.report.moe_tables import show as show_mixtures
    from compressor.studies.moe import study

    bench = Bench(store, data, config.runtime, planned.files, progress_of(config.runtime.progress))
    found = study(config, config.moe, planned, bench, made.add)
    made.refer(found.keys)
    with disk(folder, RUNS):
        write_json(folder / MIXTURES, found)
    show_mixtures(found, folder, figures=config.moe.figures)
    console().print(f"mixtures: {_short(folder / MIXTURES)}", soft_wrap=True)


def search(config: RunConfig, folder: Path) -> None:
    """Search sparsity and bits together under a budget, train what each agent found, and show them side by side."""
    assert config.search is not None, "configs/search.yaml has it"
    from compressor.report import search_tables
    from compressor.studies import joint
    from compressor.studies.joint_study import feasible, study, write_candidates

    data, store = load_data(config.dataset, config.runtime), Store(Path(config.store))
    planned = joint.plan(config, config.search, data, feasible(config, config.search))
    made = Run(folder, RunNote(SCHEMA, config.name, "search", (), data.skipped), (), store)
    _begin(made, data)
    with followed(config.runtime.progress) as watch:
        found, ends = study(config, config.search, planned, data, watch, made.refer)
    _link(ends, made)
    with disk(folder, RUNS):
        write_json(folder / SEARCH, found)
    write_candidates(planned, store, folder / CANDIDATES)
    search_tables.show(found, folder, figures=config.search.figures)
    console().print(f"search: {_short(folder / SEARCH)}", soft_wrap=True)
    search_tables.complete(found)


def _link(ends: Mapping[Step, bool], made: Run) -> None:
    """Give a run a folder of each finished step; the values say which results were there already."""
    run = Run(made.folder, made.note, tuple(ends), made.store)
    for step, stored in ends.items():
        record = made.store.record(step.key)
        assert record is not None, "it is finished"
        run.add(step, record, read_metrics(made.store.folder(step.key)), stored)


def evaluate(config: RunConfig, folder: Path) -> None:
    """Measure a saved model on the configured images, and show its quality, its exits and its cost."""
    assert config.checkpoint is not None, "configs/evaluate.yaml makes it mandatory"
    data = load_data(config.dataset, config.runtime)
    source = fitting(Path(config.checkpoint), "checkpoint", data, mixtures=True)
    _say(data)
    measured, table = _measured(source.folder, data, config.runtime)
    measured, layers = with_bytes(measured, source.folder), encode(table) if config.cost_table else []
    result = {"schema": 1, "key": source.key, "checkpoint": str(source.folder), "data": data.fingerprint}
    result |= {"skipped": data.skipped, "measured": measured, "layers": layers}
    try:
        with disk(folder, RUNS):
            write_json(folder / EVALUATION, result)
    except ValueError:
        raise ModelError(f"{source.folder}: a measured number is not finite; give a model that answers") from None
    _show_evaluation(measured, layers)
    console().print(f"evaluation: {_short(folder / EVALUATION)}", soft_wrap=True)


def _measured(folder: Path, data: Data, runtime: RuntimeConfig) -> tuple[Measurement, Sequence[Any]]:
    """Measure the model or the mixture in a folder, and count its layers."""
    if form_of(folder) == MIXTURE:
        from compressor import mixture

        mixed = mixture.load_mixture(folder)
        return mixture.measure(mixed, data, runtime), mixture.cost_table(mixed)
    from compressor.cost import cost_table
    from compressor.measure import measure
    from compressor.model import load

    model = load(folder)
    return measure(model, data, runtime), cost_table(model)


def _show_evaluation(measured: Measurement, layers: list[dict[str, float | str]]) -> None:
    shown = console()
    shown.print(tables.scores_table(measured))
    if len(measured.test.heads) > 1:
        shown.print(tables.heads_table(measured))
    shown.print(tables.cost_table(measured))
    if layers:
        shown.print(tables.layers_table(layers))


def bench(config: RunConfig, folder: Path) -> None:
    """Time a saved model against its original on the test images, and show how many times faster it is."""
    data = load_data(config.dataset, config.runtime)
    from compressor.deploy.bench import benchmark
    from compressor.report.bench import show

    result = benchmark(config, data, folder, progress_of(config.runtime.progress))
    with disk(folder, RUNS):
        write_json(folder / BENCHMARK, result)
    show(result, folder)
    _say(data)
    console().print(f"benchmark: {_short(folder / BENCHMARK)}", soft_wrap=True)


def export(config: RunConfig, folder: Path) -> None:
    """Write a saved model or mixture as files for other runtimes, and show how well they agree with PyTorch."""
    assert config.export is not None, "configs/export.yaml has it"
    assert config.checkpoint is not None, "the command needs it"
    data = load_data(config.dataset, config.runtime)
    source = fitting(Path(config.checkpoint), "checkpoint", data, mixtures=True)
    _say(data)
    from compressor.deploy import export as exporting
    from compressor.report.export import parity_table, size_line

    target, progress = folder / config.export.format, progress_of(config.runtime.progress)
    note = exporting.export(source, config.export, target, data.test, config.runtime, progress)
    console().print(parity_table(note.parity))
    console().print(size_line(note))
    console().print(f"export: {_short(target)}", soft_wrap=True)


def predict(config: RunConfig, folder: Path) -> None:
    """Answer image files with an exported model or a checkpoint."""
    assert config.predict is not None, "configs/predict.yaml has it"
    if config.model is None or config.input is None:
        raise ConfigError("predict needs model=FOLDER, an export's or a phase's, and input=FILE, FOLDER or PATTERN")
    if config.predict.output is None and process.was_closed("stdout"):
        raise ConfigError("stdout is closed, and answers would be lost; give predict.output=FILE")
    from compressor.deploy import predict as predicting

    rows_show = config.predict.output is None and sys.stdout.isatty()  # a bar among the rows of a table garbles both
    progress = progress_of(config.runtime.progress and not rows_show)
    predicting.predict(config.model, config.input, config.predict, config.runtime.threads, progress)


def list_runs(config: RunConfig, folder: Path) -> None:
    """Show the runs below `runs` and their phases, from their records."""
    paths = find_runs(Path(config.runs), besides=Path(config.store))
    shown = console()
    if not paths:
        shown.print(f"no runs in {config.runs}", soft_wrap=True)
        return
    shown.print(tables.runs_table((str(_short(path)), *results_of(path)) for path in paths))


def clean(config: RunConfig, folder: Path) -> None:
    """List the stored steps and drafts that no run refers to; delete them only when told to."""
    store = Store(Path(config.store))
    with store.referring() if config.clean.delete else nullcontext():
        _clean(config, store)


def _clean(config: RunConfig, store: Store) -> None:
    shown = console()
    used = [key for path in find_runs(Path(config.runs), besides=store.root) for key in keys_of(path)]
    paths = store.unreferenced(used)
    with disk(store.root, STORE):
        sizes = {path: bytes_of(path) for path in paths}
    if paths:
        shown.print(tables.folders_table(sizes))
    total = f"{len(paths)} folders, {compact(sum(sizes.values()), 'B')}"
    if not config.clean.delete:
        shown.print(f"{total}, that no run in {config.runs} refers to; clean.delete=true deletes them", soft_wrap=True)
        return
    store.remove(paths)
    shown.print(f"deleted {total}", soft_wrap=True)


def version(config: RunConfig, folder: Path) -> None:
    """Print the versions of what results depend on, without importing torch."""
    for name in ("compressor", "torch"):
        console().print(f"{name} {_version(name)}")
    console().print(f"python {platform.python_version()}")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _short(path: Path) -> Path:
    """Give a path as it can be typed here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
