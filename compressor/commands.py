"""One short function a command: the readable main paths. Each gets the settings and the run directory."""

import platform
from importlib import metadata
from pathlib import Path

from compressor.codec import encode
from compressor.config import RunConfig
from compressor.data import load_data
from compressor.data.types import Data
from compressor.errors import ModelError
from compressor.folders import disk, write_json
from compressor.pipeline import Bench, run, with_bytes
from compressor.planning import fitting, plan
from compressor.records import Measurement
from compressor.report import tables
from compressor.report.progress import progress_of
from compressor.report.text import bytes_of, compact, console
from compressor.runs import SCHEMA, Run, RunNote, find_runs, keys_of, results_of
from compressor.store import Store

EVALUATION = "evaluate.json"


def run_order(config: RunConfig, folder: Path) -> None:
    """Run an order, phase by phase, and show what each cost and scored."""
    data = load_data(config.dataset, config.runtime)
    planned, store = plan(config, data), Store(Path(config.store))
    note = RunNote(SCHEMA, config.name, config.order.upper(), (), data.skipped)
    made = Run(folder, note, planned.steps, store)
    made.begin()
    bench = Bench(store, data, config.runtime, planned.files, progress_of(config.runtime.progress))
    run(planned.last, bench, made.add)
    shown = console()
    shown.print(tables.chain_table(f"{config.name} {config.order.upper()}".rstrip(), made.rows))
    _say_skipped(data)
    shown.print(f"run: {_short(folder)}", soft_wrap=True)


def _say_skipped(data: Data) -> None:
    if data.skipped:
        console().print(f"{data.name}: {data.skipped} image files cannot be read and were left out", soft_wrap=True)


def evaluate(config: RunConfig, folder: Path) -> None:
    """Measure a saved model on the configured images, and show its quality, its exits and its cost."""
    assert config.checkpoint is not None, "configs/evaluate.yaml makes it mandatory"
    data = load_data(config.dataset, config.runtime)
    source = fitting(Path(config.checkpoint), "checkpoint", data)
    from compressor.cost import cost_table
    from compressor.measure import measure
    from compressor.model import load

    model = load(source.folder)
    measured = with_bytes(measure(model, data, config.runtime), source.folder)
    layers = encode(cost_table(model)) if config.cost_table else []
    result = {"schema": 1, "key": source.key, "checkpoint": str(source.folder), "data": data.fingerprint}
    result |= {"skipped": data.skipped, "measured": measured, "layers": layers}
    try:
        with disk(folder):
            write_json(folder / EVALUATION, result)
    except ValueError:
        raise ModelError(f"{source.folder}: a measured number is not finite; give a model that answers") from None
    _show_evaluation(measured, layers)
    _say_skipped(data)
    console().print(f"evaluation: {_short(folder / EVALUATION)}", soft_wrap=True)


def _show_evaluation(measured: Measurement, layers: list[dict[str, float | str]]) -> None:
    shown = console()
    shown.print(tables.scores_table(measured))
    if len(measured.test.heads) > 1:
        shown.print(tables.heads_table(measured))
    shown.print(tables.cost_table(measured))
    if layers:
        shown.print(tables.layers_table(layers))


def list_runs(config: RunConfig, folder: Path) -> None:
    """Show the runs below `runs` and their phases, from their records."""
    paths = find_runs(Path(config.runs), besides=Path(config.store))
    found = [(str(_short(path)), *results_of(path)) for path in paths]
    shown = console()
    shown.print(tables.runs_table(found) if found else f"no runs in {config.runs}", soft_wrap=not found)


def clean(config: RunConfig, folder: Path) -> None:
    """List the stored steps and drafts that no run refers to; delete them only when told to."""
    store, shown = Store(Path(config.store)), console()
    used = [key for path in find_runs(Path(config.runs), besides=store.root) for key in keys_of(path)]
    paths = store.unreferenced(used)
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
