"""What the compared systems are retrained by: every loss teaches every part it should, and is least at the truth."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from golden import pair
from torch import Tensor, nn

from fusionlib.data import systems
from fusionlib.deformation import warp
from fusionlib.methods.baselines import bsafusion_training, crossraft, imf, rmrfus, superfusion
from fusionlib.methods.baselines.crossraft import CrossRAFT
from fusionlib.methods.baselines.superfusion import SuperFusion, pixel_field
from fusionlib.training.batches import Batch

# Parts of a network that a loss leaves as they are: unused by their authors, or learned in another way.
UNTAUGHT = {
    "bsafusion": ("transfer.modal_dis.", "norm_layer1", "classifier.norm.", "_FR5.up1."),
    "datfuse": ("patch_embed.", "relative_position_bias_table"),
    "ivfwsr": ("compress_in.",),
    "matr": ("patch_embed.", "relative_position_bias_table"),
    "murf": ("siem.", "f2m."),
    "superfusion": ("attention_layer",),
    "ydtr": ("patch_embed.", "relative_position_bias_table", "conv64.", "conv.conv", "conv.bn"),
}


def lesson(side: int = 64) -> Batch:
    """Two pairs, the infrared shifted by some pixels."""
    ir, vi = pair(side, side, batch=2)
    phi_gt = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(2, 2, side, side)
    return Batch(ir, vi, warp(ir, -phi_gt), phi_gt)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    net = systems.imported(systems.system(name).network)().train()
    if isinstance(net, CrossRAFT):
        net.iterations = 2
    return net


@pytest.mark.parametrize("name", systems.names())
def test_a_step_reaches_every_part_that_is_taught(name: str) -> None:
    net, system = network(name), systems.system(name)
    loss = systems.imported(system.loss)(net, lesson(28 if name == "ivfwsr" else 64))
    assert loss.ndim == 0 and torch.isfinite(loss)
    loss.backward()
    still = [key for key, weight in net.named_parameters() if weight.grad is None]
    parts = UNTAUGHT.get(name, ())
    assert [key for key in still if not any(part in key for part in parts)] == []
    assert [part for part in parts if not any(part in key for key in still)] == []
    assert all(torch.isfinite(weight.grad).all() for weight in net.parameters() if weight.grad is not None)


class Finding(nn.Module):
    """Stands for a CrossRAFT whose iterations find these flows."""

    def __init__(self, *flows: Tensor) -> None:
        super().__init__()
        self.flows = flows

    def predictions(self, first: Tensor, second: Tensor) -> list[Tensor]:
        return list(self.flows)


def test_crossraft_is_told_the_true_field_and_the_last_iteration_counts_most() -> None:
    given = lesson(16)
    truth, off = given.phi_gt, given.phi_gt + 1
    found = ((truth, truth), (off, truth), (truth, off))
    losses = [crossraft.training_loss(Finding(*flows), given).item() for flows in found]
    assert losses[0] < losses[1] < losses[2]
    assert losses[0] == pytest.approx(1.8 * 0.01**0.4, rel=1e-4)
    assert losses[2] - losses[0] == pytest.approx(2.01**0.4 - 0.01**0.4, rel=1e-4)


def test_superfusion_is_told_the_field_in_pixels() -> None:
    """The displacement that `edge_warp` needs for a shift by whole pixels has Eq. (5) at 0."""
    given, side = lesson(32), 32
    zero = pixel_field(torch.zeros(2, 2, side, side))
    exact = (given.phi_gt - zero) * 2 / side
    torch.testing.assert_close(pixel_field(exact), given.phi_gt, rtol=0, atol=1e-5)

    net = SuperFusion().eval()
    net.DM.levels = lambda a, b, size: [exact] * 3
    net.FN.forward = lambda ir, vi: ir
    without_registration = superfusion.fusion_loss(given.ir, given.ir, given.vi)
    torch.testing.assert_close(superfusion.training_loss(net, given), without_registration, rtol=0, atol=1e-4)


@pytest.mark.parametrize("module", [imf, bsafusion_training, superfusion], ids=lambda module: module.__name__)
def test_a_fusion_loss_is_least_for_what_both_sources_show(module: ModuleType) -> None:
    (ir, vi), fuse = pair(48, 56), module.fusion_loss
    assert fuse(ir, ir, ir) == pytest.approx(0, abs=1e-5)
    assert fuse((ir + vi) / 2, ir, vi) < fuse(1 - (ir + vi) / 2, ir, vi)


def test_imf_takes_rare_grey_levels_for_salient() -> None:
    image = torch.zeros(2, 1, 16, 16)
    image[0, :, 4, 4] = 1
    image[1, :, :8] = 0.5
    found = imf.saliency(image)
    assert found[0, 0, 4, 4] == 1 and found[0].mean() < 0.02
    assert found[1].unique().numel() == 1  # two levels, each as often as the other
    assert imf.saliency(torch.full((1, 1, 8, 8), 0.3)).abs().max() == 0


def test_bsafusion_punishes_bends_not_shifts() -> None:
    shift = torch.ones(1, 2, 16, 16) * 3
    slope = torch.arange(16.0).expand(1, 2, 16, 16)
    assert bsafusion_training.roughness(shift) == 0
    assert bsafusion_training.roughness(slope).item() == pytest.approx(1 / 3)


def test_bsafusion_s_discriminator_is_the_classifier_s_copy() -> None:
    net, given = network("bsafusion"), lesson(32)
    bsafusion_training.training_loss(net, given).backward()
    classifier, copy = net.transfer.classifier.state_dict(), net.transfer.modal_dis.state_dict()
    assert all(torch.equal(value, copy[key]) for key, value in classifier.items())


def test_what_rmrfus_fuses_with_does_not_change_its_autoencoder() -> None:
    """The autoencoder's gradient is the same, whatever comes out of the fusion network."""
    net, given = network("rmrfus"), lesson(32)
    gradients = []
    for gain in (1, 0):
        with torch.no_grad():
            net.fusion.conv5.conv[0].weight.mul_(gain)
        net.zero_grad()
        torch.manual_seed(1)  # of the noise
        rmrfus.training_loss(net, given).backward()
        gradients.append({key: weight.grad.clone() for key, weight in net.named_parameters()})
    teaches = {key: not torch.equal(gradients[0][key], gradients[1][key]) for key in gradients[0]}
    assert any(teaches[key] for key in teaches if key.startswith("fusion."))
    assert [key for key in teaches if teaches[key] and key.startswith("autoencoder.")] == []
