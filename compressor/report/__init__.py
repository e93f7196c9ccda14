"""Records as tables, and progress on the terminal. No torch here."""

import os
from pathlib import Path

from platformdirs import user_cache_dir

os.environ.setdefault("MPLCONFIGDIR", str(Path(user_cache_dir("compressor")) / "matplotlib"))  # it keeps fonts there
