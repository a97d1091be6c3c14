"""Weights of compared systems: found in the right order, verified, loaded strictly, and said where they come from."""

from __future__ import annotations

from hashlib import sha1, sha256
from pathlib import Path

import halfway
import pytest
import torch
from torch import nn

from fusionlib import methods
from fusionlib.data import systems
from fusionlib.methods import checkpoints
from fusionlib.support.behaviour import record
from fusionlib.support.files import InputError, git_blob
from fusionlib.support.keys import Key
from fusionlib.support.weights import save_weights


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The network of Halfway, without any weights on disk, and with empty places to look for them."""
    halfway.install(tmp_path, monkeypatch)
    monkeypatch.setenv("FUSIONLIB_DATA", str(tmp_path / "root" / "data"))
    monkeypatch.delenv("FUSIONLIB_WEIGHTS", raising=False)
    monkeypatch.setattr(checkpoints, "ROOT", tmp_path / "checkout")
    torch.manual_seed(0)
    return methods.network("halfway")


def publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: dict, part: str = ""
) -> tuple[systems.System, bytes]:
    """Record a state_dict as the published weights of a part; nothing is put where it is looked for."""
    torch.save(state, tmp_path / "upstream.pth")
    content = (tmp_path / "upstream.pth").read_bytes()
    facts = {"sha256": sha256(content).hexdigest(), "bytes": len(content), "url": "https://example.org/a.pth"}
    changes = {"published": {part: "a.pth"}, "files": {"a.pth": facts}} | ({"partial": {"gain": 0.5}} if part else {})
    return halfway.install(tmp_path, monkeypatch, **changes), content


def put(folder: Path, content: bytes) -> Path:
    (folder / "halfway").mkdir(parents=True, exist_ok=True)
    (folder / "halfway" / "a.pth").write_bytes(content)
    return folder / "halfway" / "a.pth"


def retrain(path: Path, state: dict, mark: str = "made here", published: tuple[str, ...] = ()) -> Path:
    save_weights(path, state, {"published": published}, Key({"settings": mark.replace(" ", "-")}))
    return path


def constant(network: nn.Module, value: float) -> dict[str, torch.Tensor]:
    return {key: torch.full_like(tensor, value) for key, tensor in network.state_dict().items()}


def loaded(name: str = "halfway", weights: Path | None = None) -> float:
    """The bias by which the tests tell one set of weights from another."""
    return methods.load(name, weights).network.last.bias.item()


def test_without_weights_the_way_to_make_them_is_told(network: nn.Module) -> None:
    with pytest.raises(
        InputError, match=r"^There are no weights of Halfway, .* `python -m fusionlib retrain halfway --"
    ):
        methods.load("halfway")
    assert ("halfway", "fuses", "retrain halfway") in [row[:3] for row in methods.overview()]


def test_published_weights_are_looked_for_in_three_places(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, content = publish(tmp_path, monkeypatch, constant(network, 1))
    with pytest.raises(
        InputError, match=r"weights of Halfway are not here: run `python -m fusionlib data fetch halfway`"
    ):
        methods.load("halfway")
    assert ("halfway", "fuses", "data fetch halfway") in [row[:3] for row in methods.overview()]
    monkeypatch.setenv("FUSIONLIB_WEIGHTS", str(tmp_path / "named"))
    for folder in (tmp_path / "root" / "weights", tmp_path / "named", tmp_path / "root" / "data" / "weights"):
        path = put(folder, content)  # each later one goes before those that are there already
        assert checkpoints.find(system).files == {"": path}
    assert loaded() == 1 and methods.origin("halfway").weights == "published"


def test_a_published_file_that_was_altered_is_refused(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, content = publish(tmp_path, monkeypatch, constant(network, 1))
    put(tmp_path / "root" / "weights", content + b"!")
    with pytest.raises(InputError, match=r"a\.pth is not the published file: remove it and run"):
        methods.load("halfway")


def test_retrained_weights_of_the_largest_preset_are_taken(network: nn.Module, tmp_path: Path) -> None:
    for preset, value in (("smoke", 1.0), ("mini", 2.0), ("paper", 3.0)):
        retrain(
            tmp_path / "checkout" / "results" / preset / "weights" / "halfway.safetensors", constant(network, value)
        )
        if preset == "smoke":
            with pytest.raises(InputError, match="There are no weights of Halfway"):
                methods.load("halfway")
        else:
            assert loaded() == value and methods.origin("halfway").weights == "retrained"


def test_a_folder_goes_first_and_a_file_alone(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, content = publish(tmp_path, monkeypatch, constant(network, 1))
    put(tmp_path / "root" / "weights", content)
    folder = tmp_path / "mine"
    folder.mkdir()
    assert loaded(weights=folder) == 1
    retrain(folder / "halfway.safetensors", constant(network, 2))
    assert loaded(weights=folder) == 2 and loaded("identity+halfway".partition("+")[2], folder) == 2
    other = folder / "other.pth"
    torch.save(constant(network, 3), other)
    assert loaded(weights=other) == 3 and methods.origin("halfway", other).weights == "given"
    with pytest.raises(InputError, match=r"no weights at .*nowhere\.pth: give a file that is there"):
        methods.load("halfway", folder / "nowhere.pth")


def test_parts_are_put_together(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mix = {key.removeprefix("mix."): value for key, value in constant(network, 1).items() if key.startswith("mix.")}
    _, content = publish(tmp_path, monkeypatch, mix, part="mix")
    put(tmp_path / "root" / "weights", content)
    alone = methods.load("halfway")
    assert methods.origin("halfway").weights == "published in part" and alone.gain == 0.5
    assert (alone.network.mix.weight == 1).all() and not (alone.network.last.weight == 2).any()
    assert methods.load("halfway", gain=2.0).gain == 2

    last = {key: value for key, value in constant(network, 2).items() if key.startswith("last.")}
    path = retrain(tmp_path / "halfway.safetensors", last, published=("mix",))
    both = methods.load("halfway", path)
    assert methods.origin("halfway", path).weights == "published + retrained" and both.gain == 1
    assert (both.network.mix.weight == 1).all() and (both.network.last.weight == 2).all()


FORMS = {
    "as it is": lambda state: state,
    "trained on several GPUs": lambda state: {f"module.{key}": value for key, value in state.items()},
    "parts beside optimisers": lambda state: {
        "mix": {"module.weight": state["mix.weight"], "module.bias": state["mix.bias"]},
        "last": {"weight": state["last.weight"], "bias": state["last.bias"]},
        "mix_opt": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "epoch": 3,
    },
    "with what the network does not know": lambda state: state | {"grid": torch.ones(2, 2)},
}


@pytest.mark.parametrize("form", FORMS)
def test_untried_weights_are_used_where_they_are(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    torch.save(FORMS[form](constant(network, 1)), tmp_path / "upstream.pth")
    content = (tmp_path / "upstream.pth").read_bytes()
    blob = sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    facts = {"git_blob": blob, "url": "https://example.org/a.pth"}
    system = halfway.install(tmp_path, monkeypatch, untried={"": "a.pth"}, files={"a.pth": facts})
    retrain(tmp_path / "checkout" / "results" / "mini" / "weights" / "halfway.safetensors", constant(network, 2))
    assert loaded() == 2 and methods.origin("halfway").weights == "retrained"
    path = put(tmp_path / "root" / "weights", content)
    assert loaded() == 1 and methods.origin("halfway").weights == "published"
    assert loaded(weights=tmp_path / "checkout" / "results" / "mini" / "weights") == 1
    assert checkpoints.find(system).files == {"": path}
    path.write_bytes(content + b"!")
    with pytest.raises(InputError, match=r"a\.pth is not the published file: remove it and run"):
        methods.load("halfway")


def test_untried_weights_of_another_network_are_refused(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "root" / "weights", b"")
    torch.save({"mix.weight": network.state_dict()["mix.weight"]}, path)
    facts = {"git_blob": git_blob(path), "url": "https://example.org/a.pth"}
    halfway.install(tmp_path, monkeypatch, untried={"": "a.pth"}, files={"a.pth": facts})
    with pytest.raises(InputError, match=r"holds no weights of Halfway \(.*\): fetch or make them again\.$"):
        methods.load("halfway")


def test_weights_of_another_network_are_refused(network: nn.Module, tmp_path: Path) -> None:
    state = constant(network, 1)
    for wrong in (
        state | {"more": torch.ones(1)},
        {"mix.weight": state["mix.weight"]},
        state | {"last.bias": torch.ones(3)},
    ):
        with pytest.raises(InputError, match=r"holds no weights of Halfway \(.*\): fetch or make them again\.$"):
            methods.load("halfway", retrain(tmp_path / "halfway.safetensors", wrong))
    broken = tmp_path / "broken.pth"
    for content in (b"no pickle", b"", b"export NAME=1\n"):
        broken.write_bytes(content)
        with pytest.raises(InputError, match=r"broken\.pth is not a readable file of weights .*: fetch it again"):
            methods.load("halfway", broken)


def test_a_pickle_that_would_run_code_is_refused(network: nn.Module, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "was run",)

    torch.save({"mix.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="not a readable file of weights"):
        methods.load("halfway", tmp_path / "evil.pth")
    assert not (tmp_path / "was run").exists()


def test_the_key_tells_weights_code_and_options_apart(
    network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = retrain(tmp_path / "a" / "halfway.safetensors", constant(network, 1), "one")
    b = retrain(tmp_path / "b" / "halfway.safetensors", constant(network, 1), "other")
    keys = [methods.origin("halfway", path).key for path in (a, b)]
    keys += [methods.origin("halfway", a, gain=2).key, methods.origin("identity+halfway", a).key]
    keys += [methods.origin("average").key, methods.origin("ecc").key]
    monkeypatch.setattr(record, "versions", lambda names: dict.fromkeys(names, "2"))
    keys += [methods.origin("halfway", a).key, methods.origin("average").key]
    assert len(set(map(str, keys))) == len(keys)
    assert methods.origin("halfway", a.parent) == methods.origin("halfway", a)
    assert (
        methods.origin("identity+halfway", a.parent).weights == "retrained" and methods.origin("average").weights == ""
    )


@pytest.mark.parametrize("name", [name for name in systems.names() if systems.system(name).published])
def test_the_published_weights_at_hand_load_strictly(name: str) -> None:
    system = systems.system(name)
    try:
        source = checkpoints.published(system)
    except InputError:
        pytest.skip("the published weights are not here")
    network = checkpoints.fill(systems.imported(system.network)(), system, source)
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
