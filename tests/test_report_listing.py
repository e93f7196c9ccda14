"""A long table looks as rich's own does, and no cell breaks it."""

import io

from rich.console import Console

from compressor.report.listing import Listing


def shown(listing: Listing, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(listing)
    return console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]


def test_words_stand_left_and_numbers_right_below_their_names() -> None:
    assert shown(Listing(["run", "bitops_\nratio"], [["a", "1.00 x"], None, ["名前", "12.0 x"]])) == [
        "               ",
        "       bitops_ ",
        " run     ratio ",
        "───────────────",
        " a      1.00 x ",
        "               ",
        " 名前   12.0 x ",
        "               ",
    ]


def test_a_first_column_that_does_not_fit_is_folded_and_none_of_it_lost() -> None:
    lines = shown(Listing(["run", "n"], [["x" * 50 + "end", "7"]]), width=40)
    assert all(len(line) == 40 for line in lines)
    first, second = (line.split() for line in lines[-3:-1])
    assert first == ["x" * 35, "7"]
    assert second == ["x" * 15 + "end"]


def test_what_a_terminal_would_obey_is_not_printed() -> None:
    text = "\n".join(shown(Listing(["run"], [["a\x1b[2J\nb[red]"]])))
    assert "\x1b" not in text
    assert " a?[2J?b[red] \n" in text


def test_a_thousand_rows_are_a_line_each() -> None:
    assert len(shown(Listing(["run"], [[str(i)] for i in range(1000)]))) == 1000 + 4
