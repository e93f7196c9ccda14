"""`python -m compressor` is the command `compressor`."""

import sys

from compressor.cli import main

sys.exit(main())
