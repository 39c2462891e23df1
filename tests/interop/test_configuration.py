"""Configurations of the authors' programs: files, sections, values, and what contradicts the tensors."""

import json

import ml_collections
import pytest

from ncsn_tf.interop import configuration

MODEL = {"name": "NCSNpp", "nf": 128, "ch_mult": (1, 2, 2, 2), "fir": True, "sigma_max": 50, "unknown": object}


def test_a_section_or_a_whole_configuration_is_read():
    whole = {"model": MODEL, "data": {"image_size": 32}, "training": {"sde": "vesde"}, "seed": 42, "device": None}
    for config in (MODEL, whole, ml_collections.ConfigDict(whole)):
        told = configuration.read(config)
        assert told.word("model.name", ("ncsnpp", "ddpm")) == "ncsnpp"
        assert told.whole("model.nf") == told.whole("model.ngf|nf") == 128
        assert told.whole_numbers("model.ch_mult") == (1, 2, 2, 2)
        assert told.switch("model.fir") is True and told.number("model.sigma_max") == 50.0
        assert told.switch("model.skip_rescale") is None, "it is not told"
        assert told.image_size == (None if config is MODEL else (32, 32))
    assert configuration.read(None).whole("model.nf") is None
    assert not configuration.read(None) and configuration.read(told) is told


def test_a_file_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.json").write_text(
        json.dumps({"nf": 64, "ch_mult": [1, 2], "sigma_max": None, "num_scales": 1e3})
    )
    told = configuration.read("~/model.json")
    assert told.whole("model.nf") == 64 and told.whole_numbers("model.ch_mult") == (1, 2)
    assert told.number("model.sigma_max") is None, "null is not told"
    assert told.whole("model.num_scales") == 1000


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"m\.json is empty\. Expected a configuration in JSON"),
        ('{"nf": 12', r"m\.json is not valid JSON: .*line 1"),
        ("[1, 2]", r"m\.json must be the model section .*Received: list"),
        ("{}", r"m\.json is empty\. Give the model section"),
        (b"\xff\xfe\x00", r"m\.json is no text"),
        ('{"model": {"nf": 1}, "data": 3}', r"m\.json: data must be a section. Received: 3"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, text, match):
    path = tmp_path / "m.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=match) as refused:
        configuration.read(path)
    assert len(str(refused.value).splitlines()) == 1


def test_what_is_no_configuration_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no configuration at {tmp_path}/none.json"):
        configuration.read(tmp_path / "none.json")
    with pytest.raises(ValueError, match="config must be the model section .*Received: int"):
        configuration.read(3)


@pytest.mark.parametrize(
    ("read", "value", "match"),
    [
        ("whole", "many", r"config: model\.key must be a whole number\. Received: 'many'"),
        ("whole", True, "a whole number. Received: True"),
        ("whole", 2.5, "a whole number. Received: 2.5"),
        ("number", float("nan"), "a finite number. Received: nan"),
        ("switch", 1, "true or false. Received: 1"),
        ("whole_numbers", [1, "2"], r"a list of whole numbers. Received: \[1, '2'\]"),
    ],
)
def test_a_value_of_another_type_is_refused(read, value, match):
    with pytest.raises(ValueError, match=match):
        getattr(configuration.read({"key": value}), read)("model.key")


def test_an_unknown_word_is_refused():
    with pytest.raises(ValueError, match=r"model\.sde must be one of ve, vp\. Received: 'edm'"):
        configuration.read({"sde": "edm"}).word("model.sde", ("ve", "vp"))


def test_a_contradiction_names_the_key_and_both_values():
    told = configuration.read({"ngf": 64, "ch_mult": [1, 2], "sigma_max": 50.02})
    told.agree("model.nf|ngf", 64, 64)
    told.agree("model.sigma_max", 50.02, 50.0)  # equal but for rounding
    told.agree("model.fir", None, True)
    told.agree("model.fir", True, None)
    with pytest.raises(
        ValueError, match=r"config: model\.ngf=64 contradicts the tensors, which have 128\. Give the conf"
    ):
        told.agree("model.nf|ngf", 64, 128)
    with pytest.raises(ValueError, match=r"model\.ch_mult=\[1, 2\] contradicts the tensors, which have \[1, 2, 2\]"):
        told.agree("model.ch_mult", (1, 2), (1, 2, 2))
    with pytest.raises(ValueError, match=r"model\.sigma_max=90 contradicts the file, which have 50\."):
        told.agree("model.sigma_max", 90.0, 50.0, "the file")


def test_values_come_from_the_tensors_the_configuration_or_what_was_published():
    reader = configuration.Reader(configuration.read({"fir": False, "dropout": 0.2}), "NCSN++")
    assert reader.take("model.fir", False, True, None) is False
    assert reader.take("model.dropout", 0.2, 0.1) == 0.2
    assert reader.take("model.skip_rescale", None, True) is True
    assert reader.take("model.nf", None, None, 8) == 8
    assert reader.assumed == ["model.skip_rescale=true"]
    with pytest.raises(ValueError, match=r"Nothing tells training\.sde of this NCSN\+\+.*config \(--model_config="):
        reader.take("training.sde", None, None)
