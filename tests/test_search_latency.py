"""Latency is read from a table of layers that were timed here, and its error against whole networks is stated."""

import random
from dataclasses import replace

import pytest
import samples
import spaces
from hypothesis import given
from hypothesis import strategies as st

from compressor.arch import BlockKind
from compressor.config.deploy import Engine
from compressor.errors import ConfigError, StoreError
from compressor.model import fresh
from compressor.search.budget import Limits, bill_of
from compressor.search.latency import Table, Timing
from compressor.search.space import Space, space_of
from compressor.search.timing import latency_of, measured

TIMING = Timing((1, 4, 16), (2, 8), ((10, 20), (30, 60), (90, 300)))


def timed(space: Space) -> Space:
    """Give a space with planted timings: 1 ns a channel read and written, and a base."""
    layers = {
        layer.name: Timing((1, layer.into), (1, layer.out), ((1, layer.out), (layer.into, layer.into * layer.out)))
        for layer in space.layers
    }
    return replace(space, table=Table(layers, 1000))


class TestTable:
    def test_it_gives_what_was_measured_and_between_it_what_lies_between(self):
        table = Table({"a": TIMING}, 5)
        assert [table.nanoseconds("a", *at) for at in ((1, 2), (4, 8), (16, 2), (16, 8))] == [10, 60, 90, 300]
        assert table.nanoseconds("a", 10, 2) == 60
        assert table.nanoseconds("a", 4, 5) == 45
        assert table.nanoseconds("a", 100, 100) == 300

    @given(st.integers(1, 20), st.integers(1, 12), st.integers(0, 5), st.integers(0, 5))
    def test_more_channels_never_take_less(self, into, out, more, wider):
        table = Table({"a": TIMING}, 0)
        assert table.nanoseconds("a", into + more, out + wider) >= table.nanoseconds("a", into, out)


class TestBudget:
    @pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
    def test_random_policies_are_within_a_limit_of_latency(self, name):
        space, source = timed(spaces.space(name)), random.Random(0)
        whole = bill_of(spaces.whole(space), space).latency
        assert whole is not None
        limits = Limits.of(spaces.budget(latency_ms=0.5 * whole, size=0.2), space)
        for _ in range(30):
            policy = spaces.walked(space, limits, iter(source.random, None))
            assert limits.allow(bill_of(policy, space))

    def test_an_infeasible_one_is_refused_with_the_smallest_feasible_value(self):
        space = timed(spaces.space("resnet20"))
        with pytest.raises(
            ConfigError, match=r"search.budget.latency_ms=1e-06: the smallest feasible value is "
        ) as said:
            Limits.of(spaces.budget(latency_ms=1e-6), space)
        Limits.of(spaces.budget(latency_ms=float(str(said.value).rpartition(" ")[2])), space)


class TestMeasured:
    @pytest.mark.parametrize("kind", [BlockKind.BASIC, BlockKind.INVERTED, BlockKind.PLAIN])
    def test_every_layer_is_timed_and_whole_networks_say_the_error(self, kind):
        model = fresh(samples.arch(kind, depth=1), 0)
        space = space_of(model, spaces.config())
        record = measured(model, space)
        assert record.engine == Engine.ONNXRUNTIME
        assert record.table.layers.keys() == {layer.name for layer in space.layers}
        for timing in record.table.layers.values():
            rows = timing.nanoseconds
            assert all(list(row) == sorted(row) and row[0] >= 0 for row in rows)
            assert list(rows) == sorted(rows)
        offs = [abs(check.predicted_ms / check.measured_ms - 1) for check in record.checks]
        assert record.error == max(offs)
        assert all(check.measured_ms > 0 for check in record.checks)

    @pytest.mark.parametrize("engine", [Engine.OPENVINO, Engine.TORCH])
    def test_other_runtimes_time_it_too(self, engine):
        model = fresh(samples.arch(BlockKind.SEPARABLE, depth=1), 0)
        record = measured(model, space_of(model, spaces.config()), engine)
        assert record.engine == engine
        assert record.table.base + sum(t.nanoseconds[-1][-1] for t in record.table.layers.values()) > 0

    def test_a_search_that_goes_on_has_the_same_table(self, tmp_path):
        model = fresh(samples.arch(depth=1), 0)
        space, path = space_of(model, spaces.config()), tmp_path / "latency.json"
        first = latency_of(model, space, path)
        assert latency_of(model, space, path) == first
        other = fresh(samples.arch(BlockKind.PLAIN), 0)
        with pytest.raises(StoreError, match=r"latency.json: has the layers of another network; remove it"):
            latency_of(other, space_of(other, spaces.config()), path)
        path.write_text("{}")
        with pytest.raises(StoreError, match=r"latency.json: .* is missing; remove it to time the layers again"):
            latency_of(model, space, path)
