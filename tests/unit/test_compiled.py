"""A compiled network computes what the plain one does, and one that cannot be compiled runs as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch

from fusionlib.network import FusionNetwork
from fusionlib.training.compiled import compile_network

pytestmark = pytest.mark.filterwarnings("ignore")  # the compiler warns of its own code


@pytest.fixture(autouse=True)
def compile_anew() -> None:
    torch.compiler.reset()


@pytest.fixture
def network() -> FusionNetwork:
    torch.manual_seed(0)
    return FusionNetwork()


def image_and_gradients(network: FusionNetwork) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ir, vi = torch.rand(2, 2, 1, 64, 64, generator=generator)
    image = network(ir, vi).image
    image.square().mean().backward()
    return [image.detach(), *(weight.grad for weight in network.parameters() if weight.grad is not None)]


def test_it_computes_the_same_and_its_weights_keep_their_names(network: FusionNetwork) -> None:
    compiled = copy.deepcopy(network)
    compile_network(compiled, backend="eager")  # the others begin with what this one does
    assert list(compiled.state_dict()) == list(network.state_dict())
    expected, got = image_and_gradients(network), image_and_gradients(compiled)
    assert len(got) == len(expected) > 50
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_it_runs_as_it_is_where_the_compiler_fails(
    network: FusionNetwork, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        raise RuntimeError("No C++ compiler.\nA long log.")

    monkeypatch.setattr("torch._dynamo.lookup_backend", lambda name: fail)
    network.eval()
    images = torch.rand(2, 1, 1, 32, 32)
    expected = network(*images).image
    compile_network(network)
    assert torch.equal(network(*images).image, expected)
    lines = set(capsys.readouterr().err.splitlines())
    assert lines == {"torch.compile failed, so the network runs uncompiled: No C++ compiler."}
