"""Commands where services, schedulers and containers start them: closed or full streams, no home, no user, a umask."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import TINY, call

from compressor import process, training
from compressor.errors import ConfigError, TrainingError

RUN = " ".join(["run", *TINY, "fit.epochs=0", "order="])
PLAIN = "-m compressor"


def shell(line: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `python LINE` by a shell, which can close and redirect streams."""
    here = str(Path(process.__file__).parents[1])
    return subprocess.run(
        ["/bin/sh", "-c", f"{shlex.quote(sys.executable)} {line}"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


class TestStreams:
    @pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-"])
    def test_a_command_with_closed_streams_ends_as_it_would(self, closed: str, tmp_path: Path) -> None:
        assert shell(f"{PLAIN} version {closed}", tmp_path).returncode == 0
        ended = shell(f"{PLAIN} nosuch {closed}", tmp_path)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "Traceback" not in ended.stderr

    def test_no_file_takes_the_place_of_a_closed_stdout(self, tmp_path: Path) -> None:
        code = (
            "from compressor import process; process.settle(); import os; file = open('a', 'w'); os.write(1, b'lost')"
        )
        assert shell(f'-c "{code}" <&- >&-', tmp_path).returncode == 0
        assert (tmp_path / "a").read_bytes() == b""

    def test_answers_that_a_closed_stdout_would_lose_are_refused(self, tmp_path: Path) -> None:
        ended = shell(f"{PLAIN} predict model=there input=here >&-", tmp_path)
        assert ended.returncode == 2
        assert ended.stderr == "compressor: stdout is closed, and answers would be lost; give predict.output=FILE\n"

    @pytest.mark.parametrize("line", ["version", "--help", "run --help", "run --cfg job"])
    def test_a_stdout_that_takes_no_more_is_one_line(self, line: str, tmp_path: Path) -> None:
        ended = shell(f"{PLAIN} {line} >/dev/full", tmp_path)
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1), ended.stderr
        assert ended.stderr.startswith("compressor: stdout: No space left on device")

    def test_a_stderr_that_takes_no_more_changes_no_exit_code(self, tmp_path: Path) -> None:
        assert shell(f"{PLAIN} nosuch 2>/dev/full", tmp_path).returncode == 2
        assert shell(f"{PLAIN} version 2>/dev/full", tmp_path).returncode == 0


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user without HOME and without an entry in passwd, as `docker --user` gives."""
    pwd = pytest.importorskip("pwd")

    def absent(_: object) -> None:
        raise KeyError

    for name in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", absent)


@pytest.mark.usefixtures("homeless")
class TestHome:
    def test_a_user_without_home_is_told_what_to_give(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        ended = call(*RUN.split())
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert "give runtime.data_cache=FOLDER, or set HOME" in ended.err
        assert call(*RUN.split(), "runtime.data_cache=cache").code == 0

    def test_a_path_below_no_home_is_refused_by_name(self) -> None:
        ended = call("list", "runs=~/x")
        assert (ended.code, ended.err) == (
            2,
            "compressor: ~/x: this user has no home folder; set HOME, or give a path without ~\n",
        )
        with pytest.raises(ConfigError, match="~/x"):
            process.at_home("~/x")

    def test_a_user_without_a_name_gets_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("USER", "")
        monkeypatch.delenv("USER")
        process.settle()
        assert os.environ["USER"] == f"uid-{os.getuid()}"


@pytest.fixture
def umask() -> Iterator[None]:
    """Let new files be read by the group and by nobody else."""
    before = os.umask(0o027)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """Give the modes of all files that some other mode than the umask's have."""
    found = {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in folder.rglob("*")}
    return {
        name: oct(mode) for name, mode in found.items() if (folder / name).is_file() and mode not in (0o640, 0o440)
    } | {name: oct(mode) for name, mode in found.items() if (folder / name).is_dir() and mode != 0o750}


@pytest.mark.usefixtures("umask")
def test_every_file_that_is_written_has_the_mode_that_the_umask_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("run", *TINY, "order=Q", "runtime.data_cache=cache").code == 0
    (step,) = Path("outputs").glob("digits/*/01-quantize")
    written = call("export", *TINY, f"checkpoint={step}", "export.format=packed", "runtime.data_cache=cache")
    assert written.code == 0, written.err
    finish = training._finish_epoch

    def stop(fitting: training.Fitting) -> None:
        finish(fitting)
        training.checkpointing.save(fitting)
        raise TrainingError("stopped")

    monkeypatch.setattr(training, "_finish_epoch", stop)
    assert call("run", *TINY, "order=", "seed=1", "runtime.data_cache=cache").code == 2
    assert len(list(Path("outputs/store").glob(".draft-*/fit.safetensors"))) == 1
    assert len(list(Path("outputs").rglob("*.packed"))) == 1
    assert modes(tmp_path) == {}
