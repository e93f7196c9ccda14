"""Whatever is written is read back equal, and nothing else is read at all."""

import hashlib
import json
import math
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from compressor.arch import Arch
from compressor.codec import CodecError, canonical, decode, digest, digest_file, encode, parse_json, read_json
from compressor.config import RunConfig
from compressor.errors import CompressorError
from compressor.records import Metrics, Record


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    name: str
    colour: Colour
    share: float | None


@dataclass(frozen=True)
class Outer:
    count: int
    on: bool
    inner: Inner
    rows: tuple[Inner, ...]
    by_name: dict[str, int]
    free: Any = None
    extra: dict[str, float] = field(default_factory=dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
INNERS = st.builds(
    Inner, st.text(), st.sampled_from(Colour), st.none() | st.floats(allow_nan=False, allow_infinity=False)
)
OUTERS = st.builds(
    Outer,
    st.integers(),
    st.booleans(),
    INNERS,
    st.lists(INNERS, max_size=3).map(tuple),
    st.dictionaries(st.text(), st.integers(), max_size=3),
)
GOOD = {"count": 1, "on": True, "inner": {"name": "a", "colour": "red", "share": None}, "rows": [], "by_name": {}}


class TestRoundTrip:
    @given(OUTERS)
    def test_a_tree_goes_to_json_text_and_back_unchanged(self, value):
        assert decode(Outer, json.loads(json.dumps(encode(value)))) == value

    @given(OUTERS)
    def test_the_canonical_bytes_are_json_of_the_value_and_do_not_depend_on_the_order_of_keys(self, value):
        turned = dict(reversed(encode(value).items()))
        assert canonical(turned) == canonical(value)
        assert json.loads(canonical(value)) == encode(value)

    def test_defaults_may_be_left_out_and_whole_numbers_stand_for_floats(self):
        inner = GOOD["inner"] | {"share": 2}
        read = decode(Outer, GOOD | {"inner": inner})
        assert (read.free, read.extra) == (None, {})
        assert type(read.inner.share) is float

    @pytest.mark.parametrize("name", [2026, 1.10, True])
    def test_a_number_is_no_name_as_nobody_knows_how_it_was_written(self, name):
        with pytest.raises(CodecError, match="name: expected str"):
            decode(Inner, {"name": name, "colour": "red", "share": None})

    def test_a_number_is_no_key_as_1_and_its_text_would_be_one(self):
        with pytest.raises(CodecError, match="1 is no text"):
            decode(Outer, GOOD | {"extra": {1: "a", "1": "b"}})

    @pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", Path("here")])
    def test_what_is_no_json_is_not_written(self, value):
        with pytest.raises(CodecError, match="cannot write"):
            encode(value)

    def test_a_number_that_is_not_finite_has_no_canonical_bytes(self):
        with pytest.raises(ValueError, match="not JSON compliant"):
            canonical({"loss": math.nan})


class TestStrictness:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"count": "1"}, "count: expected int, got '1'"),
            ({"count": True}, "count: expected int, got True"),
            ({"count": 1.0}, "count: expected int, got 1.0"),
            ({"count": None}, "count: expected int, got None"),
            ({"on": 1}, "on: expected bool, got 1"),
            ({"inner": []}, r"inner: expected a mapping, got \[\]"),
            ({"inner": {"name": "a", "colour": "red"}}, "inner: key 'share' is missing"),
            ({"inner": GOOD["inner"] | {"colour": "green"}}, "inner.colour: 'green' is not one of red, blue"),
            ({"inner": GOOD["inner"] | {"colour": ["red"]}}, r"inner.colour: \['red'\] is not one of red, blue"),
            ({"inner": GOOD["inner"] | {"share": math.inf}}, "inner.share: expected a finite number, got inf"),
            ({"inner": GOOD["inner"] | {"share": math.nan}}, "inner.share: expected a finite number, got nan"),
            ({"inner": GOOD["inner"] | {"share": 10**400}}, "inner.share: expected a finite number"),
            ({"rows": {}}, "rows: expected a list, got {}"),
            ({"rows": [GOOD["inner"], 3]}, r"rows\[1\]: expected a mapping, got 3"),
            ({"rows": [GOOD["inner"] | {"nmae": 1}]}, r"rows\[0\]: unknown key 'nmae'; it has name, colour, share"),
            ({"by_name": {"a": "b"}}, "by_name.a: expected int, got 'b'"),
            ({"by_name": [1]}, r"by_name: expected a mapping, got \[1\]"),
            ({"amount": 1}, "Outer: unknown key 'amount'; it has count, on"),
        ],
    )
    def test_a_wrong_value_is_named_by_its_path(self, change, message):
        with pytest.raises(CodecError, match=message) as caught:
            decode(Outer, GOOD | change)
        assert "\n" not in str(caught.value)

    def test_a_path_can_start_anywhere(self):
        with pytest.raises(CodecError, match=r"run\.inner\.colour: 3 is not one of"):
            decode(Outer, GOOD | {"inner": GOOD["inner"] | {"colour": 3}}, "run")

    @pytest.mark.parametrize("cls", [Outer, Arch, RunConfig, Record, Metrics])
    @given(data=JSON)
    @example(data=GOOD)
    def test_any_json_is_read_or_refused_in_one_line(self, cls, data):
        message = ""
        try:
            assert isinstance(decode(cls, data), cls)
        except CompressorError as error:
            message = str(error)
        assert "\n" not in message


class TestFiles:
    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b'{"a": 1}}', b"\x80\x04K\x01.", b"[" * 100_000, b"9" * 5000, "{'a': 1}".encode("utf-16")],
        ids=["empty", "cut", "longer", "pickle", "deep", "long number", "utf-16"],
    )
    def test_a_file_that_is_not_json_is_refused_by_name(self, content, tmp_path):
        path = tmp_path / "arch.json"
        path.write_bytes(content)
        with pytest.raises(CodecError, match=r"arch\.json: is not valid JSON"):
            read_json(path)

    def test_a_missing_file_is_refused_by_name(self, tmp_path):
        with pytest.raises(CodecError, match=r"none\.json: cannot be read: No such file"):
            read_json(tmp_path / "none.json")

    @given(st.one_of(st.binary(max_size=300), st.from_regex(rb'[\[{][0-9eE+."a:,\]}]{,20}[\]}]')))
    def test_any_bytes_are_read_or_refused(self, content):
        try:
            read = parse_json(content)
        except ValueError:
            return
        assert read == json.loads(content)

    @pytest.mark.parametrize(
        "text",
        ["NaN", "[Infinity]", "-Infinity", '{"a": 1, "a": 1}', "1e999", "[-1e400]", str(2**63), "9" * 4000,
         '"\\ud800"', '{"\\udc00": 1}', "[" * 65 + "]" * 65, '{"a": ' * 65 + "1" + "}" * 65, "\ufeff{}"],
    )  # fmt: skip
    def test_what_this_program_never_writes_is_refused(self, text, tmp_path):
        path = tmp_path / "found.json"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(CodecError, match=r"found\.json: is not valid JSON"):
            read_json(path)

    @pytest.mark.parametrize(
        "text", ["[" * 64 + "]" * 64, "[[], " * 40 + "0" + "]" * 40, str(2**63 - 1), "1e100", '"\\u00e9"']
    )
    def test_what_is_near_that_is_read(self, text):
        assert parse_json(text) == json.loads(text)

    def test_a_files_digest_is_the_start_of_its_sha256(self, tmp_path):
        path = tmp_path / "weights"
        path.write_bytes(b"x" * 100_000)
        assert digest_file(path) == hashlib.sha256(b"x" * 100_000).hexdigest()[:16]


class TestDigest:
    @given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
    @example([b"ab", b"c"], [b"a", b"bc"])
    @example([b""], [])
    def test_it_is_equal_exactly_when_the_parts_are(self, one, other):
        assert (digest(*one) == digest(*other)) == (one == other)

    def test_it_is_16_hexadecimal_digits(self):
        assert len(digest(b"a")) == 16
        assert int(digest(b"a"), 16) >= 0
