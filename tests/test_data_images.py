"""Image files: every kind that can be read is, and what cannot be read is named before anything is made of it."""

import os
import subprocess
import sys
from pathlib import Path

import layouts
import numpy as np
import pytest
from layouts import load
from PIL import Image

from compressor.arch import TaskKind
from compressor.data.images import decode
from compressor.errors import DataError, FileError


def saved(path: Path, image: Image.Image, **options) -> str:
    image.save(path, **options)
    return str(path)


def colour(*values: int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (8, 8), values if len(values) > 1 else sum(values))


def test_png_values_are_kept_as_they_are(tmp_path):
    values = layouts.pixels(8, 8, 3)
    path = saved(tmp_path / "a.png", Image.fromarray(values))
    assert np.array_equal(decode(path, 8, 3), values.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("image", "name", "wanted"),
    [
        (colour(200, 100, 50), "a.png", (200, 100, 50)),
        (colour(200, 100, 50), "a.jpg", (200, 100, 50)),
        (colour(200, 100, 50), "a.bmp", (200, 100, 50)),
        (colour(200, 100, 50), "a.webp", (200, 100, 50)),
        (colour(200, 100, 50), "a.tif", (200, 100, 50)),
        (colour(200, 100, 50).convert("P", palette=Image.Palette.ADAPTIVE), "a.png", (200, 100, 50)),
        (colour(200, 100, 50).convert("P", palette=Image.Palette.ADAPTIVE), "a.gif", (200, 100, 50)),
        (colour(200, 100, 50).convert("CMYK"), "a.jpg", (200, 100, 50)),
        (colour(200, 100, 50, 0, mode="RGBA"), "a.png", (255, 255, 255)),
        (colour(200, 100, 50, 255, mode="RGBA"), "a.png", (200, 100, 50)),
        (colour(100, 0, mode="LA"), "a.png", (255, 255, 255)),
        (colour(77, mode="L"), "a.png", (77, 77, 77)),
        (colour(1, mode="1"), "a.png", (255, 255, 255)),
        (Image.fromarray(np.full((8, 8), 200 * 256 + 9, np.uint16)), "a.png", (200, 200, 200)),
        (Image.fromarray(np.full((8, 8), 200 * 256 + 9, np.uint16)), "a.tif", (200, 200, 200)),
    ],
)
def test_every_mode_gives_its_colours(image, name, wanted, tmp_path):
    path = saved(tmp_path / name, image)
    found = decode(path, 8, 3)
    assert np.abs(found.astype(int) - np.array(wanted)[:, None, None]).max() <= 3
    assert decode(path, 8, 1).shape == (1, 8, 8)


def test_exif_orientation_turns_the_image(tmp_path):
    values = np.zeros((8, 8, 3), np.uint8)
    values[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the top is at the right
    turned = decode(saved(tmp_path / "a.png", Image.fromarray(values), exif=exif), 8, 1)[0]
    assert turned[:, 4:].min() == 255
    assert turned[:, :4].max() == 0


def test_images_are_stretched_to_the_asked_size(tmp_path):
    path = saved(tmp_path / "a.png", Image.new("RGB", (31, 7), (9, 9, 9)))
    assert decode(path, 12, 3).shape == (3, 12, 12)


def test_a_folder_gives_sorted_classes_and_its_own_val(tmp_path):
    root = layouts.folder(tmp_path / "set", ("dog", "cat", "eel"), val=True)
    data = load(tmp_path / "cache", "imagefolder", root=root, image_size=8)
    assert data.task.names == ("cat", "dog", "eel")
    assert [len(data.train), len(data.val), len(data.test)] == [60, 30, 30]
    first = np.asarray(Image.open(root / "test" / "cat" / "000.png")).transpose(2, 0, 1)
    assert np.array_equal(data.test.images[0], first)
    assert data.test.targets.tolist() == [0] * 10 + [1] * 10 + [2] * 10


def test_a_folder_without_val_gives_a_tenth_of_train(tmp_path):
    data = load(tmp_path / "cache", "imagefolder", root=layouts.folder(tmp_path / "set"), image_size=8)
    assert [len(data.train), len(data.val), len(data.test)] == [36, 4, 20]
    assert np.bincount(data.val.targets).tolist() == [2, 2]


def test_several_processes_decode_the_same_as_one(tmp_path):
    root = layouts.folder(tmp_path / "set", each=180)
    one, two = (load(tmp_path / str(n), "imagefolder", root=root, image_size=8, workers=n) for n in (1, 2))
    assert one.fingerprint == two.fingerprint


def test_a_script_without_a_main_guard_may_load_with_several_processes(tmp_path):
    root = layouts.folder(tmp_path / "set", each=180)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys; sys.path.insert(0, 'tests'); from pathlib import Path; from layouts import load\n"
        f"load(Path({str(tmp_path / 'cache')!r}), 'imagefolder', root={str(root)!r}, image_size=8, workers=2)\n"
        "print('loaded')\n"
    )
    environment = os.environ | {"PYTHONPATH": "."}
    command = [sys.executable, str(script)]
    repository = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "loaded\n", done.stderr


def spoil(root: Path) -> list[str]:
    """Put one file of each unreadable kind, and some that are no images by name, into the folder."""
    cats = root / "train" / "cat"
    (cats / "empty.png").write_bytes(b"")
    (cats / "text.jpg").write_text("this is text")
    whole = (cats / "000.png").read_bytes()
    (cats / "cut.png").write_bytes(whole[: len(whole) // 2])
    (cats / "link.png").symlink_to(cats / "nowhere")
    os.mkfifo(cats / "pipe.png")
    header = b"P6 30000 30000 255\n"
    (cats / "bomb.ppm").write_bytes(header + bytes(100))
    for ignored in (".DS_Store", "notes.txt", ".hidden.png", "Thumbs.db"):
        (cats / ignored).write_text("not an image")
    return ["empty.png", "text.jpg", "cut.png", "link.png", "pipe.png", "bomb.ppm"]


@pytest.mark.parametrize("workers", [1, 2])
def test_unreadable_files_are_all_named_and_nothing_is_returned(workers, tmp_path):
    root = layouts.folder(tmp_path / "set", each=180)
    names = spoil(root)
    with pytest.raises(DataError, match=r"6 of 546 images cannot be read.*skip_unreadable=true") as caught:
        load(tmp_path / "cache", "imagefolder", root=root, image_size=8, workers=workers)
    assert all(f"train/cat/{name} (" in str(caught.value) for name in names)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "data").glob("*imagefolder*"))


def test_twenty_unreadable_files_are_named_and_the_rest_counted(tmp_path):
    root = layouts.folder(tmp_path / "set")
    for i in range(33):
        (root / "test" / "dog" / f"bad\n{i:02}.png").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"33 of 93 images cannot be read: .* and 13 more; mend") as caught:
        load(tmp_path / "cache", "imagefolder", root=root, image_size=8)
    assert str(caught.value).count("(not an image)") == 20
    assert "\n" not in str(caught.value)


def test_unreadable_files_are_left_out_and_counted_where_asked(tmp_path):
    root = layouts.folder(tmp_path / "set")
    clean = load(tmp_path / "cache", "imagefolder", root=root, image_size=8)
    spoil(root)
    data = load(tmp_path / "cache", "imagefolder", root=root, image_size=8, skip_unreadable=True)
    assert data.skipped == 6
    assert data.fingerprint == clean.fingerprint
    with pytest.raises(DataError, match="6 of 66 images cannot be read"):
        load(tmp_path / "cache", "imagefolder", root=root, image_size=8)


def test_a_set_of_unreadable_files_alone_is_refused_even_when_they_are_left_out(tmp_path):
    root = layouts.folder(tmp_path / "set")
    for path in root.glob("test/*/*"):
        path.write_bytes(b"bad")
    with pytest.raises(DataError, match="test holds no image that can be read"):
        load(tmp_path / "cache", "imagefolder", root=root, image_size=8, skip_unreadable=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rm -r test", r"set/test: No such file or directory; it should hold a folder of images for each class"),
        ("rm -r train/*", r"set/train: holds no folder"),
        ("rm -r train/dog test/dog", r"set/train: has 1 class folders; at least 2"),
        ("mkdir test/eel", r"set/test/eel: is a class that train does not have"),
        ("rm train/dog/*", r"set/train/dog: holds no image"),
        ("rm test/*/*", r"set/test/cat: holds no image"),
        ("mkdir val", r"set/val: holds no folder"),
    ],
)
def test_a_folder_that_is_no_set_is_refused(change, message, tmp_path):
    root = layouts.folder(tmp_path / "set")
    subprocess.run(change, shell=True, check=True, cwd=root)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "cache", "imagefolder", root=root, image_size=8)


def test_a_list_gives_numbers_and_files_relative_to_it(tmp_path):
    rows = [[f"{i}.png", str(i * 2.5), str(-i)] for i in range(20)]
    path = layouts.listed(tmp_path, rows, "file,length,width")
    data = load(tmp_path / "cache", "image_regression", csv=path, image_size=8)
    assert data.task.kind is TaskKind.REGRESSION
    assert data.task.names == ("length", "width")
    assert [len(data.train), len(data.val), len(data.test)] == [12, 4, 4]
    assert np.allclose(data.task.mean, data.train.targets.mean(0))
    assert np.allclose(data.task.scale, data.train.targets.std(0))
    assert np.allclose(data.test.targets[:, 0], data.test.targets[:, 1] * -2.5)


def test_a_list_may_say_the_split_and_the_root_may_be_elsewhere(tmp_path):
    parts = ["test", "train", "train", "val"] * 3
    path = layouts.listed(tmp_path, [[f"{i}.png", str(i), part] for i, part in enumerate(parts)], "file,length,split")
    moved = tmp_path / "lists" / "list.csv"
    moved.parent.mkdir()
    path.rename(moved)
    data = load(tmp_path / "cache", "image_regression", csv=moved, root=tmp_path, image_size=8)
    assert data.test.targets[:, 0].tolist() == [0, 4, 8]
    assert data.val.targets[:, 0].tolist() == [3, 7, 11]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("file,length", [["a.png", "1"], ["b.png", "long"]], r"row 3 has length 'long'; give a number"),
        ("file,length", [["a.png", "1"], ["b.png", "nan"]], r"row 3 has length 'nan'; give a number"),
        ("file,length", [["a.png", "1"], ["b.png", "1", "2"]], r"row 3 has 3 cells; its header has 2"),
        ("file,length", [["", "1"]], r"row 2 names no file"),
        ("file,length,split", [["a.png", "1", "training"]], r"row 2 has split 'training'; give train, val or test"),
        ("file,length,split", [["a.png", "1", "train"]], r"column split needs rows of train and of test"),
        ("image,length", [["a.png", "1"]], r"row 1 is 'image,length'; it should be file,target"),
        ("file", [["a.png"]], r"row 1 is 'file'; it should be"),
        ("file,length", [], r"lists no image"),
        ("file,length", [["a.png", "1"], ["gone.jpg", "2"]], r"1 of 2 images cannot be read: gone\.jpg \(No such file"),
        ("file,length", [["a.png", "1"]], r"no image is left for"),
    ],
)
def test_a_bad_list_is_refused_with_the_row(header, rows, message, tmp_path):
    path = layouts.listed(tmp_path, rows, header)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "cache", "image_regression", csv=path, image_size=8)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00binary", b'file,length\n"a.png,1\n', b""])
def test_a_list_that_is_no_csv_file_is_refused(content, tmp_path):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"list\.csv"):
        load(tmp_path / "cache", "image_regression", csv=tmp_path / "list.csv", image_size=8)


def test_a_pipe_in_place_of_a_list_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(FileError, match=r"list\.csv: is a pipe; a regular file is needed"):
        load(tmp_path / "cache", "image_regression", csv=tmp_path / "list.csv", image_size=8)
