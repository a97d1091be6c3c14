"""Methods by name: bare networks, chains, options, and the overview of all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import halfway
import pytest
import torch
from safetensors.torch import save_file

from fusionlib import methods
from fusionlib.data import systems
from fusionlib.network import FusionNetwork
from fusionlib.support.files import InputError
from fusionlib.support.weights import key_of, mark_of, read_header, read_state, save_weights


def test_every_name_is_known_once() -> None:
    names = methods.names()
    assert len(names) == len(set(names)) and set(systems.names()) < set(names)
    assert {"ours", "as_in_the_paper", "simpleitk", "infrared", "visible", "average", "maximum", "laplacian"} < set(
        names
    )
    assert [row[0] for row in methods.overview()] == ["name", *names]


@pytest.mark.parametrize("name", ["ours", "as_in_the_paper", "datfuse", "superfusion"])
def test_a_bare_network_by_name(name: str) -> None:
    network = methods.network(name)
    assert isinstance(network, FusionNetwork) == (name not in systems.names())
    torch.manual_seed(0)
    first = methods.network(name).state_dict()
    torch.manual_seed(0)
    assert all(torch.equal(value, first[key]) for key, value in methods.network(name).state_dict().items())


def test_what_has_no_network_is_refused() -> None:
    for name in ("ecc", "average"):
        with pytest.raises(InputError, match=rf"^{name} has no network: choose one of ours, .*ydtr\.$"):
            methods.network(name)
    for function in (methods.network, methods.load, methods.origin):
        with pytest.raises(InputError, match="Unknown method 'magic'; choose one of ours, "):
            function("magic")


@pytest.mark.parametrize("name", ["", "+", "ecc+", "+maximum"])
def test_half_a_chain_is_refused(name: str) -> None:
    for ask in (methods.load, methods.origin):
        with pytest.raises(InputError, match="write one before a \\+ and one after it"):
            ask(name)


def test_a_chain_gives_its_options_to_what_fuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halfway.install(tmp_path, monkeypatch)
    torch.save(methods.network("halfway").state_dict(), tmp_path / "halfway.pth")
    chain = methods.load("ecc+halfway", tmp_path / "halfway.pth", gain=3.0)
    assert chain.name == "ecc+halfway" and chain.fuses.gain == 3


@pytest.mark.parametrize("name", ["ours", "ecc", "average", "ecc+average"])
def test_options_that_nothing_would_use_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="has no options: leave out steps"):
        methods.load(name, steps=3)


def test_options_that_a_system_does_not_have_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    halfway.install(tmp_path, monkeypatch)
    torch.save(methods.network("halfway").state_dict(), tmp_path / "halfway.pth")
    with pytest.raises(InputError, match="halfway has no option stpes: leave it out"):
        methods.load("halfway", tmp_path / "halfway.pth", stpes=0)


@pytest.mark.parametrize("device", ["gpu", "meta"])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    with pytest.raises(InputError, match=f"The device '{device}' cannot be used here: choose cpu"):
        methods.load("ours", device=device)


def test_systems_are_imported_when_they_are_asked_for(root: Path) -> None:
    code = (
        "import sys, fusionlib.methods\nprint([name for name in sys.modules if 'fusionlib.methods.baselines.' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['fusionlib.methods.baselines.murf_checkpoint']"


def test_weights_of_another_network_are_refused_by_name() -> None:
    ours, plain = methods.shipped_weights("ours"), methods.shipped_weights("as_in_the_paper")
    with pytest.raises(InputError, match="holds weights of as_in_the_paper, not of ours: give another file"):
        methods.load("ours", plain)
    with pytest.raises(InputError, match="holds weights of ours, not of as_in_the_paper"):
        methods.load("as_in_the_paper", ours)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    state, header = read_state(methods.shipped_weights("ours")), read_header(methods.shipped_weights("ours"))
    path, first = tmp_path / "own.safetensors", next(iter(state))
    save_file(state | {first: torch.full_like(state[first], torch.nan)}, path, header)
    with pytest.raises(InputError, match=f"holds NaN or infinite numbers in {first}"):
        methods.load("ours", path)
    variance = next(name for name in state if name.endswith("running_var"))
    save_file(state | {variance: -state[variance] - 1}, path, header)
    with pytest.raises(InputError, match=f"holds a negative variance in {variance}"):
        methods.load("ours", path)
    for recipe in ("", "{", "[]", '{"network": []}'):
        save_file(state, path, header | {"recipe": recipe})
        with pytest.raises(InputError, match=r"damaged header|without a network"):
            methods.load("ours", path)


def test_the_same_recipe_with_other_numbers_is_measured_again(tmp_path: Path) -> None:
    shipped = methods.shipped_weights("ours")
    other, state = tmp_path / "ours.safetensors", read_state(shipped)
    recipe = json.loads(read_header(shipped)["recipe"])
    save_weights(other, state, recipe, key_of(shipped))
    assert mark_of(other) == mark_of(shipped)
    name = next(iter(state))
    save_weights(other, state | {name: state[name] + 1e-6}, recipe, key_of(shipped))  # as another machine rounds
    assert key_of(other) == key_of(shipped) and mark_of(other) != mark_of(shipped)
    assert methods.origin("ours", tmp_path).key.differing(methods.origin("ours").key) == ["ours:weights"]


def test_the_random_numbers_of_who_loads_weights_go_on_as_they_were() -> None:
    before = torch.get_rng_state()
    methods.load("ours_robust")
    assert torch.equal(torch.get_rng_state(), before)
