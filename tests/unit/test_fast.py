"""The fast network gives what the plain one gives, whole or in tiles, which without their overlap would not fit."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fusionlib import methods
from fusionlib.deformation import warp
from fusionlib.experiments import profiling
from fusionlib.methods import fast
from fusionlib.methods.fast import FastNetwork, FastOurs, warp_in_strips
from fusionlib.methods.fast_layers import folded, sample, structure
from fusionlib.network import AS_IN_THE_PAPER, FusionNetwork, NetworkConfig, local_structure
from fusionlib.support.files import InputError

pytestmark = pytest.mark.numeric

SMALL = NetworkConfig(channels=8, msrb_widths=(8, 12), gathering_widths=(12, 12), registration_side=64)
CONFIGS = {
    "pyramid": SMALL,
    "as in the paper": replace(AS_IN_THE_PAPER, channels=6, msrb_widths=(6, 8)),
    "specific features alone": replace(SMALL, common_in_fusion=False),
}


def as_if_trained(config: NetworkConfig, shift: float = 3.0) -> FusionNetwork:
    """A network whose norms have seen something and whose field is not zero, but `shift` pixels and what is found."""
    torch.manual_seed(0)
    network = FusionNetwork(config)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.3, 1.5)
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0, 0.2)
        if isinstance(layer, nn.Conv2d) and layer.out_channels == 2:
            nn.init.normal_(layer.weight, 0, 0.05)
            nn.init.constant_(layer.bias, shift)
    return network.eval()


def pair(height: int, width: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Smooth images with some noise, different for each of a batch."""
    ir, vi = profiling.pair(height, width)
    noise = torch.rand(2, batch, 1, height, width, generator=torch.Generator().manual_seed(1))
    return 0.7 * ir + 0.3 * noise[0], 0.7 * vi + 0.3 * noise[1]


def off(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape and a.dtype == b.dtype
    return (a - b).abs().max().item()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(("size", "batch"), [((64, 64), 2), ((97, 150), 1)])
@torch.no_grad()
def test_output_is_that_of_the_plain_network(config: NetworkConfig, size: tuple, batch: int) -> None:
    network = as_if_trained(config)
    images = pair(*size, batch)
    plain, quick = network(*images), FastNetwork(network)(*images)
    assert plain.field.abs().max() > 1
    assert off(plain.image, quick.image) < 1e-5
    assert off(plain.field, quick.field) < 1e-4
    for name in ("specific_vi", "fused"):
        assert off(getattr(plain, name), getattr(quick, name)) < 1e-3
    for name in ("common_ir", "common_vi"):
        assert off(getattr(plain.alignment, name), getattr(quick.alignment, name)) < 1e-4
    assert [stage.field.shape for stage in plain.alignment.stages] == [
        stage.field.shape for stage in quick.alignment.stages
    ]
    image, field, _ = FastNetwork(network).fuse(*images)
    assert off(plain.image, image) < 1e-5 and off(plain.field, field) < 1e-4


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@torch.no_grad()
def test_tiles_have_no_seams(config: NetworkConfig) -> None:
    """On a size that is a multiple of nothing, with a field that reaches far over the seams."""
    network = FastNetwork(as_if_trained(config, shift=9.0))
    images = pair(211, 307, batch=2)
    image, field, _ = network.fuse(*images)
    assert field.abs().max() > 9
    in_tiles, same_field, _ = network.fuse(*images, tile=64)
    assert off(field, same_field) == 0
    assert off(image, in_tiles) < 1e-5


@pytest.mark.parametrize("overlap", ["HEAD_REACH", "STRUCTURE_REACH"])
@torch.no_grad()
def test_without_overlap_there_would_be_seams(overlap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, images = FastNetwork(as_if_trained(SMALL)), pair(150, 200)
    whole = network.fuse(*images)[0]
    monkeypatch.setattr(fast, overlap, 0)
    assert off(whole, network.fuse(*images, tile=64)[0]) > 5e-4


def test_trained_weights_and_large_images_in_tiles() -> None:
    method = methods.load("ours")
    images = pair(300, 420)
    plain, quick = method.fuse(*images), fast.fast(method).fuse(*images)
    tiled = fast.fast(method).fuse(*images, tile=128)
    for fused in (quick, tiled):  # these weights make more of a rounding error than fresh ones
        assert off(plain.image, fused.image) < 5e-5
        assert off(plain.field, fused.field) < 1e-3
        assert off(plain.registered_ir, fused.registered_ir) < 1e-3


def test_the_trained_network_stays_as_it_is() -> None:
    network = as_if_trained(SMALL).train()
    before = deepcopy(network.state_dict())
    FastNetwork(network)
    assert network.training and all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_no_norm_is_left_and_one_that_stands_alone_is_refused() -> None:
    copy = folded(as_if_trained(SMALL))
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in copy.modules())
    with pytest.raises(InputError, match="cannot be folded"):
        folded(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)))


@pytest.mark.parametrize("flat", [False, True], ids=["noise", "flat"])
def test_structure_is_that_of_the_network(flat: bool) -> None:
    image = torch.full((2, 1, 40, 51), 0.3) if flat else torch.rand(2, 1, 40, 51)
    assert off(structure(image), local_structure(image)) < 2e-5


def test_structure_looks_as_far_as_tiles_assume() -> None:
    image = torch.rand(1, 1, 61, 61)
    changed = image.clone()
    changed[..., 30, 30] += 0.5
    seen = (structure(image) != structure(changed)).any(1)[0].nonzero()
    reach = fast.STRUCTURE_REACH
    assert seen.amin().item() == 30 - reach and seen.amax().item() == 30 + reach


@torch.no_grad()
def test_samples_are_those_of_grid_sample() -> None:
    """Of several images, also where the field leaves them; in double as the exact warp, whole or in strips."""
    image = torch.rand(3, 5, 31, 43)
    phi = 8 * torch.randn(3, 2, 31, 43)
    whole = fast.Box(0, 31, 0, 43)
    found = sample(image.contiguous(memory_format=torch.channels_last), *fast._targets(phi, whole))
    assert off(found, warp(image, phi, exact=False)) < 1e-6
    assert off(warp_in_strips(image, phi, rows=7), warp(image, phi)) < 1e-6


def test_only_ours_is_made_fast() -> None:
    ours, rule = methods.Ours(as_if_trained(SMALL)), methods.load("average")
    assert fast.fast(rule) is rule
    chain = fast.fast(methods.Chain(ours, rule))
    assert isinstance(chain.registers, FastOurs) and chain.fuses is rule and chain.name == "ours+average"
    images = pair(64, 80)
    assert off(chain.fuse(*images).image, methods.Chain(ours, rule).fuse(*images).image) < 1e-4


@pytest.mark.parametrize(
    ("ir", "vi", "tile", "says"),
    [
        (torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 65), 64, "differ in size"),
        (torch.rand(1, 1, 16, 64), torch.rand(1, 1, 16, 64), 64, "too small"),
        (torch.full((1, 1, 64, 64), torch.nan), torch.rand(1, 1, 64, 64), 64, "NaN"),
        (torch.rand(1, 1, 64, 64), torch.rand(1, 1, 64, 64), 16, "Tiles of 16 pixels"),
    ],
)
def test_what_cannot_be_fused_is_told(ir: Tensor, vi: Tensor, tile: int, says: str) -> None:
    with pytest.raises(InputError, match=says):
        FastNetwork(as_if_trained(SMALL)).fuse(ir, vi, tile)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_gives_the_same() -> None:
    network, images = as_if_trained(SMALL), pair(150, 200)
    found = FastOurs(network, device="cuda").fuse(*images).image
    assert off(found, methods.Ours(network, device="cuda").fuse(*images).image) < 1e-3
