"""What lies in a folder of images is read once, or counted with the reason why it is not."""

import os
import subprocess
from pathlib import Path

import layouts
import pytest
from layouts import load

from compressor.data.listing import NOWHERE, OTHER, SYSTEM, TWICE, images_below
from compressor.data.summary import left_out, summary
from compressor.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twenty images of cats and of dogs to train on, ten of each to test on."""
    return layouts.folder(tmp_path / "set")


def names(folder: Path) -> list[str]:
    return images_below(folder).files


def read(root: Path, **options) -> tuple[str, list[int]]:
    data = load(root.parent / "cache", "imagefolder", root=root, image_size=8, **options)
    return summary(data), [len(data.train), len(data.val), len(data.test)]


class TestLinks:
    def test_images_behind_a_linked_folder_are_read(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "more").mkdir()
        (root / "train" / "cat" / "000.png").rename(tmp_path / "more" / "000.png")
        (root / "train" / "cat" / "more").symlink_to(tmp_path / "more")
        assert len(names(root / "train" / "cat")) == 20
        assert read(root)[1] == [36, 4, 20]

    def test_a_folder_met_twice_is_read_once_under_its_own_name(self, root: Path) -> None:
        (root / "train" / "cat" / "z").mkdir()
        (root / "train" / "cat" / "000.png").rename(root / "train" / "cat" / "z" / "000.png")
        (root / "train" / "cat" / "a").symlink_to("z")
        found = images_below(root / "train" / "cat")
        assert [name for name in found.files if "000" in name] == ["z/000.png"]
        assert found.left_out == {(TWICE, "a"): 1}

    @pytest.mark.parametrize("target", [".", "..", "../..", "/"])
    def test_a_circle_ends(self, target: str, root: Path) -> None:
        before = names(root / "train" / "cat")
        (root / "train" / "cat" / "loop").symlink_to(target)
        assert names(root / "train" / "cat") == before

    def test_a_circle_behind_a_link_ends(self, root: Path, tmp_path: Path) -> None:
        (tmp_path / "more").mkdir()
        (root / "train" / "cat" / "000.png").rename(tmp_path / "more" / "000.png")
        (root / "train" / "cat" / "more").symlink_to(tmp_path / "more")
        (tmp_path / "more" / "again").symlink_to(tmp_path / "more")
        (tmp_path / "more" / "home").symlink_to(root / "train" / "cat")
        assert len(names(root / "train" / "cat")) == 20

    def test_a_link_to_another_class_gives_no_image_two_classes(self, root: Path) -> None:
        before = read(root)
        (root / "train" / "cat" / "others").symlink_to("../dog")
        said, sizes = read(root)
        assert sizes == before[1]
        assert "1 linked folders read elsewhere (train/cat/others)" in said

    def test_a_link_to_nowhere_or_to_itself_is_counted(self, root: Path) -> None:
        (root / "train" / "cat" / "gone").symlink_to("nowhere")
        (root / "train" / "cat" / "self").symlink_to("self")
        counts = images_below(root / "train" / "cat", "train/cat/").left_out
        assert counts == {(NOWHERE, "train/cat/gone"): 1, (NOWHERE, "train/cat/self"): 1}


class TestVal:
    @pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "Valid"])
    def test_its_folder_may_have_any_usual_name(self, name: str, root: Path) -> None:
        (root / "test").rename(root / name)
        layouts.folder(root.parent / "other")
        (root.parent / "other" / "test").rename(root / "test")
        assert read(root)[1] == [40, 20, 20]

    def test_two_such_folders_are_refused_by_name(self, root: Path) -> None:
        subprocess.run("cp -r test valid; cp -r test dev", shell=True, check=True, cwd=root)
        with pytest.raises(DataError, match=r"holds dev and valid, which all mean val"):
            read(root)


class TestWhatIsLeftOut:
    def test_is_said_in_one_line_with_the_reasons_also_when_nothing_is_decoded(self, root: Path) -> None:
        before = read(root)
        assert before[0].endswith("of 2 classes; nothing left out")
        for name in ("loose.png", "train/loose.png", "train/cat/a.HEIC", "train/dog/b.heic", "train/cat/notes.txt"):
            (root / name).write_bytes(b"x")
        (root / "train" / "@eaDir").mkdir()
        (root / "train" / "cat" / "@eaDir").mkdir()
        (root / "train" / "cat" / "@eaDir" / "thumb.jpg").write_bytes(b"x")
        (root / "train" / "cat" / ".DS_Store").write_bytes(b"x")
        (root / "holdout").mkdir()
        first, sizes = read(root)
        again, _ = read(root)
        assert sizes == before[1]
        assert first == again
        assert "\n" not in first
        for part in (
            "2 loose in no class folder (loose.png, train/loose.png)",
            "3 files of other endings (.heic 2, .txt)",
            "2 system folders (@eaDir 2)",
            "1 hidden (.DS_Store)",
            "1 folders beside train, val and test (holdout)",
        ):
            assert part in first

    def test_names_of_many_are_cut_short_and_all_are_counted(self) -> None:
        counts = {(OTHER, f".{ending}"): 1 for ending in "abcdefg"}
        assert left_out(counts) == "left out: 7 files of other endings (.a, .b, .c, 4 more names)"

    def test_unreadable_images_and_those_over_the_limit_are_counted(self, root: Path) -> None:
        (root / "train" / "cat" / "000.png").write_bytes(b"no image")
        said, _ = read(root, skip_unreadable=True, limit=10)
        assert "1 that cannot be read (train/cat/000.png (not an image))" in said
        assert "35 over dataset.limit=10" in said
        assert said == read(root, skip_unreadable=True, limit=10)[0]

    def test_a_class_of_files_that_are_not_read_says_which(self, root: Path) -> None:
        for path in (root / "train" / "dog").iterdir():
            path.rename(path.with_suffix(".heic"))
        with pytest.raises(DataError, match=r"train/dog: holds no image but files of \.heic, which are not read"):
            read(root)

    def test_a_folder_of_the_system_is_no_class(self, root: Path) -> None:
        (root / "train" / "@eaDir").mkdir()
        (root / "train" / "@eaDir" / "thumb.jpg").write_bytes(b"x")
        counts = images_below(root / "train", "").left_out
        assert counts == {(SYSTEM, "@eaDir"): 1}
        assert read(root)[1] == [36, 4, 20]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
@pytest.mark.parametrize("name", ["train", "train/cat", "train/cat/sub/deep", "test/dog", "."])
def test_a_folder_that_may_not_be_listed_is_named_at_any_depth(name: str, root: Path) -> None:
    (root / "train" / "cat" / "sub" / "deep").mkdir(parents=True)
    (root / name).chmod(0)
    try:
        with pytest.raises(DataError, match=rf"{root / name}: Permission denied") as caught:
            read(root)
        assert "\n" not in str(caught.value)
    finally:
        (root / name).chmod(0o755)


@pytest.mark.parametrize("name", ["train", "train/cat", "train/cat/sub/deep", "test/dog"])
def test_a_folder_that_the_disk_does_not_give_is_named_at_any_depth(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "train" / "cat" / "sub" / "deep").mkdir(parents=True)
    scandir = os.scandir

    def closed(path: Path):
        if Path(path) == root / name:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DataError, match=rf"{root / name}: Permission denied") as caught:
        read(root)
    assert "\n" not in str(caught.value)


class TestClassNames:
    def renamed(self, root: Path, part: str, old: str, new: str) -> None:
        (root / part / old).rename(root / part / new)

    def test_are_stored_as_they_are(self, root: Path) -> None:
        for part in ("train", "test"):
            self.renamed(root, part, "cat", "\u0645\u06cc\u200c\u062e")
            self.renamed(root, part, "dog", "x\xa0y")
        data = load(root.parent / "cache", "imagefolder", root=root, image_size=8)
        assert data.task.names == ("x\xa0y", "\u0645\u06cc\u200c\u062e")

    def test_that_are_no_unicode_stay_different(self, root: Path) -> None:
        for part in ("train", "test"):
            self.renamed(root, part, "cat", os.fsdecode(b"caf\xe9"))
            self.renamed(root, part, "dog", os.fsdecode(b"caf\xe8"))
        data = load(root.parent / "cache", "imagefolder", root=root, image_size=8)
        assert data.task.names == (r"caf\xe8", r"caf\xe9")

    def test_written_in_two_ways_in_two_parts_are_one_class(self, root: Path) -> None:
        self.renamed(root, "train", "dog", "chien\xe9")
        self.renamed(root, "test", "dog", "chiene\u0301")
        data = load(root.parent / "cache", "imagefolder", root=root, image_size=8)
        assert data.task.names == ("cat", "chien\xe9")
        assert data.test.targets.tolist() == [0] * 10 + [1] * 10

    def test_written_in_two_ways_in_one_part_are_refused_by_name(self, root: Path) -> None:
        self.renamed(root, "train", "dog", "chien\xe9")
        self.renamed(root, "train", "cat", "chiene\u0301")
        with pytest.raises(DataError, match=r"set/train: 'chiene\\u0301' and 'chien\\xe9' are one name"):
            read(root)
