"""What the jobs of a sweep are told, wherever a launcher runs them: the sweep's folder, and where it was typed.

Launchers compose the settings of each job again from the words that the sweep was begun with, in a process or on a
machine of their own. So it is put among those words, as variables of the job's environment.
"""

import os
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig

SWEEP, TYPED_IN = "COMPRESSOR_SWEEP", "COMPRESSOR_TYPED_IN"
"""The environment variables of a sweep's jobs: the sweep's folder, and the folder where the sweep was typed."""


def begin(config: DictConfig) -> None:
    """Tell the jobs that are about to be launched where the sweep is, and forget those of an earlier one there."""
    from compressor.report.sweep import clear

    folder = Path(str(config.hydra.sweep.dir)).absolute()
    clear(folder)
    for name, value in ((SWEEP, folder), (TYPED_IN, Path.cwd())):
        text = str(value).replace("${", "\\${")
        word = f"++hydra.job.env_set.{name}={QuotedString(text, Quote.double).with_quotes()}"
        config.hydra.overrides.hydra.append(word)


def go_where_typed(setting: HydraConf) -> None:
    """Work in the folder where the command was typed: `hydra.job.chdir` and launchers leave it, paths mean it."""
    typed_in = setting.runtime.cwd
    if setting.mode is RunMode.MULTIRUN:
        typed_in = os.environ.get(TYPED_IN, typed_in)
    if Path(typed_in).is_dir():
        os.chdir(typed_in)


def note(setting: HydraConf, code: int, error: str | None, seconds: float) -> None:
    """Note how this job of a sweep ended."""
    from compressor.report.sweep import Outcome, note_outcome

    folder = Path(setting.runtime.output_dir)
    sweep = Path(os.environ.get(SWEEP, folder))
    note_outcome(sweep, Outcome(setting.job.num, str(folder), tuple(setting.overrides.task), code, error, seconds))
