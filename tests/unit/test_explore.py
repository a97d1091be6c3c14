"""Pictures under controls: each shows what its state says, and is another one in another state."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from torch import Tensor

from fusionlib.deformation import LEVELS, misalign, sample_field
from fusionlib.network import FusionNetwork, NetworkConfig
from fusionlib.notebook import explore
from fusionlib.notebook.plotting import FOLD, GRID, png
from fusionlib.support.files import InputError

SIZE = 64


def image(value: float | None = None, seed: int = 0) -> Tensor:
    if value is not None:
        return torch.full((1, SIZE, SIZE), value)
    coarse = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")[0]


def shown(figure, panel: int = 0) -> np.ndarray:
    return np.asarray(figure.axes[panel].images[0].get_array())


def titles(figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


# --- two images in one frame


PICTURES = {"dark": image(0.0), "bright": image(1.0)}


@pytest.mark.parametrize("position", [0, 25, 100])
def test_swipe_shows_the_first_image_left_of_the_position(position):
    pixels = shown(explore.compare(PICTURES, "dark", "bright", position, "swipe"))
    cut = SIZE * position // 100
    assert (pixels[:, :cut] == 0).all() and (pixels[:, cut:] == 1).all()


def test_checkerboard_has_tiles_of_both_and_larger_ones_at_a_higher_position():
    small, large = (shown(explore.compare(PICTURES, "dark", "bright", at, "checkerboard")) for at in (0, 100))
    assert small.mean() == large.mean() == 0.5
    assert (large[: SIZE // 2, : SIZE // 2] == 0).all() and small[: SIZE // 2, : SIZE // 2].mean() == 0.5


def test_first_and_second_show_one_image_alone_whatever_the_position():
    for view, value in (("first", 0), ("second", 1)):
        figure = explore.compare(PICTURES, "dark", "bright", 30, view)
        assert (shown(figure) == value).all() and titles(figure) == [["dark", "bright"][value]]


def test_colour_and_grey_are_compared():
    colour = torch.stack([image(1.0)[0], image(0.5)[0], image(0.0)[0]])
    pixels = shown(explore.compare({"grey": image(0.25), "colour": colour}, "grey", "colour", 50, "swipe"))
    assert pixels[0, 0].tolist() == [0.25] * 3 and pixels[0, -1].tolist() == [1, 0.5, 0]


# --- the studio


def test_studio_at_rest_leaves_the_image_as_it_is():
    ir = image()[None]
    figure = explore.studio(ir, shift=0, rotation=0, elastic=0)
    assert torch.allclose(torch.from_numpy(shown(figure)), ir[0, 0], atol=1e-5)
    assert "0.0 px" in titles(figure)[0] and shown(figure, 3).max() < 1e-4


def test_studio_brings_the_image_back_and_says_what_is_left():
    figure = explore.studio(image()[None])
    left = float(titles(figure)[2].split("residual: ")[1].removesuffix(" px"))
    assert left < 0.01
    assert shown(figure, 3)[8:-8, 8:-8].mean() < 0.1


def test_studio_warns_of_folds_and_draws_them_in_the_colour_of_folds():
    figure = explore.studio(image()[None], times=8.0)
    assert titles(figure)[0].startswith("WARNING") and len(figure.axes) == 2
    grids = [each for each in figure.axes[0].collections if isinstance(each, LineCollection)]
    assert [to_hex(each.get_colors()[0]).upper() for each in grids] == [GRID, FOLD]


def test_studio_refuses_what_no_draw_can_do_without_folding():
    with pytest.raises(InputError, match="folds the image in every draw"):
        explore.studio(image()[None], elastic=10.0, smoothness=2.0)


@pytest.mark.parametrize(
    "change", [{"shift": 5.0}, {"rotation": 9.0}, {"elastic": 0.2}, {"smoothness": 12.0}, {"times": 0.5}, {"draw": 1}]
)
def test_every_control_of_the_studio_changes_the_picture(change):
    ir = image()[None]
    assert png(explore.studio(ir)) == png(explore.studio(ir)) != png(explore.studio(ir, **change))


# --- how far


def test_stretch_says_what_was_apart_and_what_a_registration_leaves():
    def nothing(ir: Tensor, vi: Tensor) -> Tensor:
        return torch.zeros(1, 2, SIZE, SIZE)

    figure = explore.how_far(image()[None], image(seed=1)[None], nothing, 3, 3, 0.8, 0)
    apart, left = (title.split(": ")[1].split(" px")[0] for title in titles(figure))
    assert apart == left and float(apart) > 0.5
    assert (shown(figure, 0) == shown(figure, 1)).all()
    still = explore.how_far(image()[None], image(seed=1)[None], nothing, 0, 0, 0, 0)
    assert titles(still)[0] == "as given: 0.0 px apart"


def test_fields_say_how_far_off_they_are_and_share_one_scale():
    psi = sample_field("medium", SIZE, SIZE, key=("fields", 0))
    moved = misalign(image()[None], psi)
    figure = explore.fields({"zero": torch.zeros_like(psi), "right": moved.phi_gt}, moved)
    assert titles(figure)[1:] == ["right: 0.0 px off", "the true field"]
    assert float(titles(figure)[0].split(": ")[1].split(" px")[0]) > 0.5
    assert not shown(figure, 0).any() and (shown(figure, 1) == shown(figure, 2)).all()
    assert len({axis.images[0].get_clim() for axis in figure.axes}) == 1


# --- the network


@pytest.fixture(scope="module")
def network() -> FusionNetwork:
    torch.manual_seed(0)
    return FusionNetwork(NetworkConfig(channels=4, msrb_widths=(4, 6), gathering_widths=(4, 4, 4, 4))).eval()


@pytest.fixture(scope="module")
def found(network) -> dict:
    return explore.stages(network, image()[None], image(seed=1)[None])


def test_stages_are_what_the_network_itself_computes(network, found):
    ir, vi = image()[None], image(seed=1)[None]
    with torch.no_grad():
        output = network(ir, vi)
    assert torch.equal(found["common features"][0], output.alignment.common_ir[0])
    assert torch.equal(found["specific features"][2], output.specific_vi[0])
    assert torch.equal(found["fused image"][1], output.image[0])
    warped = torch.cat([found[name][1] for name in ("common features", "specific features")])
    assert torch.allclose(warped, output.fused[0, :8], atol=1e-4)
    sizes = {each.shape[-2:] for features in found.values() for each in features}
    assert sizes == {(SIZE, SIZE)}


def test_without_a_displacement_the_warp_changes_nothing(network):
    # A fresh network leaves everything in place, so both ways of fusing agree.
    stages = explore.stages(network, image()[None], image(seed=1)[None])
    without, with_it, _ = stages["fused image"]
    assert torch.allclose(without, with_it, atol=1e-5)


def test_walk_shows_one_channel_three_times_and_takes_the_last_for_more(found):
    figure = explore.walk(found, "common features", 2)
    assert len(figure.axes) == 3
    for panel, features in enumerate(found["common features"]):
        assert np.array_equal(shown(figure, panel), features[2].numpy())
    assert png(explore.walk(found, "common features", 99)) == png(explore.walk(found, "common features", 3))


def test_stages_of_the_third_ablation_have_no_common_features_in_the_head():
    torch.manual_seed(0)
    config = NetworkConfig(channels=4, msrb_widths=(4, 6), gathering_widths=(4, 4, 4, 4), common_in_fusion=False)
    found = explore.stages(FusionNetwork(config).eval(), image()[None], image(seed=1)[None])
    assert torch.allclose(found["fused image"][0], found["fused image"][1], atol=1e-5)


def test_levels_of_the_studio_are_those_of_the_library():
    """The sliders begin with `medium`, in per cent."""
    medium = LEVELS["medium"]
    defaults = explore.studio.__defaults__
    assert defaults[:4] == pytest.approx(
        (100 * medium.translation, medium.rotation, 100 * medium.elastic, 100 * medium.smoothing)
    )
