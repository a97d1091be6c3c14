"""The two names that a newcomer needs, from the package itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fusionlib
from fusionlib import data, methods
from fusionlib.data.drawn.synthetic import scene
from fusionlib.support.files import InputError


def test_a_pair_of_files_is_fused(tmp_path: Path) -> None:
    drawn = scene("first names", 64, 64)
    for name, image in (("ir", drawn.ir), ("vi", drawn.rgb)):
        data.save_image(tmp_path / f"{name}.png", image)
    made = fusionlib.fuse(tmp_path / "ir.png", tmp_path / "vi.png", tmp_path / "fused.png", method="average")
    assert made == [tmp_path / "fused.png"] and data.read_visible(made[0])[1].shape == (3, 64, 64)


def test_a_method_is_loaded_by_name() -> None:
    ir, vi = torch.rand(2, 1, 1, 64, 64)
    assert torch.equal(fusionlib.load("average").fuse(ir, vi).image, methods.load("average").fuse(ir, vi).image)
    assert fusionlib.load().name == "ours_robust"


def test_no_other_weights_take_the_place_of_those_that_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ours\.safetensors is not there: give a folder that has it"):
        fusionlib.load(weights=tmp_path)
    with pytest.raises(InputError, match="average has no network and takes no weights"):
        fusionlib.load("average", weights=tmp_path)
