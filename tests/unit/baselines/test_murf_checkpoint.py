"""TensorFlow checkpoints of MURF: a hand-made one, the published ones, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fusionlib.data import systems
from fusionlib.methods import checkpoints
from fusionlib.methods.baselines.murf import MURF
from fusionlib.methods.baselines.murf_checkpoint import load_checkpoint, read_checkpoint, torch_name
from fusionlib.support.files import InputError, git_blob
from fusionlib.support.paths import weight_file

TENSORS = {
    "f2m_net/bf1": np.arange(3, dtype="<f4"),
    "f2m_net/dense/kernel": np.arange(6, dtype="<f4").reshape(2, 3),
    "f2m_net/w_a1": np.arange(200, 560, dtype="<f4").reshape(3, 4, 5, 6),
}
NAMES = {
    "des_extract/RGB_Encoder/conv1/conv2d/kernel": "rgb.conv1.weight",
    "des_extract/IR_Encoder/uplayer5/Conv/biases": "ir.up5.bias",
    "des_extract/IR_Encoder/in7/offset": "ir.in7.bias",
    "affine_net_d4/layer1/w1": "d4.conv1.weight",
    "affine_net/layer5/b4": "d1.conv5.bias",
    "affine_net_d2/layer3/conv3_offset/offset_conv/conv/conv2d/kernel": "d2.offset3.weight",
    "affine_net/layer2/conv2_offset/weight_conv/conv/conv2d/kernel": "d1.gate2.weight",
    "affine_net/layer2/offset_b2": "d1.post2.bias",
    "affine_net_d4/fcn1/dense/bias": "d4.fc.bias",
    "f2m_net/conv1_offset/offset_conv/conv11/conv2d/bias": "offset.conv11.bias",
    "f2m_net/conv1_offset/offset_conv/BatchNorm/beta": "offset.bn1.bias",
    "f2m_net/conv1_offset/offset_conv/BatchNorm_6/moving_variance": "offset.bn10.running_var",
    "f2m_net/dense_2/kernel": "ca.max1.weight",
    "f2m_net/b_b3": "b3.bias",
    "f2m_net/wf2": "f2.weight",
}


def varint(value: int) -> bytes:
    rest, low = value >> 7, value & 127
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """With shared beginnings of keys, one restart point, and the trailer: no compression, a checksum nobody reads."""
    body, before = b"", b""
    for key, value in entries:
        shared = next((i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), len(before))
        body += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return body + bytes(4) + (1).to_bytes(4, "little")


def write_checkpoint(path: Path, kind: int = 1, tensors: dict[str, np.ndarray] = TENSORS) -> Path:
    data, entries = b"", [(b"", field(1, 1))]
    for name, tensor in tensors.items():
        shape = b"".join(field(2, field(1, side)) for side in tensor.shape)
        place = (field(4, len(data)) if data else b"") + field(5, tensor.nbytes)
        checksum = varint(6 << 3 | 5) + bytes(4)
        entries.append((name.encode(), field(1, kind) + field(2, shape) + place + checksum))
        data += tensor.tobytes()
    first = block(entries)
    index = block([(b"z", varint(0) + varint(len(first)))])
    handles = varint(0) + varint(0) + varint(len(first) + 5) + varint(len(index))
    footer = handles.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    Path(f"{path}.index").write_bytes(first + bytes(5) + index + bytes(5) + footer)
    Path(f"{path}.data-00000-of-00001").write_bytes(data)
    return path


def test_tensors_are_read_under_their_names(tmp_path: Path) -> None:
    tensors = read_checkpoint(write_checkpoint(tmp_path / "0000.ckpt"))
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, TENSORS[name], strict=True)


def test_kernels_are_turned_into_torch_s_layout(tmp_path: Path) -> None:
    state = load_checkpoint(write_checkpoint(tmp_path / "0000.ckpt"))
    assert list(state) == ["f1.bias", "ca.avg1.weight", "a1.weight"]
    assert state["a1.weight"].shape == (6, 5, 3, 4) and state["a1.weight"][5, 4, 2, 1] == 200 + 359 - 60
    assert state["ca.avg1.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("name", NAMES)
def test_names(name: str) -> None:
    assert torch_name(name) == NAMES[name]


def name_in_tensorflow(name: str) -> str:
    """The name there of a tensor of MCRM."""
    level, layer, kind = name.split(".")
    net = {"d4": "affine_net_d4", "d2": "affine_net_d2", "d1": "affine_net"}[level]
    if layer == "fc":
        return f"{net}/fcn1/dense/{'kernel' if kind == 'weight' else 'bias'}"
    what, number = layer[:-1], layer[-1]
    ends = {"conv": f"{kind[0]}{number}", "post": f"offset_b{number}"}
    ends |= {
        each: f"conv{number}_offset/{name}_conv/conv/conv2d/kernel"
        for each, name in (("offset", "offset"), ("gate", "weight"))
    }
    return f"{net}/layer{number}/{ends[what]}"


def test_the_coarse_stage_is_read_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint in the form of MCRM's published one, which holds SIEM's tensors, too, in the place of the file."""
    system, facts = systems.system("murf"), dict(systems.system("murf").files)
    made = {name: torch.randn_like(value) for name, value in MURF().mcrm.state_dict().items()}
    turned = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    tensors = {name_in_tensorflow(n): v.numpy().transpose(turned[v.ndim]).copy() for n, v in made.items()}
    tensors["des_extract/RGB_Encoder/conv1/conv2d/bias"] = np.zeros(3, "<f4")
    path = tmp_path / "murf" / system.untried["mcrm"]
    path.parent.mkdir(parents=True)
    write_checkpoint(path, tensors=dict(sorted(tensors.items())))
    for file in [file for file, known in facts.items() if "git_blob" in known]:
        facts[file] = {"git_blob": git_blob(tmp_path / "murf" / file), "url": ""}
    monkeypatch.setenv("FUSIONLIB_WEIGHTS", str(tmp_path))
    network = checkpoints.fill(MURF(), *_with_this_stage(system, facts))
    torch.testing.assert_close(network.mcrm.state_dict(), made, rtol=0, atol=0)


def _with_this_stage(system: systems.System, facts: dict) -> tuple[systems.System, checkpoints.Source]:
    """The other parts may not be on this machine, so they stay as drawn."""
    alone = replace(system, files=facts, published={})
    return alone, replace(checkpoints.find(alone), kind=checkpoints.IN_PART)


def test_what_is_missing_or_broken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_checkpoint(tmp_path / "0000.ckpt")
    path = write_checkpoint(tmp_path / "0000.ckpt", kind=3)
    with pytest.raises(InputError, match="does not hold"):
        load_checkpoint(path)
    data = Path(f"{write_checkpoint(path)}.data-00000-of-00001")
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(InputError, match="does not hold"):
        load_checkpoint(path)
    Path(f"{path}.index").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(InputError, match="not the index"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("part", "checkpoint", "converted"),
    [
        ("siem", "siem/4200.ckpt", "murf_rgbir_siem.pt"),
        ("f2m", "f2m_finetuning/0000.ckpt", "murf_rgbir_f2m_finetuning.pt"),
    ],
)
def test_published_checkpoints(part: str, checkpoint: str, converted: str) -> None:
    published, expected_file = (weight_file("murf", f"RGB-IR/{name}") for name in (checkpoint, converted))
    if published is None or expected_file is None:
        pytest.skip("the published weights of MURF, or what they are compared with, are not here")
    state = load_checkpoint(published)
    getattr(MURF(), part).load_state_dict(state)
    expected = torch.load(expected_file, weights_only=True)
    torch.testing.assert_close(state, expected, rtol=0, atol=0)
