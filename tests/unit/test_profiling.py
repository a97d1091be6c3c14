"""Counts against sums by hand, timing in turns, memory of a process of its own, and tables that are measured once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib import methods, presets
from fusionlib.experiments import cost, profiling
from fusionlib.experiments.profiling import Counts, count
from fusionlib.network import FusionNetwork, NetworkConfig
from fusionlib.support.files import InputError
from fusionlib.support.machine import computing_threads

SMOKE = replace(
    presets.load("smoke").cost, joint=("ours", "superfusion"), chains=(), own_sides=(), growth=(64,), runs=2
)


@pytest.mark.parametrize(
    ("module", "shape", "macs", "thop"),
    [
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 10, 12), 9 * 3 * 8 * 10 * 12 * 2, None),
        (nn.Conv2d(4, 8, 3, groups=4, stride=2, bias=False), (1, 4, 11, 11), 9 * 8 * 5 * 5, None),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (1, 4, 5, 5), 4 * 4 * 6 * 5 * 5, None),
        (nn.Linear(5, 7), (3, 4, 5), 5 * 7 * 12, None),
        (nn.BatchNorm2d(4), (2, 4, 3, 3), 0, 4 * 72),
        (nn.InstanceNorm2d(4), (2, 4, 3, 3), 0, 2 * 72),
        (nn.LayerNorm(6), (2, 6), 0, 4 * 12),
    ],
    ids=["convolution", "in groups, strided", "transposed", "linear", "learned norm", "plain norm", "layer norm"],
)
def test_layers_cost_what_they_cost_by_hand(module: nn.Module, shape: tuple, macs: int, thop: int | None) -> None:
    found = count(module, torch.rand(shape))
    assert found.executed == macs
    if not isinstance(module, nn.ConvTranspose2d):  # there, thop counts the weights behind an output as if all met it
        assert found.thop == (macs if thop is None else thop)


class Attends(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x @ x.transpose(-1, -2), torch.ones(1, 1, 3, 3))


def test_what_has_no_layer_is_seen_by_two_counts_of_three() -> None:
    assert count(Attends(), torch.rand(1, 1, 8, 6)) == Counts(0, 8 * 8 * 6 + 9 * 36, 8 * 8 * 6 + 9 * 36)


class Dead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Conv2d(1, 1, 1, bias=False), nn.Conv2d(1, 1, 1, bias=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.unused(x)
        return {"y": self.used(x)}


def test_what_no_output_needs_is_executed_all_the_same() -> None:
    assert count(Dead(), torch.rand(1, 1, 4, 4)) == Counts(32, 16, 32)


def test_no_hook_stays_behind() -> None:
    layer = nn.Conv2d(1, 1, 1)
    count(layer, torch.rand(1, 1, 4, 4))
    assert not layer._forward_hooks


def test_a_chain_costs_both_its_parts() -> None:
    with torch.no_grad():
        both = profiling.pair(64)
        chain = profiling.fresh("ours+matr")
        parts = [count(profiling.Whole(profiling.fresh(name)), *both) for name in ("ours", "matr")]
        whole = count(profiling.Whole(chain), *both)
    assert whole.executed == sum(part.executed for part in parts)
    own = sum(p.numel() for name in ("ours", "matr") for p in methods.network(name).parameters())
    assert sum(profiling.parameters(chain).values()) == own


def test_counts_of_ours_stay_within_the_paper_s() -> None:
    """At 256 pixels, of which four make 512: the registration does not grow beyond."""
    found = count(profiling.Whole(profiling.fresh("ours")), *profiling.pair(256))
    assert 1e9 < found.executed <= found.thop <= 60.12e9 / 4


def test_images_that_are_reduced_for_the_registration_are_counted_too() -> None:
    """Under tracing sizes are tensors, which no rounding knows."""
    network = FusionNetwork(NetworkConfig(channels=4, registration_side=39))
    found = count(network, *profiling.pair(64, 96))
    assert found.fvcore == pytest.approx(found.executed, rel=0.1)


def test_calls_are_timed_in_turns() -> None:
    order: list[str] = []
    found = profiling.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, runs=4)
    assert order == ["a", "b"] * 5 and {timed.runs for timed in found.values()} == {4}
    assert all(0 <= timed.low <= timed.median <= timed.high for timed in found.values())


def test_what_is_slow_is_timed_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 5))  # every look at the clock is five seconds later
    monkeypatch.setattr(profiling.time, "perf_counter", lambda: float(next(clock)))
    found = profiling.interleaved({"a": lambda: None}, runs=7, patience=4)
    assert found["a"].runs == profiling.PATIENT and found["a"].median == 5


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), computing_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError
    assert torch.get_num_threads() == before


def test_memory_grows_with_the_image_and_failures_are_told() -> None:
    small, large, ours = profiling.peak_memory([("average", 128), ("average", 1024), ("ours", (256, 320))])
    assert 0 <= small < large and large > 4 * 3 * 1024**2 / 2**30 / 2
    assert 4 * 32 * 256 * 320 / 2**30 < ours < 1  # the features of the infrared at least
    with pytest.raises(InputError, match="nobody did not get through 64 pixels"):
        profiling.peak_memory([("nobody", 64)])


def test_times_are_measured_once_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, calls = tmp_path / "times.csv", []

    def timed(given: dict, runs: int) -> dict[str, profiling.Timed]:
        calls.append(list(given))
        return {name: profiling.Timed(1.0, 0.5, 2.0, runs) for name in given}

    monkeypatch.setattr(cost, "interleaved", timed)
    first = cost.times(SMOKE, path)
    pd.testing.assert_frame_equal(cost.times(SMOKE, path), first)
    assert calls == [["ours", "superfusion"]] and first["method"].tolist() == calls[0]
    cost.times(SMOKE, path, again=True)
    assert len(calls) == 2


def test_a_method_with_a_side_of_its_own_is_not_timed_far_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(SMOKE, own_sides=(("superfusion", 60),), timed=((64, 1), (128, 1)))
    monkeypatch.setattr(cost, "interleaved", lambda given, runs: dict.fromkeys(given, profiling.Timed(1, 1, 1, runs)))
    found = cost.times(config, tmp_path / "times.csv")
    assert found.groupby("side")["method"].apply(list).to_dict() == {64: ["ours", "superfusion"], 128: ["ours"]}
    assert config.sides() == {"ours": 64, "superfusion": 60}
