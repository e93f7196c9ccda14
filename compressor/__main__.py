"""`python -m compressor` is the command `compressor`, and imports nothing from the folder where it is typed."""

import os  # it is loaded when Python starts, so that nothing is looked for yet
import sys


def _forget_working_folder() -> None:
    """Take off what `-m` puts first on the path: a torch.py in the working folder would be taken for torch."""
    try:
        here = os.getcwd()  # noqa: PTH109 - pathlib would be looked for in the working folder
    except OSError:  # it is gone, and then Python has not put it there
        return
    if not sys.flags.safe_path and sys.path[0] in ("", here):
        del sys.path[0]


_forget_working_folder()

from compressor.cli import main  # noqa: E402 - nothing may be imported before

sys.exit(main())
