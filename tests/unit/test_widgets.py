"""Controls above a picture, without a browser: moving one draws anew, and what goes wrong is said in one line."""

from __future__ import annotations

import base64
import warnings
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from fusionlib.notebook import widgets
from fusionlib.notebook.widgets import Explorer
from fusionlib.support.files import InputError


def draw(x: float, word: str = "a") -> Figure:
    if x > 8:
        raise InputError("That is too far <for> anybody.")
    if x == 8:
        warnings.warn("Nearly too far.", stacklevel=1)
    figure = Figure(figsize=(1, 1))
    figure.text(0, 0.5, f"{word}{x}")
    return figure


@pytest.fixture
def explorer() -> Explorer:
    return Explorer(draw, x=widgets.slider("how far", 1.0, 0.0, 10.0, 1.0), word=widgets.choice("word", ["a", "b"]))


def test_the_first_picture_is_there_at_once_and_stays_as_what_readers_without_a_kernel_see(explorer):
    first = bytes(explorer.picture.value)
    assert first.startswith(b"\x89PNG")
    explorer.controls["x"].value = 2
    bundle = explorer._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]) == first != bytes(explorer.picture.value)
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.parametrize(("name", "value"), [("x", 3.0), ("word", "b")])
def test_a_control_that_moves_draws_anew(explorer, name, value):
    before = explorer.picture.value
    explorer.controls[name].value = value
    assert explorer.picture.value != before and explorer.state[name] == value
    assert explorer.note.value == ""


def test_what_is_refused_is_said_and_the_picture_stays(explorer):
    before = explorer.picture.value
    explorer.controls["x"].value = 9
    assert explorer.picture.value == before
    assert explorer.note.value == "⚠ That is too far &lt;for&gt; anybody."
    explorer.controls["x"].value = 2
    assert explorer.note.value == "" and explorer.picture.value != before


def test_warnings_stand_beside_the_new_picture(explorer):
    before = explorer.picture.value
    explorer.controls["x"].value = 8
    assert explorer.note.value == "Note: Nearly too far." and explorer.picture.value != before


def test_a_first_picture_that_is_refused_is_an_error():
    with pytest.raises(InputError, match="too far"):
        Explorer(draw, x=widgets.slider("how far", 9.0, 0.0, 10.0, 1.0))


def test_controls_have_labels_and_wait_until_they_are_let_go_of():
    whole, fine = widgets.slider("draw", 0, 0, 20, 1, "which draw"), widgets.slider("bend", 0.8, 0.0, 4.0, 0.1)
    assert isinstance(whole, ipywidgets.IntSlider) and isinstance(fine, ipywidgets.FloatSlider)
    assert whole.tooltip == "which draw" and fine.tooltip == "bend"
    controls = [whole, fine, widgets.log_slider("score", 0.25, -3, 0), widgets.choice("pair", {"one": 1, "two": 2})]
    controls += [widgets.switch("view", ["swipe", "first"]), widgets.upload("infrared ...")]
    assert all(control.description for control in controls)
    assert not any(control.continuous_update for control in controls[:3])
    assert controls[3].value == 1 and controls[4].value == "swipe"


# --- an uploaded pair


def file(folder: Path, name: str, size: tuple[int, int] = (40, 48), deep: bool = False) -> list[dict]:
    height, width = size
    pixels = np.add.outer(np.arange(height), np.arange(width))
    path = folder / name
    Image.fromarray((pixels * 100).astype(np.uint16) if deep else pixels.astype(np.uint8)).save(path)
    return [{"name": name, "content": memoryview(path.read_bytes())}]


def test_two_files_make_a_pair_also_when_they_bear_one_name(tmp_path):
    ir = file(tmp_path, "street.png")
    pair = widgets.uploaded_pair(ir, ir)
    assert pair.ir.shape == pair.vi.shape == (1, 40, 48) and torch.equal(pair.ir, pair.vi)


@pytest.mark.parametrize("only", [0, 1])
def test_one_file_is_waited_for(tmp_path, only):
    given = [[], []]
    given[only] = file(tmp_path, "street.png")
    assert widgets.uploaded_pair(*given) is None


def test_bad_files_are_named_as_the_reader_knows_them(tmp_path):
    good = file(tmp_path, "vi.png")
    with pytest.raises(InputError, match=r"^notes\.png cannot be read as an image"):
        widgets.uploaded_pair([{"name": "notes.png", "content": b"no image"}], good)
    with pytest.raises(InputError, match=r"^small\.png is 20x20 pixels: give an image of at least 32"):
        widgets.uploaded_pair(file(tmp_path, "small.png", (20, 20)), good)
    with pytest.raises(InputError, match=r"^ir\.png is 64x64 and vi\.png is 48x40 pixels: crop or resize one"):
        widgets.uploaded_pair(file(tmp_path, "ir.png", (64, 64)), good)


def test_deep_and_large_files_are_taken_and_what_was_done_is_said(tmp_path):
    deep, large = file(tmp_path, "deep.png", deep=True), file(tmp_path, "large.png", (512, 2048))
    with pytest.warns(UserWarning, match=r"^deep\.png is deeper than 8 bits"):
        widgets.uploaded_pair(deep, file(tmp_path, "vi.png"))
    with pytest.warns(UserWarning, match=r"^2048x512 pixels were reduced to 1024x256\.$"):
        assert widgets.uploaded_pair(large, large).ir.shape == (1, 256, 1024)


def test_a_name_with_folders_stays_inside(tmp_path):
    (one,) = file(tmp_path, "street.png")
    pair = widgets.uploaded_pair([one | {"name": "../../street.png"}], [one])
    assert pair.name == "street"


def test_any_two_of_some_images_are_compared() -> None:
    images = {name: torch.full((1, 32, 40), value) for name, value in (("one", 0.0), ("two", 0.5), ("three", 1.0))}
    explorer = widgets.compare(images, "one", "three", view="checkerboard")
    assert explorer.state == {"first": "one", "second": "three", "position": 25, "view": "checkerboard"}
    before = explorer.picture.value
    explorer.controls["second"].value = "two"
    assert explorer.picture.value != before and explorer.first == before
