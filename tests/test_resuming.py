"""A training that was stopped goes on to the bit, and a damaged state is named and not used."""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import samples
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from compressor import checkpointing, history
from compressor.arch import Arch, BlockKind
from compressor.config import FitConfig, Optimizer, Precision, Schedule
from compressor.errors import Interrupted, StoreError
from compressor.model import Model, same
from compressor.training import Context, fit

FIT = replace(samples.FIT, epochs=3, batch=32)
"""Three epochs of three batches."""
STEPS = 9
PLAIN = samples.arch(BlockKind.PLAIN)
"""It has dropout."""
KINDS: dict[str, tuple[Arch, FitConfig, str | None]] = {
    "sgd": (samples.arch(), FIT, None),
    "adamw": (samples.arch(), replace(FIT, optimizer=Optimizer.ADAMW, lr=0.002), None),
    "averaged": (samples.arch(), replace(FIT, ema=0.9), None),
    "dropout": (PLAIN, replace(FIT, schedule=Schedule.ONECYCLE), None),
    "heads only": (samples.compressed(), replace(FIT, ema=0.5), "exits"),
    "channels last": (samples.arch(), replace(FIT, channels_last=True, optimizer=Optimizer.ADAMW, lr=0.002), None),
    "quantized": (samples.compressed(), FIT, None),
    "bf16": (samples.arch(), replace(FIT, precision=Precision.BF16), None),
}


def stopping_at(step: int, act: Callable[[], None]):
    """Show no progress, and act once after so many steps of this run."""

    @contextmanager
    def progress(title: str, total: int) -> Iterator[Callable[[int, str], None]]:
        assert total == STEPS
        done = -1  # the first call tells where the training starts

        def advance(units: int, remark: str) -> None:
            nonlocal done
            done += 1
            if done == step:
                act()

        yield advance

    return progress


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class KilledError(Exception):
    """Stands for a kill that leaves no time to save."""


def die() -> None:
    raise KilledError


def start(kind: str) -> Model:
    return samples.model(KINDS[kind][0])


def trained(kind: str, context: Context, model: Model | None = None) -> Model:
    _, config, only = KINDS[kind]
    return fit(model or start(kind), config, context, only=only)


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory) -> Callable[[str], tuple[Model, list[dict[str, Any]]]]:
    """Give the result and history of an uninterrupted training of each kind."""
    made: dict[str, tuple[Model, list[dict[str, Any]]]] = {}

    def give(kind: str) -> tuple[Model, list[dict[str, Any]]]:
        if kind not in made:
            context = Context(digits, tmp_path_factory.mktemp("whole"), samples.RUNTIME)
            made[kind] = trained(kind, context), timeless(context.scratch)
        return made[kind]

    return give


def timeless(scratch: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in history.read(scratch)]


class TestResuming:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("step", [1, 3, 5, 8])
    def test_an_interrupted_training_ends_in_the_same_bits(self, kind, step, whole, context, signals):
        with pytest.raises(Interrupted) as caught:
            trained(kind, replace(context, progress=stopping_at(step, terminate)))
        assert caught.value.signal == signal.SIGTERM
        assert (context.scratch / "fit.safetensors").is_file()
        signals()
        model, lines = whole(kind)
        assert same(trained(kind, context), model)
        assert timeless(context.scratch) == lines
        assert [line["epoch"] for line in lines] == [1, 2, 3]

    def test_it_may_be_stopped_after_every_single_batch(self, whole, context, signals):
        stops = 0
        for _ in range(STEPS + 1):
            try:
                model = trained("sgd", replace(context, progress=stopping_at(1, terminate)))
                break
            except Interrupted:
                stops += 1
                signals()
        else:
            pytest.fail("it never ended")
        assert stops == STEPS
        assert same(model, whole("sgd")[0])

    @pytest.mark.parametrize("step", [2, 4, 7, 9])
    def test_a_killed_training_goes_on_from_its_last_save(self, step, whole, context):
        often = replace(context, runtime=replace(context.runtime, save_seconds=1e-9))
        with pytest.raises(KilledError):
            trained("averaged", replace(often, progress=stopping_at(step, die)))
        assert same(trained("averaged", context), whole("averaged")[0])
        assert timeless(context.scratch) == whole("averaged")[1]

    def test_a_finished_training_is_not_done_again(self, whole, context):
        trained("sgd", context)
        assert same(trained("sgd", replace(context, progress=stopping_at(1, die))), whole("sgd")[0])

    def test_augmented_batches_are_the_same_after_a_resume(self, context, signals):
        augment = replace(context.data.augment, crop=2, flip=True, cutout=3)
        context = replace(context, data=replace(context.data, augment=augment))
        with pytest.raises(Interrupted):
            trained("sgd", replace(context, progress=stopping_at(4, terminate)))
        signals()
        resumed = trained("sgd", context)
        (context.scratch / "fit.safetensors").unlink()
        assert same(resumed, trained("sgd", context))

    def test_the_callers_random_state_and_threads_stay(self, context):
        before, count = torch.get_rng_state(), torch.get_num_threads()
        trained("dropout", context)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == count


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5000] ^= 16
    path.write_bytes(content)


def resave(path: Path, tensors: dict[str, Tensor], place: str | None) -> None:
    save_file(tensors, path, metadata=None if place is None else {"place": place})


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut": cut,
    "bit-flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "no metadata": lambda path: resave(path, load_file(path), None),
    "a foreign place": lambda path: resave(path, load_file(path), "[1, 2]"),
    "an impossible place": lambda path: resave(path, load_file(path), '{"epoch": 99, "batch": -1}'),
    "no network": lambda path: resave(path, {"x": torch.zeros(1)}, '{"epoch": 1}'),
    "another optimizer": lambda path: resave(
        path, load_file(path) | {"optimizer.9999.exp_avg": torch.zeros(1)}, '{"epoch": 1}'
    ),
}


class TestDamagedState:
    @pytest.mark.parametrize("damage", DAMAGE)
    def test_it_is_named_and_training_starts_afresh(self, damage, whole, context, signals, caplog):
        with pytest.raises(Interrupted):
            trained("sgd", replace(context, progress=stopping_at(5, terminate)))
        signals()
        DAMAGE[damage](context.scratch / "fit.safetensors")
        model = trained("sgd", context)
        (said,) = caplog.messages
        assert re.search(r"fit\.safetensors: cannot be resumed .*; the step starts afresh", said)
        assert "\n" not in said
        assert same(model, whole("sgd")[0])
        assert timeless(context.scratch) == whole("sgd")[1]

    def test_the_state_of_another_network_is_not_used(self, context, caplog):
        trained("sgd", context)
        trained("dropout", context)
        assert "cannot be resumed" in caplog.text
        assert len(history.read(context.scratch)) == 3


def test_a_save_that_fails_leaves_the_one_before(context, monkeypatch):
    trained("sgd", context)
    before = (context.scratch / "fit.safetensors").read_bytes()

    def full(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpointing, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        fit(start("sgd"), replace(FIT, epochs=4), context)
    assert (context.scratch / "fit.safetensors").read_bytes() == before


class TestHistory:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for epoch in (1, 2, 3):
            history.append(tmp_path, {"epoch": epoch, "loss": 0.1 * epoch})
        return tmp_path

    def test_one_that_needs_no_cut_is_not_written(self, folder, monkeypatch):
        before = history.read(folder)
        monkeypatch.setattr(Path, "write_text", die)
        history.truncate(folder, 3)
        assert history.read(folder) == before

    def test_a_cut_that_fails_leaves_the_one_before_and_a_cut_that_works_leaves_no_draft(self, folder, monkeypatch):
        before = (folder / history.FILE).read_bytes()

        def full(path: Path, text: str, encoding: str) -> None:
            path.write_bytes(text.encode(encoding)[:5])
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_text", full)
            with pytest.raises(OSError, match="No space left"):
                history.truncate(folder, 1)
        assert (folder / history.FILE).read_bytes() == before
        history.truncate(folder, 1)
        assert [line["epoch"] for line in history.read(folder)] == [1]
        assert [path.name for path in folder.iterdir()] == [history.FILE]

    def test_a_line_cut_by_a_kill_goes(self, folder):
        with (folder / history.FILE).open("a") as file:
            file.write('{"epoch": 4, "lo')
        history.truncate(folder, 3)
        history.append(folder, {"epoch": 4})
        assert [line["epoch"] for line in history.read(folder)] == [1, 2, 3, 4]

    @pytest.mark.parametrize("harm", ["a line is gone", "lines changed places", "a number was changed"])
    def test_one_that_was_changed_is_named_and_says_what_to_remove(self, folder, harm):
        path = folder / history.FILE
        lines = path.read_text().splitlines(keepends=True)
        changed = {"a line is gone": lines[1:], "lines changed places": lines[::-1]}
        path.write_text("".join(changed.get(harm, [lines[0].replace("0.1", "0.7"), *lines[1:]])))
        with pytest.raises(StoreError, match=rf"history\.jsonl.*; remove {folder} and the step starts afresh"):
            history.truncate(folder, 3)
