"""Files that are not PyTorch checkpoints: the error names the kind of each."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from ncsn_tf.interop import torch_files
from ncsn_tf.interop.torch_files import CheckpointFormatError


def of_zip(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"content")


def of_numpy(path, save, *arguments, **arrays):
    with path.open("wb") as file:
        save(file, *arguments, **arrays)


def safetensors(path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


class Code:
    def __reduce__(self):
        return (os.mkdir, ("/nowhere/made_by_a_pickle",))


FILES = {
    "empty": (lambda path: path.write_bytes(b""), r"empty \(0 bytes\)"),
    "text": (lambda path: path.write_text("not a checkpoint"), "a text file"),
    "a web page": (lambda path: path.write_text("\n<!DOCTYPE html><html></html>"), "a web page"),
    "Git LFS": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid 1"), "Git LFS"),
    "npz": (lambda path: of_numpy(path, np.savez, a=1, b=2), r"a NumPy archive \(.npz\) with a.npy, b.npy"),
    "npy": (lambda path: of_numpy(path, np.save, np.ones(3)), "a NumPy array"),
    "safetensors": (safetensors, "a safetensors file. Convert it"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100)), "HDF5"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(100)), "gzip archive: unpack it"),
    "Keras": (lambda path: of_zip(path, ["config.json", "model.weights.h5"]), "a model of Keras"),
    "another zip": (lambda path: of_zip(path, ["a.png", "b.png"]), "a zip archive of other content: a.png, b.png"),
    "TorchScript": (lambda path: of_zip(path, ["c/data.pkl", "c/constants.pkl"]), "a program of TorchScript"),
    "a whole module": (
        lambda path: torch.save(torch.nn.Linear(2, 2), path),
        r"more than tensors \(torch\.nn\.\S+Linear",
    ),
    "code": (lambda path: torch.save({"model": Code()}, path), "more than tensors"),
    "a plain pickle": (lambda path: path.write_bytes(pickle.dumps({"a": np.ones(2)})), "damaged"),
    "cut off": (lambda path: (torch.save([torch.ones(999)], path), os.truncate(path, 900)), "damaged"),
    "noise": (lambda path: path.write_bytes(bytes(range(1, 200))), "damaged"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_another_kind_is_named(tmp_path, recwarn, kind):
    write, words = FILES[kind]
    write(tmp_path / "c.pth")
    with pytest.raises(CheckpointFormatError, match=rf"c\.pth cannot be read.*{words}") as refused:
        torch_files.read(tmp_path / "c.pth")
    assert len(str(refused.value).splitlines()) == 1 and "weights_only" not in str(refused.value)
    assert not recwarn.list, "torch's warnings are not for this library's users"


def test_what_is_not_a_file_is_named(tmp_path):
    def refused(path, error, match):
        with pytest.raises(error, match=match):
            torch_files.read(path)

    refused(tmp_path, CheckpointFormatError, "is a directory.*Give the .pth file itself")
    (tmp_path / "epoch_3.pth").write_bytes(b"")
    refused(tmp_path, CheckpointFormatError, r"is a directory.*Give a file in it: epoch_3\.pth")
    (tmp_path / "checkpoint-7.index").write_bytes(b"\x00\x01")
    refused(tmp_path / "checkpoint-7", CheckpointFormatError, "a TensorFlow checkpoint")
    refused(tmp_path / "checkpoint-7.index", CheckpointFormatError, "part of a TensorFlow checkpoint")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, CheckpointFormatError, "is a run of this library: --init_from")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", CheckpointFormatError, "a device or a pipe")
    refused(tmp_path / "none.pth", FileNotFoundError, f"no checkpoint at {tmp_path}/none.pth")


def test_the_home_folder_is_expanded_and_old_and_new_formats_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for new in (True, False):
        torch.save({"a": torch.ones(2)}, tmp_path / "c.pth", _use_new_zipfile_serialization=new)
        place, content = torch_files.read("~/c.pth")
        assert place == tmp_path / "c.pth" and content["a"].tolist() == [1.0, 1.0]


def test_numbers_of_numpy_are_skipped_and_its_arrays_refused(tmp_path):
    """The program of score_sde writes the learning rates of its optimizer as NumPy's numbers."""
    before = torch.serialization.get_safe_globals()
    torch.save({"lr": np.float64(1e-3), "step": np.int64(7), "a": torch.ones(2)}, tmp_path / "c.pth")
    _, content = torch_files.read(tmp_path / "c.pth")
    assert content["a"].tolist() == [1.0, 1.0] and content["lr"] is content["step"] is None
    assert set(torch.serialization.get_safe_globals()) == set(before), "others' files are read as before"
    torch.save({"a": np.ones(2)}, tmp_path / "c.pth")
    with pytest.raises(
        CheckpointFormatError, match=r"holds more than tensors \(numpy\._core\.multiarray\._reconstruct\)"
    ):
        torch_files.read(tmp_path / "c.pth")
