"""The division of files by names: usual names are understood, near misses are refused or said."""

import warnings

import pytest

from ncsn_tf.data import parts

DATA = "The folder data"


def divide(names, part, by_file_name=False):
    positions, divided = parts.divide(names, part, DATA, by_file_name=by_file_name)
    return [names[i] for i in positions], divided


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "trainset", "train-set", "training_data", "trn"])
@pytest.mark.parametrize(
    "held_out",
    [
        "test",
        "Test",
        "val",
        "VALID",
        "validation",
        "eval",
        "dev",
        "held-out",
        "held out",
        "HoldOut",
        "testset",
        "testdata",
        "test_images",
    ],
)
def test_usual_names_divide(train, held_out):
    names = [f"{train}/a.png", f"{train}/deep/b.png", f"{held_out}/c.png"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert divide(names, "train") == (names[:2], True)
        assert divide(names, "held_out") == (names[2:], True)


@pytest.mark.parametrize(
    ("train", "held_out"),
    [("train2017", "val2017"), ("mnist-train", "mnist-test"), ("imagesTr", "imagesTs"), ("tr", "te")],
)
def test_names_that_contain_the_usual_words_divide_if_all_do(train, held_out):
    names = [f"{train}/a.png", f"{held_out}/c.png"]
    with pytest.warns(UserWarning, match="divided by a part of its folders' names"):
        assert divide(names, "train") == (names[:1], True)
    with pytest.warns(UserWarning, match="look like parts"):
        assert divide([*names, "zebra/d.png"], "train")[1] is False


def test_the_best_held_out_part_is_taken_and_the_rest_is_said():
    names = ["train/a.png", "val/b.png", "test/c.png", "extra/d.png", "e.png"]
    with pytest.warns(UserWarning, match="neither part and are not read: 1 in 'extra', 1 in 'val', 1 beside"):
        assert divide(names, "held_out") == (["test/c.png"], True)


@pytest.mark.parametrize(
    "names",
    [
        ["train/a.png", "more/b.png"],
        ["train/a.png", "b.png"],
        ["Train/a.png", "images/b.png", "c.png"],
        ["test/a.png", "cats/b.png"],
        ["val/a.png", "b.png"],
    ],
)
@pytest.mark.parametrize("part", ["train", "held_out"])
def test_a_part_beside_what_is_not_understood_is_refused(names, part):
    with pytest.raises(
        ValueError,
        match="has a folder .* beside .*but no (held-out part|folder 'train').*not clear what to hold out",
    ):
        divide(names, part)


def test_two_folders_for_one_part_are_refused():
    for names in (["trainA/a.png", "trainB/b.png", "testA/c.png", "testB/d.png"], ["train/a", "Train/b", "test/c"]):
        with pytest.raises(ValueError, match="several folders that may be its part 'train'"):
            divide(names, "train")
    with pytest.raises(ValueError, match="several folders that may be its part 'held_out': 'val', 'valid'"):
        divide(["train/a", "val/b", "valid/c"], "train")


@pytest.mark.parametrize(
    "names",
    [
        ["images/train/a.png", "images/val/b.png"],
        ["cats/train/a.png", "cats/test/b.png", "dogs/train/a.png", "dogs/test/b.png"],
        ["a/b/Train/a", "a/b/Valid/c", "a/d"],
        ["train/train/a", "train/val/b"],
        ["images/train/a", "images/extra/b"],
        ["images/train/a", "images/b"],
    ],
)
def test_parts_within_a_subfolder_are_refused(names):
    with pytest.raises(ValueError, match="seems to have parts within its subfolder"):
        divide(names, "train")


@pytest.mark.parametrize(
    "names", [["a.png"], ["cats/a.png", "dogs/b.png"], ["train/a.png"], ["contest/a.png", "trainer/b.png"]]
)
def test_other_folders_are_read_as_a_whole_without_a_word(names):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert divide(names, "train") == (names, False)


def test_words_in_names_of_classes_are_no_parts():
    names = ["bullet_train/a.png", "test_tube/b.png", "cat/c.png"]
    with pytest.warns(UserWarning, match="'bullet_train', 'test_tube' look like parts"):
        assert divide(names, "train") == (names, False)


@pytest.mark.parametrize(("train", "val"), [("mnist.train", "mnist.val"), ("img.v2-train-0", "img.v2-val-0")])
def test_parts_are_told_wherever_they_are_in_a_files_name(train, val):
    assert divide([train, val], "held_out", by_file_name=True) == ([val], True)


def test_a_training_folder_beside_others_is_said():
    with pytest.warns(UserWarning, match="'train2017' look like parts"):
        assert divide(["train2017/a", "more/b"], "train")[1] is False


def test_names_of_shards_divide_where_files_are_shards():
    names = ["x-train.tfrecord-0", "x-train.tfrecord-1", "x-Valid.tfrecord-0", "sub/x_test.tfrecord"]
    with pytest.warns(UserWarning, match="1 of them are in neither part and not read, such as 'x-Valid.tfrecord-0'"):
        assert divide(names, "held_out", by_file_name=True) == (["sub/x_test.tfrecord"], True)
    with pytest.warns(UserWarning, match="speak of parts, but do not divide it"):
        assert divide(["train_1.png", "test_2.png"], "train") == (["train_1.png", "test_2.png"], False)
    with pytest.warns(UserWarning, match="speak of parts, but do not divide it"):
        assert divide(["train.tfrecord", "extra.tfrecord"], "train", by_file_name=True)[1] is False
