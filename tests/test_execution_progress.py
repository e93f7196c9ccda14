"""What a study's execution can be told, and how it says where it is."""

from dataclasses import replace

import pytest

from compressor.config.execution import ExecutionConfig
from compressor.errors import ConfigError
from compressor.report.study_progress import duration, lines, text_of
from compressor.studies.board import Tally

ALONE = ExecutionConfig("local", workers=1, address="local", cpus=1, retries=0)


class TestConfig:
    @pytest.mark.parametrize(
        ("changes", "where"),
        [
            ({"executor": "slurm"}, "study.executor=slurm: give local or ray"),
            ({"workers": 0}, "study.workers=0: give 1 to 256"),
            ({"address": " "}, "study.address"),
            ({"cpus": 0}, "study.cpus=0"),
            ({"cpus": 1.5}, "study.cpus=1.5"),
            ({"retries": -1}, "study.retries=-1"),
        ],
    )
    def test_what_is_out_of_range_is_named(self, changes, where):
        with pytest.raises(ConfigError, match=where):
            replace(ALONE, **changes)

    def test_parts_of_a_processor_are_possible(self):
        assert replace(ALONE, cpus=0.5).cpus == 0.5


class TestProgress:
    def test_a_line_says_what_there_is_and_leaves_out_what_is_not(self):
        assert text_of(Tally(65, 20, 4, 1, 3, 2, 250.0)) == "2 running, 20 stored, 1 failed, 3 blocked, 4 min left"
        assert text_of(Tally(65, 0, 0, 0, 0, 1, None)) == "1 running"
        assert text_of(Tally(5, 0, 5, 0, 0, 0, 0.0)) == ""

    def test_no_time_left_is_claimed_once_steps_take_longer_than_like_ones(self):
        assert text_of(Tally(3, 1, 0, 0, 0, 2, 0.0)) == "2 running, 1 stored"

    @pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (89, "89 s"), (100, "2 min"), (9000, "2.5 h")])
    def test_durations_have_one_unit(self, seconds, text):
        assert duration(seconds) == text

    def test_elsewhere_than_a_terminal_it_is_a_line_now_and_then(self, capsys):
        clock = iter([0.0, 1.0, 12.0, 12.0])
        with lines(now=lambda: next(clock)) as watch:
            watch(Tally(3, 0, 0, 0, 0, 1, None))
            watch(Tally(3, 1, 0, 0, 0, 1, 8.0))
            clock = iter([13.0])
            watch(Tally(3, 1, 2, 0, 0, 0, 0.0))
        assert capsys.readouterr().err.splitlines() == [
            "study: 1/3, 1 running, 1 stored, 8 s left",
            "study: 3/3, 1 stored",
        ]
