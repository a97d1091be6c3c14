"""RMR-Fusion in two dimensions: golden values of a program that gives the published ones in three, and as a method."""

from __future__ import annotations

import golden
import pytest
import torch
from fusing_checks import check_protocol
from golden import check_outputs, exact, inputs, pair
from medical_checks import check_parts, fill_parts

from fusionlib.methods.baselines import windows
from fusionlib.methods.baselines.rmrfus import RMRFus, RMRFusMethod, from_zero
from fusionlib.methods.baselines.rmrfus_encoder import Encoder, WindowAttention
from fusionlib.methods.baselines.windows import neighbours

FACTS = golden.load("rmrfus")


def method(bias: float = 1.0) -> RMRFusMethod:
    """A method whose network gives values around `bias`, so that the loss of negatives can be chosen."""
    torch.manual_seed(0)
    network = RMRFus()
    torch.nn.init.constant_(network.autoencoder.decoder.outc.conv.bias, bias)
    return RMRFusMethod(network)


def test_names_and_shapes_of_the_weights_are_the_published_ones() -> None:
    check_parts(RMRFus(), FACTS)


@pytest.mark.parametrize("case", FACTS["cases"], ids=lambda case: case["name"])
@torch.no_grad()
def test_filled_weights_give_the_golden_values(case: dict) -> None:
    net, (t1, t2), outputs = exact(fill_parts(RMRFus())), inputs(case), {}
    parts = {
        "feat1": net.autoencoder.encoder1,
        "swin1": net.autoencoder.encoder1.swinViT,
        "feat2": net.autoencoder.encoder2,
        "fused_feat": net.fusion,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
    outputs["fused"] = net(t1, t2)
    outputs["recon1"] = net.autoencoder.decoder(outputs["feat1"])
    check_outputs(outputs, case)


def test_it_is_a_method() -> None:
    check_protocol(method())


def test_visible_goes_in_first_and_the_output_is_stretched() -> None:
    fusing, (ir, vi) = method(), pair(40, 32)
    with torch.no_grad():
        output = fusing.network(from_zero(vi), from_zero(ir))
    assert output.min() > 0
    image = fusing.fuse(ir, vi).image
    torch.testing.assert_close(image, (output - output.min()) / (output.max() - output.min()))
    assert image.min() == 0 and image.max() == 1


def test_negatives_are_lost_before_the_stretch() -> None:
    ir, vi = pair(32, 32)
    with torch.no_grad():
        middle = method(0.0).network(from_zero(vi), from_zero(ir)).median().item()
    image = method(-middle).fuse(ir, vi).image
    assert 0.4 < (image == 0).float().mean() < 0.6 and image.max() == 1


def test_an_output_without_positives_is_black() -> None:
    assert method(-1e3).fuse(*pair(32, 32)).image.abs().max() == 0


def test_an_input_begins_at_zero_and_is_divided_by_its_maximum() -> None:
    image = torch.tensor([[0.2, 0.5, 0.8], [0.0, 0.0, 0.0]]).view(2, 1, 1, 3)
    expected = torch.tensor([[0.0, 0.375, 0.75], [0.0, 0.0, 0.0]]).view(2, 1, 1, 3)
    torch.testing.assert_close(from_zero(image), expected)


def test_only_neighbours_of_the_map_see_each_other_in_a_rolled_window() -> None:
    size, window, shift = (14, 21), (7, 7), (3, 3)
    places = torch.cartesian_prod(torch.arange(14), torch.arange(21)).view(1, 14, 21, 2)
    inside = windows.split(places.roll((-3, -3), (1, 2)), window)[0]  # (6, 49, 2), where each position was
    apart = (inside[:, :, None] - inside[:, None]).abs().amax(-1)
    expected = apart < 7
    assert torch.equal(neighbours(size, window, shift)[:, 0], expected)
    assert not expected.all() and neighbours(size, window, (0, 3)).sum() > expected.sum()


def test_a_window_that_is_clipped_in_height_keeps_its_relative_positions() -> None:
    index = WindowAttention().relative_position_index
    places = torch.cartesian_prod(torch.arange(6), torch.arange(7))
    apart = places[:, None] - places + 6
    assert torch.equal(index[:42, :42], apart[..., 0] * 13 + apart[..., 1])


@torch.no_grad()
def test_small_images_have_clipped_windows() -> None:
    torch.manual_seed(0)
    encoder = Encoder().eval()
    for size in ((12, 40), (40, 12), (8, 8), (14, 14)):
        feature = encoder(torch.rand(1, 1, *size))
        assert feature.shape == (1, 16, *size) and torch.isfinite(feature).all()
