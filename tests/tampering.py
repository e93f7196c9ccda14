"""Edits of files that have a check, by one who makes it anew: what only the content itself can be refused for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compressor.checked import CHECK, checked


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let `change` edit what a JSON file says, in place, and make its check anew where it has one."""
    content = json.loads(path.read_text())
    had = content.pop(CHECK, None)
    change(content)
    written(path, checked(content) if had else content)


def written(path: Path, content: Any) -> None:
    """Write JSON in place of a file, which may be read-only or a link to another's."""
    path.unlink()
    path.write_text(json.dumps(content))
