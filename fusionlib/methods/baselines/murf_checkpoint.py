"""The published weights of MURF, from TensorFlow's checkpoint files, without TensorFlow.

A checkpoint is a pair of files. NAME.data-00000-of-00001 holds the numbers of all tensors one after another, and
NAME.index says where each begins: a table in LevelDB's format, sorted by tensor name, of protocol buffers.

Convention: a convolution kernel is (height, width, inputs, outputs) there and (outputs, inputs, height, width) here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fusionlib.support.files import InputError

FOOTER = 48  # bytes: the places of two blocks, then MAGIC
MAGIC = bytes.fromhex("57fb808b247547db")
FLOAT = 1  # TensorFlow's number for float32
_BATCH_NORMS = (1, 3, 5, 6, 7, 8, 10)  # the layers of F2M that have one, in order
_DENSE = ("avg1", "avg2", "max1", "max2")
# From the names in a checkpoint to those of SIEM, MCRM and F2M; every rule is applied, from the first to the last.
_RENAMED = (
    (r"^des_extract/(RGB|IR)_Encoder/", lambda m: m[1].lower() + "."),
    (r"^affine_net(_d\d)?/", lambda m: (m[1] or "_d1")[1:] + "."),
    (r"^f2m_net/conv1_offset/offset_conv/", "offset."),
    (r"^f2m_net/", ""),
    (r"uplayer(\d)/Conv/(weight|bias)e?s$", r"up\1.\2"),
    (r"layer\d/conv(\d)_offset/offset_conv/conv/conv2d/", r"offset\1/"),
    (r"layer\d/conv(\d)_offset/weight_conv/conv/conv2d/", r"gate\1/"),
    (r"layer\d/offset_b(\d)$", r"post\1.bias"),
    (r"layer(\d)/w\d$", r"conv\1.weight"),
    (r"layer(\d)/b\d$", r"conv\1.bias"),
    (r"fcn1/dense/", "fc/"),
    (r"BatchNorm(_\d)?/", lambda m: f"bn{_BATCH_NORMS[int((m[1] or '_0')[1:])]}/"),
    (r"^dense(_\d)?/", lambda m: f"ca.{_DENSE[int((m[1] or '_0')[1:])]}/"),
    (r"^w_?([abf]\d)$", r"\1.weight"),
    (r"^b_?([abf]\d)$", r"\1.bias"),
    (r"(/conv2d)?/(kernel|scale)$", ".weight"),
    (r"(/conv2d)?/(bias|beta|offset)$", ".bias"),
    (r"/moving_mean$", ".running_mean"),
    (r"/moving_variance$", ".running_var"),
)


def load_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a MURF checkpoint under the names and in the layout that SIEM, MCRM and F2M have here.

    Args:
        path: of the checkpoint without .index and .data-00000-of-00001, such as models/finetuning/0000.ckpt. Those of
            MCRM hold SIEM too; take what begins with d4, d2 and d1.

    Raises:
        InputError: a file is missing, or is not what it should be.
    """
    state = {}
    for name, tensor in read_checkpoint(path).items():
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(tensor.ndim, tuple(range(tensor.ndim)))
        state[torch_name(name)] = torch.from_numpy(tensor.transpose(axes).copy())
    return state


def torch_name(name: str) -> str:
    """The name here of a tensor of a checkpoint."""
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def read_checkpoint(path: Path | str) -> dict[str, np.ndarray]:
    """All tensors of a checkpoint, named and laid out as TensorFlow does; arguments and errors as `load_checkpoint`."""
    index, data = Path(f"{path}.index"), Path(f"{path}.data-00000-of-00001")
    for file in (index, data):
        if not file.exists():
            raise InputError(f"{file} does not exist: a checkpoint is an .index and a .data file, fetch both.")
    table, numbers = index.read_bytes(), data.read_bytes()
    if table[-len(MAGIC) :] != MAGIC:
        raise InputError(f"{index} is not the index of a TensorFlow checkpoint: fetch it again.")
    tensors = {}
    (_, _, *root), _ = _varints(table, len(table) - FOOTER, 4)
    for _, place in _block(table, *root):
        block, _ = _varints(place, 0, 2)
        for name, entry in _block(table, *block):
            if not name:  # the header
                continue
            fields = dict(_fields(entry))
            shape = [dict(_fields(size)).get(1, 0) for number, size in _fields(fields.get(2, b"")) if number == 2]
            start, size = fields.get(4, 0), fields.get(5, 0)
            if fields.get(1) != FLOAT or start + size > len(numbers):
                raise InputError(f"{data} does not hold what {index.name} says: fetch both again.")
            tensors[name.decode()] = np.frombuffer(numbers, "<f4", size // 4, start).reshape(shape)
    return tensors


def _block(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of an uncompressed block; a key is stored as what differs from the one before it."""
    restarts = int.from_bytes(table[start + size - 4 : start + size], "little")
    at, end, key = start, start + size - 4 * (restarts + 1), b""
    while at < end:
        (shared, added, length), at = _varints(table, at, 3)
        key = key[:shared] + table[at : at + added]
        yield key, table[at + added : at + added + length]
        at += added + length


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field of a protocol buffer."""
    at = 0
    while at < len(message):
        (tag,), at = _varints(message, at, 1)
        if (kind := tag & 7) == 0:
            (value,), at = _varints(message, at, 1)
        else:
            (length,), at = _varints(message, at, 1) if kind == 2 else ((4 if kind == 5 else 8,), at)
            value, at = message[at : at + length], at + length
        yield tag >> 3, value


def _varints(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    """So many integers of seven bits a byte, the last byte of each under 128, and where the next thing begins."""
    values = []
    for _ in range(count):
        value = shift = 0
        while True:
            byte = data[at]
            value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
            if byte < 128:
                break
        values.append(value)
    return values, at
