"""What can go wrong in a way that the user can mend. The command prints one line and exits with the error's code."""


class CompressorError(Exception):
    """An error whose message says where, what, and what would have been right, in one line.

    Attributes:
        code: the command's exit code; 2, bad input, but for `UnfinishedError`.
    """

    code = 2


class ConfigError(CompressorError, ValueError):
    """A setting has a value that is unknown or impossible."""


class DataError(CompressorError):
    """A data set is missing, unreadable or not what was asked for."""


class FileError(CompressorError):
    """A file is no regular file, or larger than a file of its kind may be."""


class ModelError(CompressorError):
    """A model cannot be read, rebuilt or fitted to what is asked of it."""


class ShortageError(CompressorError):
    """There is too little memory for what was asked."""


class StoreError(CompressorError):
    """The store or a run directory cannot be read or written, or its files are not what their record says."""


class TrainingError(CompressorError):
    """A training cannot go on, such as when its loss is no longer finite."""


class UnfinishedError(CompressorError):
    """A command did what it could, and its result stands, but some of its work failed: exit code 1."""

    code = 1


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived; the running step has been saved.

    It is a KeyboardInterrupt as that is what others, such as Ray, let through from a signal's handler.

    Attributes:
        signal: the signal's number; the command exits with 128 + signal.
        said: what became of the work in one line, where that is not what the command says of every step.
    """

    def __init__(self, signal: int, said: str | None = None) -> None:
        super().__init__(signal)
        self.signal = signal
        self.said = said
