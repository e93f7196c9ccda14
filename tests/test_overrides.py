"""Words of the command line mean what was typed: text that looks like a number, a list or Hydra's grammar is text."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from terminal import TINY, call

from compressor.composing import _looked_at as looked_at
from compressor.errors import ConfigError
from compressor.overrides import advice, kept, numbers_as_text


def values(word: str) -> list:
    """Give the value that Hydra reads from a word, or all that it would sweep over."""
    with looked_at():
        (override,) = OverridesParser.create().parse_overrides([word])
    return list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]


def texts(word: str) -> list[str]:
    return [getattr(value, "text", value) for value in values(word)]


class TestTextStaysAsTyped:
    @pytest.mark.parametrize("text", ["2024_05", "1.10", "1e3", "007", "1_0", "+5", "true", "NaN", "inf", ".5", "5."])
    @pytest.mark.parametrize(
        "key", ["name", "runs", "store", "dataset.root", "checkpoint", "hydra.run.dir", "+experiment"]
    )
    def test_what_looks_like_a_number_is_text_where_a_setting_is_text(self, key: str, text: str) -> None:
        assert texts(f"{key}={text}") == [text]

    def test_every_value_of_a_sweep_is_as_typed(self) -> None:
        assert texts("name=1.10,1.20,2024_05") == ["1.10", "1.20", "2024_05"]
        assert texts("runs=choice(1.10,1e3)") == ["1.10", "1e3"]
        assert texts("dataset=1e3,2_0") == ["1e3", "2_0"]

    def test_texts_inside_lists_and_mappings_are_as_typed(self) -> None:
        assert values("search.rivals=[1e3,a]") == [["1e3", "a"]]
        assert values("baseline={weights: 2024_05, fit: {lr: 1e-5}}") == [{"weights": "2024_05", "fit": {"lr": 1e-5}}]
        assert values("baseline.names={a: 1.10}") == [{"a": "1.10"}]

    @pytest.mark.parametrize(
        ("word", "value"),
        [
            ("seed=1_0", 10),
            ("fit.lr=1e-5", 1e-5),
            ("cost_table=true", True),
            ("bench.batches=[1,2]", [1, 2]),
            ("checkpoint=null", None),
            ("prune.target.macs=0.5", 0.5),
        ],
    )
    def test_numbers_stay_numbers_where_a_setting_is_one_and_null_stays_nothing(self, word: str, value: object) -> None:
        assert values(word) == [value]

    def test_a_range_over_a_text_gives_its_numbers(self) -> None:
        assert values("name=range(1,4)") == [1, 2, 3]

    def test_the_home_is_meant_inside_quotes_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        assert values('runs="~/my runs"') == ["/home/me/my runs"]

    def test_a_list_is_no_text_and_the_line_to_type_is_said(self) -> None:
        with pytest.raises(ConfigError, match=r"""type 'runs="\[old\]"'"""):
            kept("runs=[old]")

    def test_a_run_writes_into_the_folders_that_were_typed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        ended = call("baseline", *TINY, "fit.epochs=0", "runs=2024_05", "name=1.10")
        assert ended.code == 0, ended.err
        assert {path.name for path in (tmp_path / "2024_05").iterdir()} == {"1.10", "store"}
        assert [path.name for path in tmp_path.iterdir()] == ["2024_05"]


class TestAdvice:
    @pytest.mark.parametrize(
        "text",
        ["exp [old]", "a=b", "a,b", "[x]", "{a}", "Möbel", "a(b)", "it's", 'a"b', "a\\", "a  b", "50%#", "a;b&c"],
    )
    def test_the_line_to_type_gives_the_text_back(self, text: str) -> None:
        typed = advice(f"dataset.root={text}")
        assert typed is not None
        (word,) = shlex.split(typed)
        assert values(word) == [text]

    def test_of_a_reference_gives_its_letters_back(self) -> None:
        (word,) = shlex.split(advice("dataset.root=a${b}") or "")
        (text,) = values(word)
        assert OmegaConf.create({"root": text}).root == "a${b}"

    @pytest.mark.parametrize("word", ["runs=exp [old]", "dataset.root=a=b", "runs=a,b", "name=Möbel", "runs=a(b)"])
    def test_is_in_the_one_line_of_the_error(self, word: str) -> None:
        ended = call("run", word)
        assert (ended.code, ended.err.count("\n")) == (2, 1)
        assert ended.err.endswith(f"{advice(word)}\n")

    def test_keeps_every_space_of_what_is_to_be_typed(self) -> None:
        assert 'runs="a  (b"' in call("run", "runs=a  (b").err


class TestFiles:
    def test_a_number_of_a_file_is_no_text(self) -> None:
        with pytest.raises(ConfigError, match=r"name: is text, and its file reads as the number 1\.1"):
            numbers_as_text({"name": 1.1}, {"name": 1.1})

    def test_a_number_of_another_setting_is_text(self) -> None:
        assert numbers_as_text({"name": "${seed}", "seed": 3}, {"name": 3, "seed": 3}) == {"name": "3", "seed": 3}

    def test_numbers_in_lists_and_names_of_a_file_are_no_text_either(self) -> None:
        for wrong in ({"search": {"rivals": ["a", 5]}}, {"baseline": {"names": {"a": 1.0}}}):
            with pytest.raises(ConfigError, match="is text"):
                numbers_as_text(wrong, wrong)
