"""What is printed is shown as it is: no markup, and nothing that a terminal would obey."""

import io
import logging
from pathlib import Path

import pytest
from rich.text import Text
from terminal import TINY, call

from compressor.lines import Printable, line, write
from compressor.report import text as report_text
from compressor.report.progress import _bars as bars
from compressor.report.tables import empty
from compressor.report.text import console

OBEYED = {
    "colour": "\x1b[31m",
    "title of the window": "\x1b]0;x\x07",
    "C1": "\x9b31m",
    "turned around": "\u202etxt.exe",
    "isolated": "\u2066x",
    "bell": "\a",
    "back": "\rx",
    "delete": "\x7f",
    "broken bytes": "\udcff",
}
MARKUP = ("[red]x[/red]", "[/b]", "exp [old]", ":smile:", "[link=file:///x]y[/link]")


def shown(capsys: pytest.CaptureFixture[str], *what: object, soft_wrap: bool = False) -> str:
    for one in what:
        console().print(one, soft_wrap=soft_wrap)
    return capsys.readouterr().out


def table(words: str):
    made = empty(words, [words, "b"])
    made.add_row(words, Text(words))
    made.caption = words
    return made


@pytest.mark.parametrize("code", OBEYED.values(), ids=OBEYED)
class TestNothingIsObeyed:
    def test_in_lines_and_tables(self, code: str, capsys: pytest.CaptureFixture[str]) -> None:
        out = shown(capsys, f"run: {code}", table(f"a{code}"), soft_wrap=True)
        assert all(letter.isprintable() or letter == "\n" for letter in out)
        assert "run: \\" in out or code[0] in "\a\r", "rich leaves out some of them itself"

    def test_in_errors_and_progress_lines(self, code: str) -> None:
        out = io.StringIO()
        write(out, f"a\n {code}")
        assert out.getvalue().endswith("\n")
        assert out.getvalue()[:-1].isprintable()

    def test_in_logs(self, code: str) -> None:
        record = logging.LogRecord("x", logging.INFO, "x", 1, "\t#0 : %s\n", (f"name={code}",), None)
        assert Printable().filter(record)
        assert record.getMessage().startswith("\t#0 : name=")
        assert record.getMessage()[1:-1].isprintable()

    def test_in_a_bar_of_a_terminal(self, code: str) -> None:
        out = io.StringIO()
        terminal = report_text.Console(file=out, force_terminal=True, color_system=None, width=120)
        with bars(terminal)(f"a{code}[/b]", 3) as advance:
            advance(1, f"b{code}[/i]")
        assert code not in out.getvalue()
        assert "[/b]" in out.getvalue()


@pytest.mark.parametrize("words", MARKUP)
def test_brackets_and_colons_are_no_markup_anywhere(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, words, table(words), soft_wrap=True).count(words) == 6


def test_the_styles_of_tables_stay_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[1mbold\x1b[0m" in shown(capsys, Text("bold", style="bold"))


def test_one_line_keeps_its_spaces_and_joins_lines() -> None:
    assert line("a  b\n   c\td ") == "a  b c d"


@pytest.mark.parametrize("name", ["exp [old]", "a[/b]", ":smile:"])
def test_the_path_that_is_printed_is_the_one_that_was_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = call("run", *TINY, "fit.epochs=0", "order=", f'runs="{name}"')
    assert ended.code == 0, ended.err
    (said,) = (line for line in ended.out.splitlines() if line.startswith("run: "))
    assert (Path(said.removeprefix("run: ")) / "run.json").is_file()
    assert f"{name}/" in call("list", f'runs="{name}"').out.replace("\n", "")
    missing = call("evaluate", f'checkpoint="{name}/nowhere"')
    assert f"{name}/nowhere" in missing.err


def test_what_a_terminal_would_obey_is_written_out_in_paths_errors_and_sweeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = "a\x1b]0;x\x07\u202e"
    ended = call("run", "-m", *TINY, "fit.epochs=0", "order=", f'runs="{odd}"')
    assert ended.code == 0, ended.err
    listed = call("list", f'runs="{odd}"')
    refused = call("evaluate", f'checkpoint="{odd}"')
    for text in (ended.out, ended.err, listed.out, refused.err):
        assert all(letter.isprintable() or letter in "\n\t" for letter in text)
