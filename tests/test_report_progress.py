"""Lines of progress come now and then, and tell what is left by the pace of now."""

import pytest

from compressor.report.progress import EVERY, lines


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_elsewhere_than_in_a_terminal_there_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with lines("prune", 4, clock) as advance:
        for clock.seconds in (1.0, 12.0):
            advance(1, f"at {clock.seconds:.0f}")
        clock.seconds = 20.0
    said = capsys.readouterr().err.splitlines()
    assert said == ["prune: 2/4, about 22 s left, at 12", "prune: 2/4 in 20 s, at 12"]


def test_what_an_interrupted_call_had_done_says_nothing_about_the_pace(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with lines("step", 1000, clock) as advance:
        advance(800, "")  # done before
        for _ in range(4):
            clock.seconds += EVERY / 4
            advance(1, "loss 0.5")
    first, end = capsys.readouterr().err.splitlines()
    assert first == f"step: 804/1000, about {196 * EVERY / 4:.0f} s left, loss 0.5"
    assert end == f"step: 804/1000 in {EVERY:.0f} s, loss 0.5"
