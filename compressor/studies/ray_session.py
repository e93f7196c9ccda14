"""A Ray that this process starts: on loopback, with a token and a folder of its own, and gone when the process is."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

from compressor.studies import ray_watch

OBJECT_STORE = 80 * 2**20
"""Bytes of shared memory for Ray's objects: near its least, as only small notes travel."""

LONGEST = 107 - len("/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store")
"""Bytes that the name of Ray's folder may have: those of a Unix socket in it are limited."""

LINE, KIND = 250, 20
"""Letters that are shown of what Ray says, and those that tell one kind of message from another."""


@dataclass
class Session:
    """A Ray of this process: its folder, the process that watches over it, and what the environment was before."""

    folder: Path | None
    watch: "subprocess.Popen[bytes]"
    before: dict[str, str | None]

    @property
    def settings(self) -> dict[str, Any]:
        """The settings for `ray.init`."""
        here = {"include_dashboard": False, "object_store_memory": OBJECT_STORE, "_node_ip_address": "127.0.0.1"}
        return here | ({"_temp_dir": str(self.folder)} if self.folder else {})

    def end(self) -> None:
        """Forget a Ray that was shut down: what it left is ended and removed, and the environment is as before."""
        self.watch.communicate()
        _set(self.before)
        _reread()


def begin(cache: str | None) -> Session:
    """Prepare this process for a Ray of its own, before `ray.init`; `cache` is where its files may go.

    `RAY_TMPDIR` and `RAY_AUTH_MODE` of the environment are followed.
    """
    folder = None if os.environ.get("RAY_TMPDIR") else _folder(cache)
    mark = secrets.token_hex(8)
    command = [sys.executable, "-I", "-S", ray_watch.__file__, mark, str(folder or "")]
    watch = subprocess.Popen(  # noqa: S603 - our own file, by this interpreter
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    wanted: dict[str, str | None] = {ray_watch.MARK: mark}
    if "RAY_AUTH_MODE" not in os.environ:
        wanted |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {name: os.environ.get(name) for name in wanted}
    _set(wanted)
    _reread(alone=True)
    return Session(folder, watch, before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _reread(*, alone: bool = False) -> None:
    """Have Ray, which reads its environment once, read it again; `alone`: as where it may not form clusters.

    There it binds the address 127.0.0.1, which it takes for the machine's own elsewhere.
    """
    constants: Any = import_module("ray._private.ray_constants")
    compiled: Any = import_module("ray._raylet")
    constants.ENABLE_RAY_CLUSTER = not alone and not constants.IS_WINDOWS_OR_OSX
    compiled.Config.initialize("")
    compiled.AuthenticationTokenLoader.instance().reset_cache()


def _folder(cache: str | None) -> Path | None:
    """Make a folder for Ray's sockets and logs: in the cache, or in the system's where its name is too long."""
    own = Path(cache).absolute() if cache else Path(user_cache_dir("compressor"))
    for base in (own, Path(tempfile.gettempdir()).absolute()):
        if not base.is_absolute():  # a user without a home
            continue
        folder = base / f"ray-{secrets.token_hex(3)}"
        if len(os.fsencode(folder)) > LONGEST:
            continue
        try:
            folder.mkdir(parents=True, mode=0o700)
        except OSError:
            continue
        if _takes_sockets(folder):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _takes_sockets(folder: Path) -> bool:
    """Tell whether sockets can be made in a folder: not every file system has them."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
        try:
            tried.bind(str(folder / "try"))
        except OSError:
            return False
    (folder / "try").unlink()
    return True


def quiet(*, brief: bool, alone: bool) -> None:
    """Have Ray say of a lost node one line a kind, on stderr, or nothing; it would print the ends of its logs.

    Where what is said is all that is heard of it (`brief`) and the node was the only one (`alone`), this process gets
    SIGTERM: a sweep's launcher would wait for ever for another node.
    """
    worker: Any = import_module("ray._private.worker")
    shown = getattr(worker.print_to_stdstream, "shown", worker.print_to_stdstream)
    said: set[str] = set()

    def say(data: dict[str, Any], *rest: Any, **named: Any) -> None:
        if data.get("pid") != "raylet":
            shown(data, *rest, **named)
            return
        line = " ".join(data["lines"][:1]).partition("\n")[0][:LINE]
        if not brief or line[:KIND] in said:
            return
        said.add(line[:KIND])
        sys.stderr.write(f"ray: {line}\n")
        if alone and "marked dead" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    worker.print_to_stdstream = say
    vars(say)["shown"] = shown
