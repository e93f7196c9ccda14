"""Keys: equal exactly when all that can change a result is equal."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import fakes
from fakes import chain
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from compressor.phase import Phase
from compressor.pipeline import Given, Step, inputs_first


@dataclass(frozen=True)
class Config:
    number: float
    text: str
    flag: bool
    several: tuple[int, ...]
    maybe: int | None


configs = st.builds(
    Config,
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
    st.booleans(),
    st.lists(st.integers(), max_size=3).map(tuple),
    st.none() | st.integers(),
)


causes = st.tuples(
    st.sampled_from(["prune", "quantize"]),
    st.integers(1, 3),
    configs,
    st.dictionaries(st.sampled_from(["model", "teacher"]), st.sampled_from(["prune-1", "prune-2"]), max_size=2),
    st.sampled_from(["digits", "cifar"]),
)


def step_of(cause) -> Step:
    name, version, config, inputs, data = cause
    phase = Phase(name, "X", version, Config, "nowhere:nothing")
    sources = tuple((role, Given(key, Path("anywhere"), "digest")) for role, key in inputs.items())
    return Step(phase, config, sources, data)


class TestKeys:
    @examples(causes, causes)
    @settings(max_examples=300, deadline=None)
    def test_keys_are_equal_exactly_when_the_whole_cause_is(self, one, other):
        same = json.dumps([*one[:2], vars(one[2]), one[3], one[4]], sort_keys=True) == json.dumps(
            [*other[:2], vars(other[2]), other[3], other[4]], sort_keys=True
        )
        assert (step_of(one).key == step_of(other).key) == same

    @examples(causes, st.integers(0, 4), st.data())
    @settings(max_examples=300, deadline=None)
    def test_a_change_of_any_one_part_changes_the_key(self, cause, part, draw):
        other = draw.draw(causes.map(lambda c: c[part]).filter(lambda value: value != cause[part]))
        assert step_of(cause).key != step_of((*cause[:part], other, *cause[part + 1 :])).key

    @examples(configs, st.sampled_from(["number", "text", "flag", "several", "maybe"]), st.data())
    @settings(max_examples=300, deadline=None)
    def test_a_change_of_any_one_setting_changes_the_key_and_those_after_it(self, config, field, draw):
        value = draw.draw(configs.map(lambda c: getattr(c, field)).filter(lambda v: v != getattr(config, field)))
        one, other = (step_of(("prune", 1, c, {}, "digits")) for c in (config, replace(config, **{field: value})))
        after = [chain("Q", start=Given(step.key, Path("anywhere"), "digest")) for step in (one, other)]
        assert one.key != other.key
        assert after[0].key != after[1].key

    def test_roles_are_part_of_the_cause(self):
        models = {name: Given(name, Path(name), name) for name in ("a", "b")}
        one = replace(chain("D"), inputs=(("model", models["a"]), ("teacher", models["b"])))
        other = replace(chain("D"), inputs=(("model", models["b"]), ("teacher", models["a"])))
        assert one.key != other.key

    def test_where_a_checkpoint_lies_is_no_part_of_the_cause(self):
        assert len({chain("Q", start=Given("prune-1", Path(place), "digest")).key for place in ("a", "b")}) == 1

    def test_an_order_of_five_thousand_letters_has_a_key(self):
        last = fakes.baseline()
        for _ in range(5000):
            last = Step(fakes.PHASES["P"], fakes.FakeConfig(), (("model", last),), "data")
            assert last.key
        assert len(inputs_first(last)) == 5001
