"""A folder of many runs of distinct steps, copied from one run without training."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from compressor.checked import checked
from compressor.codec import digest_file, encode
from compressor.folders import METRICS, RECORD, key_of, read_metrics, read_record
from compressor.records import InputRecord, Original, Record
from compressor.runs import RUN, read_run


def multiply(run: Path, runs: Path, store: Path, count: int) -> None:
    """Make `count` runs below `runs` like the given one, each of steps of its own, in `store` and hard-linked."""
    note, folders = read_run(run), [run / step.folder for step in read_run(run).steps]
    for number in range(count):
        copy, steps = runs / f"{number:05}", []
        for step, folder, record in zip(note.steps, folders, _renamed(folders, number), strict=True):
            _write(folder, store / record.key, record)
            shutil.copytree(store / record.key, copy / step.folder, copy_function=os.link)
            steps.append(replace(step, key=record.key))
        (copy / RUN).write_text(json.dumps(checked(replace(note, steps=tuple(steps)))))


def _renamed(folders: list[Path], number: int) -> Iterator[Record]:
    """Give the records of a chain's steps as if they had been made with another seed, and so with other keys."""
    keys: dict[str, str] = {}
    for folder in folders:
        record = read_record(folder)
        config = {**record.config, "number": number}
        inputs = {role: InputRecord(keys[read.key], read.model) for role, read in record.inputs.items()}
        names = {role: read.key for role, read in inputs.items()}
        keys[record.key] = key_of(record.phase, record.version, config, names, record.data)
        key, original = keys[record.key], replace(record.original, key=keys[record.original.key])
        yield replace(record, key=key, config=config, inputs=inputs, original=original)


def _write(source: Path, folder: Path, record: Record) -> None:
    """Write a step's folder: its record and metrics anew, and links to all else."""
    shutil.copytree(source, folder, copy_function=os.link)
    (folder / METRICS).unlink()
    (folder / RECORD).unlink()
    original: Original = record.original
    metrics = replace(read_metrics(source), key=record.key, original=original)
    (folder / METRICS).write_text(json.dumps(encode(metrics), indent=1) + "\n")
    record = replace(record, files={**record.files, METRICS: digest_file(folder / METRICS)})
    (folder / RECORD).write_text(json.dumps(checked(record), indent=1) + "\n")
