"""The ONNX file fuses as torch does, at any size; a file that does not is not kept; refusals are one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor

from fusionlib import fuse, methods
from fusionlib.__main__ import main
from fusionlib.methods import export
from fusionlib.network import FusionNetwork, NetworkConfig
from fusionlib.registration import local_correlation
from fusionlib.support.files import locked
from fusionlib.support.keys import Key
from fusionlib.support.weights import save_weights

PLAIN = NetworkConfig(channels=4, extractor_layers=2, msrb_widths=(8,), gathering_widths=(8, 8), correlation_radius=2)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default method with the shipped weights, exported by the command, once for all processes of a run."""
    own = tmp_path_factory.getbasetemp()
    out = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "export" / "ours.onnx"
    out.parent.mkdir(exist_ok=True)
    with locked(out.parent.parent / "export.lock"):
        if not out.exists():
            assert main(["export", "-o", str(out)]) == 0
            assert [path.name for path in out.parent.iterdir()] == ["ours.onnx"]
    return out


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Weights of a small network without refinement, and the file that they become."""
    path = tmp_path_factory.mktemp("small") / "ours.safetensors"
    torch.manual_seed(0)
    network = FusionNetwork(PLAIN)
    for decoder in network.msrb.decoder:
        torch.nn.init.normal_(decoder.to_field.weight, std=0.5)  # zero before training
    save_weights(path, network.state_dict(), {"network": vars(PLAIN)}, Key.of(["network"]))
    assert main(["export", "ours", "-o", str(path.with_suffix(".onnx")), "--weights", str(path)]) == 0
    return path, path.with_suffix(".onnx")


def same(found: dict[str, np.ndarray], ir: Tensor, vi: Tensor, method: methods.Method) -> None:
    """Assert that the outputs are those of torch, within what a file may differ by."""
    fused = method.fuse(ir, vi)
    for key, value in found.items():
        expected = getattr(fused, key).numpy()
        assert value.dtype == np.float32 and value.shape == expected.shape
        assert np.abs(value - expected).max() <= export.TOLERANCES[key], key


@pytest.mark.numeric
@pytest.mark.parametrize("size", [(32, 32), (33, 250), (220, 220), (240, 240), (257, 256), (400, 300)])
def test_a_file_fuses_as_torch_does_at_sizes_it_was_not_checked_at(exported: Path, size: tuple[int, int]) -> None:
    assert size == (32, 32) or size not in export.SIZES
    pair = export.drawn_pair(*size)
    found = export.session(exported)(*pair)
    assert list(found) == ["image", "field", "registered_ir", "confidence"]
    assert np.abs(found["field"]).max() > 0.1  # something moves
    same(found, *pair, methods.load("ours_robust"))


def test_a_batch_is_fused_pair_by_pair(exported: Path) -> None:
    first, second = export.drawn_pair(61, 83), export.drawn_pair(61, 83, "another")
    run = export.session(exported)
    found = run(*(torch.cat(both) for both in zip(first, second, strict=True)))
    for key, alone in run(*second).items():
        assert len(found[key]) == 2
        assert np.abs(found[key][1:] - alone).max() <= export.TOLERANCES[key]
    assert np.abs(found["image"][0] - found["image"][1]).max() > 0.1


def test_without_evidence_nothing_moves(exported: Path) -> None:
    found = export.session(exported)(torch.full((1, 1, 130, 200), 0.5), export.drawn_pair(130, 200)[1])
    assert not found["field"].any() and not found["confidence"].any()
    assert np.abs(found["registered_ir"] - 0.5).max() < 1e-6


def test_a_file_says_what_it_is_and_not_who_made_it(exported: Path, root: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["licence"] == "AGPL-3.0-or-later" and said["method"] == "ours_robust"
    assert Key.parse(said["weights"]) == methods.origin("ours_robust").key
    for value in model.graph.input:
        assert [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] == [
            "batch", 1, "height", "width",
        ]  # fmt: skip
    assert not any(word in exported.read_bytes() for word in (b"stack_trace", b"site-packages", bytes(root)))


def test_onnxruntime_leaves_nothing_in_the_home_folder(exported: Path, tmp_path: Path) -> None:
    code = "import sys; from fusionlib.methods import export; export.session(sys.argv[1])"
    before = {name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "XDG_"))}
    subprocess.run([sys.executable, "-c", code, str(exported)], check=True, env=before | {"HOME": str(tmp_path)})
    assert not [path for path in tmp_path.rglob("*") if "onnx" in str(path).lower() and path.is_file()]


def test_the_example_needs_no_library_and_does_what_fuse_does(exported: Path, root: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ir, vi = (np.asarray(export.drawn_pair(70, 91)[place][0, 0] * 255) for place in (0, 1))
    rgb = np.clip(vi[..., None] + rng.uniform(-40, 40, 3), 0, 255)
    for name, pixels in {"ir": ir, "vi": rgb}.items():
        Image.fromarray(pixels.round().astype(np.uint8)).save(tmp_path / f"{name}.png")
    blocked = (
        "import sys; sys.modules.update(torch=None, fusionlib=None); import runpy; runpy.run_path(sys.argv.pop(1))"
    )
    example = str(root / "notebooks" / "fuse_with_onnxruntime.py")
    files = [str(tmp_path / name) for name in ("ir.png", "vi.png", "example.png")]
    quiet = os.environ | {"ORT_DISABLE_TELEMETRY": "1"}
    subprocess.run([sys.executable, "-c", blocked, example, str(exported), *files], check=True, env=quiet)
    fuse(files[0], files[1], tmp_path / "fuse.png")
    own, ours = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in ("example.png", "fuse.png"))
    assert own.shape == (70, 91, 3) and np.ptp(own, axis=2).max() > 20  # in colour
    assert np.abs(own - ours).max() <= 1


def test_gathered_shifts_are_those_of_the_network() -> None:
    moving, fixed = torch.rand(2, 2, 5, 7, 9)
    gathered = export.GatheredCostVolume.correlate(moving, fixed, 2)
    torch.testing.assert_close(gathered, local_correlation(moving, fixed, 2))


def test_own_weights_are_exported_and_without_refinement_there_is_no_confidence(small: tuple[Path, Path]) -> None:
    weights, file = small
    pair = export.drawn_pair(45, 77)
    found = export.session(file)(*pair)
    assert list(found) == ["image", "field", "registered_ir"]
    assert np.abs(found["field"]).max() > 0.1
    same(found, *pair, methods.load("ours", weights))


def test_a_file_that_differs_is_not_kept(small: tuple[Path, Path], tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(export, "converted", lambda network: onnx.load(small[1]))
    assert main(["export", "ours", "-o", str(tmp_path / "ours.onnx")]) == 2
    said = capsys.readouterr().err
    assert "ours.onnx was not kept, since it differs from torch in image by " in said and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["as_in_the_paper", "average", "emma", "ours+emma", "no such"])
def test_only_ours_is_exported(name: str, tmp_path: Path, capsys) -> None:
    assert main(["export", name, "-o", str(tmp_path / "out.onnx")]) == 2
    said = capsys.readouterr().err
    assert said == f"fusionlib: error: {name!r} cannot be exported: choose one of {', '.join(export.NAMES)}.\n"


@pytest.mark.parametrize("out", ["out.pt", "out", "folder.onnx"])
def test_the_suffix_is_looked_at_first(out: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert main(["export", "-o", str(tmp_path / out)]) == 2
    assert capsys.readouterr().err.endswith(f"{out} cannot be written: give the name of a file that ends in .onnx.\n")


def test_without_the_extra_the_command_says_how_to_get_it(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main(["export", "-o", str(tmp_path / "out.onnx")]) == 2
    said = capsys.readouterr().err
    assert "The package onnxscript is missing: run `pip install -c constraints.txt -e '.[onnx]'`" in said
    assert said.count("\n") == 1
