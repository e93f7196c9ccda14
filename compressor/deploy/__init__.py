"""What ships: exported files, the runtimes that run them, and how fast they are.

The runtimes report their use to their makers and keep files for it in the home; here they do not. This is run before
either is imported, in every process that does.
"""

import os
import sys
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime: ~/.cache/Microsoft
modules: Any = sys.modules
modules.setdefault("openvino_telemetry", None)  # OpenVINO: ~/intel; it goes without where this cannot be imported
