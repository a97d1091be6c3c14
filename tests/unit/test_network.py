"""The network: its budget, every size from 32 pixels up, what it refuses, and the parts the registration rests on."""

from __future__ import annotations

import math
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fusionlib.deformation import warp
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork, NetworkConfig, extractor, local_structure, pad_to_multiple
from fusionlib.registration import CSEB, CostVolume, local_correlation, resize_field, soft_argmax, window_mean
from fusionlib.support.files import InputError
from fusionlib.support.keys import Key
from fusionlib.support.weights import save_weights

pytestmark = pytest.mark.numeric

CONFIGS = {"default": NetworkConfig(), "as in the paper": AS_IN_THE_PAPER}
SMALL = NetworkConfig(channels=4)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def blobs(height: int, width: int, seed: int = 0) -> Tensor:
    """A smooth picture full of texture, (1, 1, H, W) in [0, 1]."""
    coarse = noise(1, 1, height // 6 + 2, width // 6 + 2, seed=seed)
    return nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)


def network(config: NetworkConfig = SMALL, seed: int = 0, moved: bool = True) -> FusionNetwork:
    """A network in evaluation mode; if `moved`, its fields are not zero as they are at the start."""
    torch.manual_seed(seed)
    net = FusionNetwork(config).eval()
    if moved:
        for module in net.msrb.modules():
            if isinstance(module, nn.Conv2d) and module.out_channels == 2:
                nn.init.normal_(module.weight, std=0.05)
                nn.init.constant_(module.bias, 0.5)
    return net


# --- budget -----------------------------------------------------------------------------------------------------------


def count_macs(net: FusionNetwork, side: int) -> dict[str, int]:
    """Multiply-accumulates of one forward pass as thop counts them: convolutions without bias, and the norm layers.

    thop gives a norm layer two operations an element, and two more if it learns scale and shift.
    """
    counted = {"conv": 0, "norm": 0}

    def conv(module: nn.Conv2d, _: tuple, output: Tensor) -> None:
        counted["conv"] += output.numel() * module.weight[0].numel()

    def norm(module: nn.BatchNorm2d, _: tuple, output: Tensor) -> None:
        counted["norm"] += output.numel() * (4 if module.affine else 2)

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            assert isinstance(module, nn.Conv2d)  # the only kind with weights, so nothing is left out
            module.register_forward_hook(conv)
        elif isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(norm)
    with torch.no_grad():
        net(noise(1, 1, side, side), noise(1, 1, side, side))
    return counted


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_parameters_and_macs_stay_within_the_paper_s(config: NetworkConfig) -> None:
    assert sum(p.numel() for p in FusionNetwork(config).parameters()) <= 970_000
    at_64, at_128 = (sum(count_macs(network(config), side).values()) for side in (64, 128))
    assert at_128 == 4 * at_64  # all of it grows with the area, so 512x512 costs sixteen times 128x128
    assert 16 * at_128 <= 60.12e9


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_fvcore_counts_the_same_convolutions(config: NetworkConfig) -> None:
    from fvcore.nn import FlopCountAnalysis

    class Traceable(FusionNetwork):  # tracing knows tuples, not dataclasses
        def forward(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, Tensor]:
            output = super().forward(ir, vi)
            return output.image, output.field

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing: the checks of the input become constants
        analysis = FlopCountAnalysis(Traceable(config).eval(), (noise(1, 1, 64, 64), noise(1, 1, 64, 64)))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        convolutions = analysis.by_operator()["conv"]
    sobel = 2 * 2 * 9 * 64 * 64 if config.common_input == "structure" else 0  # fixed kernels, in no module
    assert convolutions == count_macs(network(config), 64)["conv"] + sobel


# --- the whole --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 32), (77, 101), (32, 150)])
def test_any_size_from_32_up_comes_back_as_it_went_in(config: NetworkConfig, size: tuple[int, int]) -> None:
    net = network(replace(config, channels=4))
    with torch.no_grad():
        output = net(noise(2, 1, *size), noise(2, 1, *size, seed=1))
    assert output.image.shape == (2, 1, *size) and output.field.shape == (2, 2, *size)
    assert output.alignment.common_ir.shape == output.alignment.common_vi.shape == (2, 4, *size)
    assert output.specific_vi.shape == (2, 4, *size)
    assert output.fused.shape == (2, 16, *size)
    assert output.image.min() >= 0 and output.image.max() <= 1
    for tensor in (output.image, output.field, output.fused):
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_extreme_images_stay_finite_and_in_range(config: NetworkConfig) -> None:
    net = network(replace(config, channels=4)).train()
    flat, checks = torch.zeros(2, 1, 64, 64), (torch.arange(64) % 2).float().expand(2, 1, 64, 64)
    for ir, vi in ((flat, flat), (flat, 1 - flat), (checks, flat), (checks, 1 - checks)):
        output = net(ir, vi)
        assert torch.isfinite(output.image).all() and torch.isfinite(output.field).all()
        assert output.image.min() >= 0 and output.image.max() <= 1


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_it_starts_at_the_identity(config: NetworkConfig) -> None:
    net = network(config, moved=False)
    with torch.no_grad():
        assert net(blobs(64, 64), blobs(64, 64, seed=1)).field.abs().max() == 0


@pytest.mark.parametrize("config", [SMALL, replace(AS_IN_THE_PAPER, channels=4)], ids=CONFIGS)
def test_padding_repeats_the_border_and_is_cut_off_again(config: NetworkConfig) -> None:
    net = network(config)
    height, width = 5 * net.multiple - 5, 6 * net.multiple - 3
    ir, vi = blobs(height, width), blobs(height, width, seed=1)
    with torch.no_grad():
        padded = net(*(nn.functional.pad(image, (0, 3, 0, 5), mode="replicate") for image in (ir, vi)))
        output = net(ir, vi)
    assert padded.field.abs().max() > 0.1
    for name in ("image", "field", "specific_vi", "fused"):
        assert torch.equal(getattr(output, name), getattr(padded, name)[..., :height, :width])
    for name in ("field", "common_ir", "common_vi"):
        assert torch.equal(getattr(output.alignment, name), getattr(padded.alignment, name)[..., :height, :width])


@pytest.mark.parametrize("config", [SMALL, replace(AS_IN_THE_PAPER, channels=4)], ids=CONFIGS)
def test_aligning_alone_finds_the_same_field(config: NetworkConfig) -> None:
    net, ir, vi = network(config), blobs(45, 60), blobs(45, 60, seed=1)
    with torch.no_grad():
        alone, output = net.align(ir, vi), net(ir, vi)
    assert torch.equal(alone.field, output.field) and torch.equal(output.alignment.field, output.field)
    assert torch.equal(alone.common_vi, output.alignment.common_vi)
    last = resize_field(alone.stages[-1].field, pad_to_multiple(ir, net.multiple).shape[-2:])
    assert torch.equal(last[..., :45, :60], alone.field)
    with pytest.raises(InputError, match="are too small"):
        net.align(ir[..., :20], vi[..., :20])


def test_large_images_are_registered_at_a_smaller_size() -> None:
    ir, vi = blobs(64, 96), blobs(64, 96, seed=1)
    small = network(replace(SMALL, registration_side=39))  # 39^2 pixels: 32 x 48
    whole = FusionNetwork(replace(SMALL, registration_side=None)).eval()
    whole.load_state_dict(small.state_dict())
    with torch.no_grad():
        halves = [nn.functional.interpolate(image, (32, 48), mode="bilinear", antialias=True) for image in (ir, vi)]
        found, expected = small.align(ir, vi), resize_field(whole.align(*halves).stages[-1].field, (64, 96))
        assert torch.equal(found.field, expected) and expected.abs().max() > 0.1
        assert torch.equal(found.common_ir, whole.align(ir, vi).common_ir)  # what is fused stays as large as it was
        assert torch.equal(small.align(*halves).field, whole.align(*halves).field)  # these are small enough
        odd = small(ir[..., :61, :83], vi[..., :61, :83])
    assert odd.field.shape == (1, 2, 61, 83) and odd.image.shape == (1, 1, 61, 83)


def test_multiples_are_not_padded() -> None:
    image = noise(1, 1, 48, 64)
    assert torch.equal(pad_to_multiple(image, 16), image)
    larger = pad_to_multiple(image[..., :41, :50], 16)
    assert larger.shape == (1, 1, 48, 64)
    assert torch.equal(larger[..., 47, :50], image[..., 40, :50]) and torch.equal(
        larger[..., :41, 63], image[..., :41, 49]
    )


@pytest.mark.parametrize("config", [SMALL, replace(AS_IN_THE_PAPER, channels=4)], ids=CONFIGS)
def test_an_image_is_fused_alike_alone_and_in_a_batch(config: NetworkConfig) -> None:
    net = network(config)
    ir, vi = torch.cat([blobs(64, 48), blobs(64, 48, seed=1)]), torch.cat([blobs(64, 48, seed=2), noise(1, 1, 64, 48)])
    with torch.no_grad():
        both, second = net(ir, vi), net(ir[1:], vi[1:])
    torch.testing.assert_close(both.image[1:], second.image, atol=1e-4, rtol=0)
    torch.testing.assert_close(both.field[1:], second.field, atol=1e-3, rtol=0)


def test_the_fused_features_are_those_of_equation_7() -> None:
    net = network()
    ir, vi = blobs(64, 64), blobs(64, 64, seed=1)
    with torch.no_grad():
        output = net(ir, vi)
        common_ir, common_vi = net.common_features(ir, vi)
        parts = [warp(common_ir, output.field), warp(net.ir_sfe(ir), output.field), common_vi, net.vi_sfe(vi)]
    assert output.field.abs().max() > 0.1
    torch.testing.assert_close(output.fused, torch.cat(parts, 1), atol=1e-3, rtol=1e-3)
    assert torch.equal(output.alignment.common_vi, common_vi) and torch.equal(output.specific_vi, parts[3])


def test_without_common_features_the_head_reads_half() -> None:
    without = network(replace(SMALL, common_in_fusion=False))
    ir, vi = blobs(40, 56), blobs(40, 56, seed=1)
    with torch.no_grad():
        output = without(ir, vi)
        specific = torch.cat([warp(without.ir_sfe(ir), output.field), without.vi_sfe(vi)], 1)
    assert output.image.shape == (1, 1, 40, 56) and output.fused.shape == (1, 8, 40, 56)
    # Up to the last columns, beyond which the network sees its padding and this test the zeros of a convolution.
    torch.testing.assert_close(output.fused[..., :36, :52], specific[..., :36, :52], atol=1e-3, rtol=1e-3)
    assert output.field.abs().max() > 0  # the registration still uses them


@pytest.mark.parametrize("config", [SMALL, replace(AS_IN_THE_PAPER, channels=4)], ids=CONFIGS)
def test_no_parameter_is_idle(config: NetworkConfig) -> None:
    net = network(config).train()
    output = net(blobs(64, 64).expand(2, 1, 64, 64), noise(2, 1, 64, 64))
    scores = sum(stage.scores.square().mean() for stage in output.alignment.stages if stage.scores is not None)
    (output.image.square().mean() + output.field.square().mean() + scores).backward()
    assert [name for name, weight in net.named_parameters() if weight.grad is None] == []
    assert all(torch.isfinite(weight.grad).all() for weight in net.parameters())


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unknown", "choices"),
    [({"common_input": "edges"}, "'edges'; choose 'structure' or 'image'"),
     ({"msrb": "transformer"}, "'transformer'; choose 'unet' or 'pyramid'")],
)  # fmt: skip
def test_unknown_settings_are_refused(unknown: dict, choices: str) -> None:
    with pytest.raises(InputError, match=choices):
        replace(SMALL, **unknown)


@pytest.mark.parametrize(
    "impossible",
    [
        {"windows": (1, 4)},
        {"windows": ()},
        {"windows": (-1,)},
        {"channels": 0},
        {"registration_stride": 0},
        {"registration_side": 0},
        {"msrb_widths": ()},
        {"gathering_widths": (8, 0)},
        {"correlation_radius": -1},
    ],
)
def test_sizes_that_no_network_has_are_refused(impossible: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(impossible))} of NetworkConfig"):
        replace(SMALL, **impossible)


def test_unusable_images_are_refused() -> None:
    net, good = network(), noise(1, 1, 40, 48)
    with pytest.raises(InputError, match="holds no pair"):
        net(good[:0], good[:0])
    broken = good.clone()
    broken[0, 0, 3, 3] = math.nan
    infinite = good.clone()
    infinite[0, 0, 3, 3] = math.inf
    for ir, vi, message in (
        (good, noise(1, 1, 40, 49), r"\(1, 1, 40, 48\) and visible \(1, 1, 40, 49\) differ in size; resize"),
        (noise(1, 3, 40, 48), good, "^Infrared has 3 channels; give one, .* its luma"),
        (good, noise(1, 3, 40, 48), "^Visible has 3 channels; give one"),
        (noise(1, 3, 40, 48), noise(1, 3, 40, 49), "^Infrared has 3 channels; give one"),
        (good, noise(2, 1, 40, 48), "^1 infrared and 2 visible images make no pairs; give as many of both"),
        (good[0], good[0], r"^Infrared must be \(B, 1, H, W\), not \(1, 40, 48\)"),
        (good, good[0], r"^Visible must be \(B, 1, H, W\), not \(1, 40, 48\)"),
        (good[..., :31, :], good[..., :31, :], "31 x 48 are too small; each side needs 32"),
        (good[..., :20], good[..., :20], "40 x 20 are too small"),
        (broken, good, "NaN or infinity; replace those pixels"),
        (good, infinite, "NaN or infinity; replace those pixels"),
        (255 * good, good, r"^Infrared has values from \S+ to 25\d; scale it to \[0, 1\]"),
        (good, 2 * good - 1, r"^Visible has values from -\S+ to \S+; scale it to \[0, 1\]"),
    ):
        with pytest.raises(InputError, match=message):
            net(ir, vi)


def test_weights_of_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    settings = asdict(NetworkConfig()) | {"a_setting_of_tomorrow": 1}
    save_weights(path, FusionNetwork(NetworkConfig()).state_dict(), {"network": settings}, Key())
    with pytest.raises(InputError, match="has settings of another version of fusionlib: use that version"):
        FusionNetwork.load(path)


# --- the parts --------------------------------------------------------------------------------------------------------


def test_the_enhancement_is_that_of_equations_3_and_4() -> None:
    torch.manual_seed(0)
    block, feature = CSEB(6).eval(), noise(2, 6, 20, 24)
    assert sum(isinstance(module, nn.Conv2d) for module in block.modules()) == 6
    enhanced = block.spatial(feature) * feature
    weights = block.channel(enhanced).mean(dim=(2, 3))
    assert weights.shape == (2, 6) and weights.abs().min() > 0
    torch.testing.assert_close(block(feature), torch.einsum("bc,bchw->bchw", weights, enhanced))


def test_features_keep_unit_variance_however_small_the_weights() -> None:
    torch.manual_seed(0)
    layers = extractor(1, 8, 3).train()
    images = torch.cat([blobs(64, 64, seed=seed) for seed in range(4)])
    last_norm = [module for module in layers.modules() if isinstance(module, nn.BatchNorm2d)][-1]
    seen = []
    last_norm.register_forward_hook(lambda _, __, output: seen.append(output.detach()))
    before = layers(images)
    with torch.no_grad():  # what l_c would do to them, could it
        for weight in layers.parameters():
            weight.mul_(0.5)
    after = layers(images)
    for normalised in seen:
        assert len(seen) == 2 and normalised.mean(dim=(0, 2, 3)).abs().max() < 1e-4
        torch.testing.assert_close(normalised.var(dim=(0, 2, 3), unbiased=False), torch.ones(8), atol=0.05, rtol=0)
    assert (before - after).abs().mean() < 0.02 * before.abs().mean()
    # After LeakyReLU, two maps of unit variance that have nothing in common are well apart and never far.
    assert 0.3 < (before[0] - before[1]).abs().mean() < 2


def test_a_window_averages_what_lies_inside() -> None:
    x = noise(2, 3, 5, 6)
    assert torch.equal(window_mean(x, 1), x)
    mean = window_mean(x, 3)
    torch.testing.assert_close(mean[..., 0, 0], x[..., :2, :2].mean((-1, -2)))
    torch.testing.assert_close(mean[..., 2, 5], x[..., 1:4, 4:].mean((-1, -2)))
    torch.testing.assert_close(window_mean(x, 11), x.mean((-1, -2), keepdim=True).expand_as(x))


def test_positions_without_confidence_leave_the_word_to_their_neighbours() -> None:
    torch.manual_seed(0)
    compare = CostVolume(2, radius=1, windows=(1, 3)).eval()
    fixed = torch.zeros(1, 2, 5, 5)
    fixed[:, 0], fixed[:, 0, 2, 2], fixed[:, 1, 2, 2] = 1, 0, 1  # one position differs from all others
    with torch.no_grad():
        compare.confidence.weight.zero_()[:, 3] = -100.0  # and of it nothing is believed
        compare.confidence.bias.fill_(10.0)
        narrow, wide = compare(fixed, fixed)[0]
    assert narrow[:, 2, 2].abs().max() < 1e-3 and narrow[4, 0, 0] == pytest.approx(10, rel=1e-3)
    assert wide[4, 2, 2] == pytest.approx(20 * 8 / 9, rel=1e-3)


def slow_correlation(moving: Tensor, fixed: Tensor, radius: int) -> Tensor:
    """Cosine similarity by definition: for each position and shift one dot product."""
    batch, _, height, width = fixed.shape
    scores = torch.zeros(batch, (2 * radius + 1) ** 2, height, width, dtype=fixed.dtype)
    for y in range(height):
        for x in range(width):
            shifts = [(dy, dx) for dy in range(-radius, radius + 1) for dx in range(-radius, radius + 1)]
            for k, (dy, dx) in enumerate(shifts):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    there, here = moving[:, :, y + dy, x + dx], fixed[:, :, y, x]
                    scores[:, k, y, x] = torch.cosine_similarity(there, here, dim=1)
    return scores


@pytest.mark.parametrize("radius", [1, 2])
def test_local_correlation_is_the_cosine_at_every_shift(radius: int) -> None:
    moving, fixed = noise(2, 3, 6, 7) - 0.5, noise(2, 3, 6, 7, seed=1) - 0.5
    torch.testing.assert_close(local_correlation(moving, fixed, radius), slow_correlation(moving, fixed, radius))


def test_the_hand_written_gradient_of_the_correlation_is_right() -> None:
    moving, fixed = ((noise(1, 2, 3, 4, seed=seed) - 0.5).double().requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(lambda a, b: local_correlation(a, b, 2), (moving, fixed))


def test_the_best_shift_is_the_field_that_aligns() -> None:
    fixed = noise(1, 16, 24, 28) - 0.5
    truth = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 24, 28)
    moving = torch.roll(fixed, shifts=(-1, 2), dims=(2, 3))  # what belongs to p lies at p + (2, -1)
    pointed = soft_argmax(300 * local_correlation(moving, fixed, 3), 3)
    inner = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(pointed[inner], truth[inner], atol=1e-3, rtol=0)
    torch.testing.assert_close(warp(moving, pointed)[inner], fixed[inner], atol=1e-2, rtol=0)
    equal = soft_argmax(torch.zeros(1, 49, 5, 5), 3)
    assert equal.shape == (1, 2, 5, 5) and equal.abs().max() < 1e-6


def test_structure_ignores_polarity_and_nearly_ignores_gain() -> None:
    image = blobs(96, 96)
    structure = local_structure(image)
    assert structure.shape == (1, 3, 96, 96) and torch.isfinite(structure).all()
    torch.testing.assert_close(local_structure(1 - image), structure, atol=1e-3, rtol=0)
    faint = local_structure(0.4 + 0.3 * image)
    assert torch.corrcoef(torch.stack([faint.flatten(), structure.flatten()]))[0, 1] > 0.99
    assert 0.7 < faint.abs().mean() / structure.abs().mean() < 1.01
    assert abs(structure[:, 0].mean().item() - 1) < 0.2
    assert local_structure(torch.full((1, 1, 40, 40), 0.5)).abs().max() < 0.02  # nothing where there is nothing


def test_structure_tells_the_direction_of_an_edge() -> None:
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    for degrees in (0, 30, 90, 135):
        angle = math.radians(degrees)
        stripes = 0.5 + 0.4 * torch.sin((x * math.cos(angle) + y * math.sin(angle)) / 2)
        strength, cos, sin = local_structure(stripes[None, None])[0, :, 12:36, 12:36]
        edges = strength > 0.5
        torch.testing.assert_close((cos / strength)[edges].mean().item(), math.cos(2 * angle), atol=0.05, rtol=0)
        # Rows count downwards, as y does in a field; whether the sine does too is no matter, if it does so always.
        torch.testing.assert_close(
            (sin / strength)[edges].mean().abs().item(), abs(math.sin(2 * angle)), atol=0.05, rtol=0
        )


def test_a_resized_field_means_the_same_motion() -> None:
    phi = torch.tensor([3.0, -2.0]).view(1, 2, 1, 1).expand(1, 2, 32, 48)
    assert torch.equal(resize_field(phi, (64, 144))[0, :, 5, 7], torch.tensor([9.0, -4.0]))
    assert resize_field(phi, (32, 48)) is phi
    smooth = torch.cat([blobs(40, 48), blobs(40, 48, seed=1)], 1)
    torch.testing.assert_close(resize_field(resize_field(smooth, (80, 96)), (40, 48)), smooth, atol=0.1, rtol=0)
