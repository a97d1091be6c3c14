"""COCO's weights: read without running any code of the file, refused where they are anything else."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from fusionlib.data import download
from fusionlib.detection import DetectorConfig
from fusionlib.support.files import InputError, sha256
from fusionlib.training import coco


class Fake(nn.Module):
    """Two layers, as a module of YOLOv5 would hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


@pytest.fixture
def yolo(monkeypatch) -> Iterator[type]:
    """The class models.yolo.Model, as long as a file is written; whoever reads it does not have it."""
    module = ModuleType("models.yolo")
    monkeypatch.setitem(sys.modules, "models", ModuleType("models"))
    monkeypatch.setitem(sys.modules, "models.yolo", module)
    module.Model = type("Model", (Fake,), {"__module__": "models.yolo"})
    yield module.Model


def test_a_checkpoint_gives_its_tensors_without_its_classes(tmp_path, monkeypatch, yolo) -> None:
    model, path = yolo(), tmp_path / "small.pt"
    torch.save({"epoch": -1, "model": model.half(), "optimizer": None}, path)
    monkeypatch.delitem(sys.modules, "models.yolo")
    found = coco.read_pickle(path)
    assert found.keys() == model.state_dict().keys()
    assert all(torch.equal(found[name], value.float()) for name, value in model.state_dict().items())


class Harmful:
    """Whoever unpickles this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("hidden", ["the model", "beside it", "inside it"])
def test_a_harmful_file_is_refused_and_does_nothing(tmp_path, yolo, hidden: str) -> None:
    trace, path, model = tmp_path / "trace", tmp_path / "harmful.pt", yolo()
    if hidden == "inside it":
        model.model.names = Harmful(trace)
    content = {"model": Harmful(trace) if hidden == "the model" else model}
    torch.save(content | ({"date": Harmful(trace)} if hidden == "beside it" else {}), path)
    with pytest.raises(InputError, match="is refused"):
        coco.read_pickle(path)
    assert not trace.exists()
    with open(path, "wb") as file:  # the form of files before torch 1.6
        pickle.dump(content["model"] if hidden == "the model" else Harmful(trace), file)
    with pytest.raises(InputError, match="is refused"):
        coco.read_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", "a dict without a model", "half"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content: bytes | str) -> None:
    path = tmp_path / "other.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save({"weights": torch.ones(1000)}, path)
    if content == "half":
        path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(InputError, match="is refused"):
        coco.read_pickle(path)


def test_a_file_that_is_not_the_published_one_is_not_read(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(coco, "weight_file", lambda name, file: None)
    assert not coco.is_available()
    with pytest.raises(InputError, match="data fetch yolov5n"):
        coco.tensors()
    other = tmp_path / "yolov5n.pt"
    torch.save({"model": 1}, other)
    monkeypatch.setattr(coco, "weight_file", lambda name, file: other)
    with pytest.raises(InputError, match="not the published file"):
        coco.tensors()


def test_they_are_kept_as_safetensors(tmp_path, monkeypatch, yolo) -> None:
    model, path = yolo(), tmp_path / coco.FILE
    torch.save({"model": model}, path)
    known = download.registry(coco.NAME)
    known.files[coco.FILE]["sha256"] = sha256(path)
    monkeypatch.setattr(coco, "registry", lambda name: known)
    monkeypatch.setattr(coco, "weight_file", lambda name, file: path)
    first = coco.tensors()
    assert (tmp_path / "yolov5n.safetensors").exists()
    monkeypatch.setattr(coco, "read_pickle", None)
    again = coco.tensors()
    assert first.keys() == again.keys() and all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("content", [b"", b"somebody else's"])
def test_what_is_not_made_of_the_published_file_is_not_taken(tmp_path, monkeypatch, yolo, content: bytes) -> None:
    model, path = yolo(), tmp_path / coco.FILE
    torch.save({"model": model}, path)
    known = download.registry(coco.NAME)
    known.files[coco.FILE]["sha256"] = sha256(path)
    monkeypatch.setattr(coco, "registry", lambda name: known)
    monkeypatch.setattr(coco, "weight_file", lambda name, file: path)
    (tmp_path / "yolov5n.safetensors").write_bytes(content)
    assert torch.equal(coco.tensors()["model.0.weight"], model.state_dict()["model.0.weight"])


def test_without_the_file_a_detector_starts_from_random_weights(monkeypatch, capsys) -> None:
    monkeypatch.setattr(coco, "weight_file", lambda name, file: None)
    asked = DetectorConfig(start="coco")
    assert coco.config_here(asked).start == "random" and "data fetch yolov5n" in capsys.readouterr().out
    assert coco.config_here(DetectorConfig()) == DetectorConfig()
    monkeypatch.setattr(coco, "weight_file", lambda name, file: Path(file))
    assert coco.config_here(asked) == asked


@pytest.mark.skipif(not coco.is_available(), reason="the published weights are not here")
def test_the_published_file_is_what_it_should_be() -> None:
    found = coco.tensors()
    assert len(found) == 349 and found["model.24.m.0.weight"].shape == (255, 64, 1, 1)
    assert found["model.0.conv.weight"].shape == (16, 3, 6, 6) and all(
        value.isfinite().all() for value in found.values()
    )
