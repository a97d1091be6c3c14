"""Figures say what they should: the right panels, points and colours, and nothing is left changed."""

from __future__ import annotations

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from fusionlib.data import Pair
from fusionlib.notebook import charts, plotting

SIDE = 64


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def image(channels: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(channels, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def field(x: float, y: float) -> torch.Tensor:
    return torch.tensor([float(x), float(y)]).view(2, 1, 1).expand(2, SIDE, SIDE)


def titles(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


# --- the look


def test_style_is_put_back_even_after_an_error():
    before = plt.rcParams["font.size"]
    with pytest.raises(RuntimeError), plotting.style():
        assert plt.rcParams["font.size"] != before
        raise RuntimeError
    assert plt.rcParams["font.size"] == before


def test_style_leaves_interactive_as_the_first_figure_sets_it():
    """Jupyter's backend turns it on inside the first plotting call; without it no later figure would be shown."""
    with matplotlib.rc_context():
        matplotlib.interactive(False)
        with plotting.style():
            matplotlib.interactive(True)
        assert matplotlib.is_interactive()


# --- images


def test_images_draws_grey_and_colour_under_their_titles():
    figure = plotting.images({"grey": image(), "colour": image(3), "a batch of one": image()[None]})
    grey, colour, batch = (axis.images[0].get_array() for axis in figure.axes)
    assert titles(figure) == ["grey", "colour", "a batch of one"]
    assert grey.shape == batch.shape == (SIDE, SIDE)
    np.testing.assert_array_equal(colour, image(3).permute(1, 2, 0))
    assert figure.axes[0].images[0].get_clim() == (0, 1)


def test_images_stretches_on_request_and_rings_a_mark():
    picture = 5 * image()
    figure = plotting.images({"map": picture}, limits=None, marks={"map": (7, 9)})
    (axis,) = figure.axes
    assert axis.images[0].get_clim() == pytest.approx((picture.min().item(), picture.max().item()))
    assert axis.lines[0].get_xydata().tolist() == [[7, 9]]


def test_images_makes_a_grid():
    figure = plotting.images({str(i): image() for i in range(5)}, columns=2)
    rows = {round(axis.get_subplotspec().rowspan.start) for axis in figure.axes[:5]}
    assert rows == {0, 1, 2}


# --- pairs


def test_pairs_sheet_puts_visible_above_infrared_with_boxes_on_both():
    boxes = torch.tensor([[0, 10, 12, 20, 30], [2, 1, 2, 3, 4.0]])
    pair = Pair("a pair", image(), image(seed=1), image(3), boxes)
    figure = plotting.pairs_sheet([pair, Pair("no boxes", *(image(c) for c in (1, 1, 3)))])
    with_boxes, without = figure.axes
    sheet = with_boxes.images[0].get_array()
    np.testing.assert_array_equal(sheet[:SIDE], pair.rgb.permute(1, 2, 0))
    np.testing.assert_array_equal(sheet[-SIDE:, :, 0], pair.ir[0])
    corners = {patch.get_xy() for patch in with_boxes.patches}
    assert {(9.5, 11.5), (9.5, sheet.shape[0] - SIDE + 11.5)} <= corners
    assert len(with_boxes.patches) == 4 and not without.patches
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["person", "car"]
    assert not plotting.pairs_sheet([pair], boxes=False).legends


# --- fields


def test_grid_runs_through_the_points_that_are_fetched():
    figure = plotting.grid_overlay(image(), field(3, -2), lines=5)
    (axis,) = figure.axes
    grid, folding = axis.collections
    x, y = grid.get_segments()[0].T  # the uppermost line
    np.testing.assert_allclose(x, np.arange(SIDE) + 3)
    np.testing.assert_allclose(y, -2)
    assert not any(map(len, folding.get_segments()))


def test_grid_marks_folds():
    x = torch.arange(SIDE).float().expand(SIDE, SIDE)
    mirrored = torch.stack([SIDE - 1 - 2 * x, torch.zeros(SIDE, SIDE)])  # p + phi(p) runs backwards
    (axis,) = plotting.grid_overlay(image(), mirrored).axes
    grid, folding = axis.collections
    assert to_hex(folding.get_colors()[0]).upper() == plotting.FOLD
    np.testing.assert_allclose(folding.get_segments(), grid.get_segments())


def test_fields_share_one_scale_and_arrows_point_where_the_field_does():
    both = torch.stack([field(3, 4), field(0, 1)])
    figure = plotting.field_picture(both, ["long", "short"], arrows=4)
    long, short, _ = figure.axes
    assert titles(figure)[:2] == ["long", "short"]
    assert long.images[0].get_clim() == short.images[0].get_clim() == pytest.approx((0, 5))
    arrows = long.collections[0]
    assert (arrows.U == 3).all() and (arrows.V == 4).all() and len(arrows.U) == 16
    assert not plotting.field_picture(both, arrows=0).axes[0].collections


def test_a_field_of_zeros_can_be_drawn():
    plotting.field_picture(field(0, 0)).draw_without_rendering()


# --- views of a registration


def test_checkerboard_takes_tiles_by_turns():
    board = plotting.checkerboard(torch.zeros(1, 4, 6), torch.ones(1, 4, 6), tile=2)
    assert board[0].tolist() == [[0, 0, 1, 1, 0, 0]] * 2 + [[1, 1, 0, 0, 1, 1]] * 2


def test_overlay_is_green_magenta_and_grey():
    ir, vi = torch.tensor([[[1.0, 0.0, 0.5]]]), torch.tensor([[[0.0, 1.0, 0.5]]])
    assert plotting.overlay(ir, vi)[:, 0].T.tolist() == [[1, 0, 1], [0, 1, 0], [0.5, 0.5, 0.5]]
    assert plotting.overlay(ir[None], vi[None]).shape == (1, 3, 1, 3)


def test_alignment_enlarges_where_the_infrared_images_differ():
    vi, before = image(), image(seed=1)
    after = before.clone()
    after[:, 40:56, 8:24] = 0
    figure = plotting.alignment(vi, before, after)
    assert titles(figure)[:3] == ["visible", "before", "after"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array()[..., 0], vi[0])
    for whole, enlarged in zip(figure.axes[:3], figure.axes[3:], strict=True):
        (frame,) = whole.patches
        left, top = (round(value + 0.5) for value in frame.get_xy())
        width, height = int(frame.get_width()), int(frame.get_height())
        assert left <= 8 and left + width >= 24 and top >= 40 and top + height <= 56  # inside what has changed
        board = whole.images[0].get_array()[top : top + height, left : left + width]
        np.testing.assert_array_equal(enlarged.images[0].get_array(), board)


# --- tables and features


def test_curves_leave_out_what_was_not_measured():
    log = pd.DataFrame({"epoch": [1, 2, 3], "l_t": [3.0, 2.0, 1.0], "epe": [np.nan, 5.0, np.nan]})
    figure = charts.curves(log, ["l_t", "epe"], logarithmic=True)
    loss, error = figure.axes
    assert loss.lines[0].get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert error.lines[0].get_xydata().tolist() == [[2, 5]]
    assert loss.get_yscale() == "log" and loss.get_xlabel() == "epoch"


def test_curves_hide_empty_panels():
    log = pd.DataFrame({"step": [0, 1]} | {name: [0.0, 1.0] for name in "abcde"})
    figure = charts.curves(log, list("abcde"), x="step")
    assert [axis.axison for axis in figure.axes] == [True] * 5 + [False] * 3


def test_feature_maps_stretch_every_channel_by_itself():
    features = torch.cat([image(), 100 * image() + 7, torch.zeros(1, SIDE, SIDE)])[None]
    figure = plotting.feature_maps(features, count=5)
    first, second, constant = (axis.images[0].get_array() for axis in figure.axes)
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert titles(figure) == ["channel 0", "channel 1", "channel 2"]
    assert (constant == 0).all()


def test_png_is_a_png_and_closes_its_figure():
    figure = plotting.images({"": image()})
    assert plotting.png(figure).startswith(b"\x89PNG")
    assert not plt.fignum_exists(figure.number)


def test_lines_draw_each_series_over_its_index_and_reference_levels():
    series = {"ours": pd.Series([1.0, np.nan, 0.5], index=[1, 2, 4]), "plain": pd.Series([1.0, 1.0], index=[1, 4])}
    figure = charts.lines(series, "steps", "share", reference={"doing nothing": 1.0})
    (axis,) = figure.axes
    ours, plain, level = axis.get_lines()
    assert list(ours.get_xdata()) == [1, 4] and list(ours.get_ydata()) == [1, 0.5]  # what was not measured is left out
    assert level.get_ydata() == [1, 1] and ours.get_color() != plain.get_color()
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_xscale()) == ("steps", "share", "linear")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours", "plain", "doing nothing"]
    assert charts.lines(series, "x", "y", logarithmic=True).axes[0].get_yscale() == "log"
    many = {f"series {i}": pd.Series([1.0, float(i)]) for i in range(len(plotting.COLOURS) + 1)}
    looks = [(line.get_color(), line.get_linestyle()) for line in charts.lines(many, "x", "y").axes[0].get_lines()]
    assert len(set(looks)) == len(many)


def test_dots_stand_at_their_values_with_whiskers_and_names():
    values, low, high = (pd.Series(each, index=["fast", "slow"]) for each in ([0.1, 10.0], [0.05, 9.0], [0.4, 11.0]))
    (axis,) = charts.dots(values, low, high, "seconds").axes
    line, _, (whiskers,) = axis.containers[0]
    assert list(line.get_xdata()) == [0.1, 10] and list(line.get_ydata()) == [0, 1]
    ends = [[segment[0, 0], segment[1, 0]] for segment in whiskers.get_segments()]
    assert np.allclose(ends, [[0.05, 0.4], [9, 11]])
    assert [label.get_text() for label in axis.get_yticklabels()] == ["fast", "slow"]
    assert axis.get_xscale() == "log" and axis.get_xlabel() == "seconds" and axis.yaxis_inverted()
