"""`compressor COMMAND [key=value ...]`: find the command, say what it is, run it, and turn errors into one line.

Only this module reads sys.argv; only `composing` sees Hydra, and it is not imported to show a plain help.
What takes time to import is imported inside functions: until `main` is called, a signal would end in a traceback.
"""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from compressor import interrupts, process
from compressor.errors import CompressorError, ConfigError, Interrupted, StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

    from compressor.config import RunConfig


class Command:
    """One command: what it does, the function of `commands` that does it, its order where that is fixed.

    `checkpoint`: whether it needs a saved model.
    """

    def __init__(
        self, summary: str, function: str = "run_order", *, order: str | None = None, checkpoint: bool = False
    ) -> None:
        self.summary = summary
        self.function = function
        self.order = order
        self.checkpoint = checkpoint

    @property
    def call(self) -> "Callable[[RunConfig, Path], None]":
        """Import the function: of the settings and the run directory."""
        return getattr(import_module("compressor.commands"), self.function)


COMMANDS = {
    "run": Command("run an order of phases, such as order=DPQE"),
    "order": Command("measure which order of techniques is best", "order"),
    "moe": Command("make compressed networks the experts of a mixture, each image answered by few", "moe"),
    "search": Command("search sparsity and bits together under a budget, beside rivals", "search"),
    "baseline": Command("train the uncompressed network, or start from published weights", order=""),
    "distill": Command("teach a smaller student", order="D", checkpoint=True),
    "prune": Command("remove channels of a saved model, then recover", order="P", checkpoint=True),
    "quantize": Command("round a saved model to few bits", order="Q", checkpoint=True),
    "exit": Command("add early heads to a saved model", order="E", checkpoint=True),
    "evaluate": Command("measure a saved model; cost_table=true adds a row a layer", "evaluate", checkpoint=True),
    "bench": Command("time a saved model against its original, on several engines", "bench", checkpoint=True),
    "export": Command("write a saved model as files for other runtimes, checked against it", "export", checkpoint=True),
    "predict": Command("answer image files with an exported or saved model", "predict"),
    "list": Command("show runs and their phases", "list_runs"),
    "clean": Command("list stored steps that no run refers to; clean.delete=true deletes them", "clean"),
    "version": Command("print the versions of compressor, Python and torch", "version"),
}


def usage() -> str:
    """Describe all commands in plain text."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return f"""usage: compressor COMMAND [key=value ...] [options]

Make convolutional networks small and fast by chaining techniques in any order.

{rows}

compressor COMMAND --help lists a command's settings and options.

  compressor run +experiment=digits_dpqe
  compressor run -m +experiment=digits_dpqe prune.ratio=0.3,0.5,0.7
  compressor quantize checkpoint=outputs/<run>/02-prune quantize.bits.weight=4
  eval "$(compressor -sc install=bash)"    # completion by the tab key; zsh and fish too
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first word names, and give the exit code.

    It is 0, 1 (some of the work failed), 2 (bad input) or 128 + the number of a signal.
    """
    if argv is not None:
        return _ended(list(argv))
    process.settle()
    interrupts.own()
    try:
        code = _ended(sys.argv[1:])
    except KeyboardInterrupt:  # one more, while the first was answered
        code = 128 + (interrupts.arrived() or 2)
    interrupts.leave()
    return code


def _ended(words: list[str]) -> int:
    """Run a command and turn whatever ends it into its exit code; what is no user's fault is raised."""
    try:
        return _written(_dispatch(words))
    except Interrupted as interrupt:
        return _interrupted(interrupt.signal, interrupt.said)
    except KeyboardInterrupt:
        return _interrupted(interrupts.arrived() or 2)
    except BrokenPipeError:
        return silence()
    except Exception as error:
        if (number := interrupts.arrived()) is not None:  # Hydra and others turn a signal into an error of their own
            return _interrupted(number)
        if isinstance(error, CompressorError):
            return complain(error)
        from compressor.memory import is_shortage, shortage

        if is_shortage(error):
            return complain(shortage(error))
        if isinstance(error, OSError) and (refusal := process.refusal(error)) is not None:
            return complain(unwritable(refusal))
        raise


def _written(code: int) -> int:
    """Return the exit code when all that was printed is written."""
    if (refusal := process.refusal()) is not None:
        raise unwritable(refusal)
    return code


def unwritable(refusal: str) -> StoreError:
    """Return the error of a stdout that takes no more."""
    return StoreError(f"stdout: {refusal}; what could not be printed is lost, and finished work is kept")


def silence() -> int:
    """Write no more, as the reader of our output, such as `head`, has seen enough; that is no error."""
    process.silence(sys.stdout)
    return 0


def _dispatch(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("--help", "-h", "help"):
        sys.stdout.write(usage())
        return 0
    if name in ("-sc", "--shell-completion"):
        return import_module("compressor.completion").complete(words[1:])
    if name == "--version":
        name, words = "version", ["version"]
    if name not in COMMANDS:
        raise ConfigError(_no_command(name))
    return import_module("compressor.composing").compose(name, words[1:])


def _no_command(name: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"no command {name!r}; {hint}commands are {', '.join(COMMANDS)}"


def complain(error: CompressorError) -> int:
    """Print an error as one line to stderr, and give its exit code."""
    say(str(error))
    return error.code


def say(message: str) -> None:
    """Print one line to stderr."""
    from compressor.lines import line

    process.tell(f"compressor: {line(message)}")


SAVED = "interrupted; what is done is saved, and the same command goes on from there"


def _interrupted(signal: int, said: str | None = None) -> int:
    say(said or SAVED)
    return 128 + signal
