"""Files with a check of their own: a change is found, a lost check is no old file, and old files are still read."""

import json
import shutil
from pathlib import Path

import pytest
import tampering

from compressor.checked import append_line, check_of, checked, read_checked, read_lines
from compressor.codec import digest_file
from compressor.errors import StoreError
from compressor.folders import METRICS, RECORD, proved_metrics, read_record, write_json
from compressor.pipeline import given
from compressor.runs import RUN, keys_of, read_run

GOLDEN = Path(__file__).parent / "golden" / "run"
CONTENT = {"schema": 2, "share": 0.1, "names": ["\u00e9", "b"], "deep": {"a": 1, "b": None}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_json(tmp_path / "note.json", checked(CONTENT))
    return tmp_path / "note.json"


def read(path: Path) -> dict:
    return read_checked(path, "note", 2, earlier=(1, None))


class TestFile:
    def test_says_what_was_written_in_any_layout(self, path):
        assert read(path) == CONTENT
        content = json.loads(path.read_text())
        path.write_text(json.dumps(dict(reversed(content.items())), indent=9, ensure_ascii=False), encoding="utf-8")
        assert read(path) == CONTENT

    @pytest.mark.parametrize(
        "change",
        [
            {"share": 0.2},
            {"names": ["b", "\u00e9"]},
            {"deep": {"a": 1}},
            {"deep": {"a": 1.0, "b": None}},
            {"schema": 1},
            {"more": 0},
        ],
    )
    def test_that_was_changed_is_refused_by_name(self, path, change):
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(StoreError, match=r"note\.json: was changed: its 'check' does not follow"):
            read(path)

    def test_that_lost_its_check_is_not_taken_for_an_old_one(self, path):
        path.write_text(json.dumps(CONTENT))
        with pytest.raises(StoreError, match=r"note\.json: has lost its 'check'"):
            read(path)

    @pytest.mark.parametrize("schema", [1, None])
    def test_of_an_earlier_version_has_none(self, path, schema):
        content = {name: item for name, item in CONTENT.items() if name != "schema"}
        content |= {} if schema is None else {"schema": schema}
        path.write_text(json.dumps(content))
        assert read(path) == content

    @pytest.mark.parametrize("schema", [True, 2.0, "2", 3, 0, [2], {}])
    def test_of_another_version_is_refused_by_name(self, path, schema):
        path.write_text(json.dumps({**CONTENT, "schema": schema, "check": check_of({**CONTENT, "schema": schema})}))
        with pytest.raises(StoreError, match=r"note\.json: is no note of schema 2, which this version reads"):
            read(path)


class TestLines:
    def test_are_read_as_they_were_added(self, tmp_path):
        for number in range(3):
            append_line(tmp_path / "log.jsonl", {"epoch": number})
        assert read_lines(tmp_path / "log.jsonl")[0] == [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}]
        assert read_lines(tmp_path / "none.jsonl") == ([], 0)

    @pytest.mark.parametrize("keep", ["check", "schema", ""])
    def test_a_line_that_was_changed_is_refused_by_number_and_one_of_an_earlier_version_is_read(self, tmp_path, keep):
        path = tmp_path / "log.jsonl"
        append_line(path, {"epoch": 1})
        append_line(path, {"epoch": 2})
        first, second = path.read_text().splitlines()
        content = {name: item for name, item in json.loads(second).items() if name in ("epoch", keep)}
        path.write_text(f"{first}\n{json.dumps(content)}\n")
        if not keep:
            assert len(read_lines(path)[0]) == 2
            return
        with pytest.raises(StoreError, match=r"log\.jsonl:2: "):
            read_lines(path)

    def test_a_last_line_that_was_cut_is_left_out(self, tmp_path):
        path = tmp_path / "log.jsonl"
        append_line(path, {"epoch": 1})
        size = path.stat().st_size
        append_line(path, {"epoch": 2})
        path.write_bytes(path.read_bytes()[:-1])
        assert read_lines(path) == ([{"epoch": 1}], size)


class TestEarlierVersions:
    """What a released version wrote has no check, and is believed as far as it follows from what lies beside it."""

    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        return Path(shutil.copytree(GOLDEN, tmp_path / "run", copy_function=shutil.copyfile))

    def test_they_are_read(self, run):
        assert [read_record(run / step.folder).key for step in read_run(run).steps] == list(keys_of(run))

    @pytest.mark.parametrize("name", ["bitops", "size_bits"])
    def test_an_original_that_does_not_follow_is_refused(self, run, name):
        folder = run / "03-quantize"
        tampering.edited(
            folder / RECORD, lambda record: record["original"].update({name: record["original"][name] * 10})
        )
        with pytest.raises(StoreError, match=r"03-quantize/record\.json: names another original than metrics\.json"):
            given(folder)
        with pytest.raises(StoreError, match="another original"):
            proved_metrics(folder)

    def test_an_original_that_metrics_say_too_is_refused_by_the_record_of_the_original(self, run):
        folder = run / "03-quantize"

        def tenfold(said: dict) -> None:
            said["original"]["bitops"] *= 10

        tampering.edited(folder / METRICS, tenfold)
        tampering.edited(folder / METRICS, lambda said: said.update(bitops_ratio=said["bitops_ratio"] * 10))
        tampering.edited(folder / RECORD, tenfold)
        tampering.edited(folder / RECORD, lambda said: said["files"].update({METRICS: digest_file(folder / METRICS)}))
        with pytest.raises(StoreError, match=r"its original is not what .*00-baseline/record\.json says"):
            given(folder)

    def test_a_record_alone_is_refused_as_nothing_proves_its_original(self, run):
        (run / "03-quantize" / METRICS).unlink()
        with pytest.raises(
            StoreError, match=r"no metrics\.json, .*; remove record\.json to use it as a model of its own"
        ):
            given(run / "03-quantize")

    def test_a_run_whose_key_was_changed_is_refused(self, run):
        tampering.edited(run / RUN, lambda note: note["steps"][1].update(key="distill-0123456789abcdef"))
        with pytest.raises(StoreError, match=r"run\.json: was changed: it has not the step that .*01-distill holds"):
            read_run(run)

    def test_a_run_whose_step_was_left_out_is_refused(self, run):
        tampering.edited(run / RUN, lambda note: note["steps"].pop())
        with pytest.raises(StoreError, match=r"it has not the step that .*04-exit holds"):
            keys_of(run)
