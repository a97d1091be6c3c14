"""Ours as one ONNX file, which fuses images of any size without this library and without torch.

The network is traced with sizes as symbols. What a size decides, the padding, the side at which the pair is registered
and the width of the Gaussians, is computed in the file. The file is checked against torch before it is kept.

Convention: inputs `ir` and `vi`, float32 (B, 1, H, W) in [0, 1], each side of 32 pixels or more; outputs `image` and
`registered_ir`, likewise, `field`, (B, 2, H, W) in pixels as in `fusionlib.deformation`, and where the method has it
`confidence`, (B, 1, H, W) in [0, 1]. The file checks nothing: NaN, values beyond [0, 1] and smaller images
give meaningless results.
"""

from __future__ import annotations

import logging
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fusionlib import methods
from fusionlib.data.drawn.synthetic import scene
from fusionlib.deformation import misalign_by_key, warp
from fusionlib.methods.fast import fast
from fusionlib.methods.fast_layers import QuickCostVolume, folded
from fusionlib.methods.fuse import CONVENTION
from fusionlib.methods.registry import NETWORKS
from fusionlib.network import FusionNetwork
from fusionlib.support.files import InputError, atomic, check_writable, printable

if TYPE_CHECKING:
    import onnx

LOGGER = logging.getLogger(__name__)
NAMES = [name for name, config in NETWORKS.items() if config.msrb == "pyramid"]
SIZES = ((32, 32), (61, 83), (256, 256), (333, 500), (512, 640))  # at which a file is compared with torch
TOLERANCES = {"image": 1e-3, "field": 0.01, "registered_ir": 1e-3, "confidence": 1e-2}  # the field's in pixels
TIMED, RUNS = 512, 5  # side of the pair that is timed, and how often


def export(method: str, out: Path | str, weights: Path | str | None = None) -> Path:
    """Write a method as an ONNX file, check it, and say how far it is from torch and how long it takes.

    Args:
        method: one of `NAMES`.
        out: the file, .onnx; it is written only if the check succeeds.
        weights: as for `methods.load`.

    Returns:
        The file.

    Raises:
        InputError: another method, no weights, another suffix, the extra `onnx` is not installed, or the file differs
            from torch by more than `TOLERANCES`.
    """
    out = Path(out)
    if method not in NAMES:
        raise InputError(f"{method!r} cannot be exported: choose one of {', '.join(NAMES)}.")
    if out.suffix.lower() != ".onnx" or out.is_dir():
        raise InputError(f"{out} cannot be written: give the name of a file that ends in .onnx.")
    check_writable(out.parent)
    try:
        import onnx
        import onnxscript  # noqa: F401

        _runtime()
    except ModuleNotFoundError as error:
        how = "pip install -c constraints.txt -e '.[onnx]'"
        raise InputError(f"The package {error.name} is missing: run `{how}` in the checkout.") from None
    methods.check_weights(method, weights)
    ours = methods.load(method, weights)
    LOGGER.info(f"{method}: tracing and converting, a few minutes")
    model = converted(ours.network)
    facts = {
        "title": f"{method}: target-aware unregistered infrared and visible image fusion",
        "paper": "Hu et al., Frontiers in Physics 13:1599968, 2025, https://doi.org/10.3389/fphy.2025.1599968",
        "inputs": "ir, vi: float32 (B, 1, H, W) in [0, 1], each side of 32 pixels or more; vi is the BT.601 luma",
        "field": CONVENTION,
        "method": method,
        "weights": str(methods.origin(method, weights).key),
        "licence": "AGPL-3.0-or-later",
    }
    onnx.helper.set_model_props(model, facts)
    with atomic(out) as part:
        onnx.save(model, part)
        worst = differences(part, ours)
        too_large = [f"{key} by {value:.2g}" for key, value in worst.items() if not value <= TOLERANCES[key]]
        if too_large:
            raise InputError(f"{out} was not kept, since it differs from torch in {' and '.join(too_large)}.")
        size, own, theirs = part.stat().st_size / 1e6, *seconds(part, fast(ours))
    listed = ", ".join(f"{key} {value:.1g}" for key, value in worst.items())
    LOGGER.info(f"largest differences from torch at {len(SIZES)} sizes: {listed}; the field's in pixels")
    LOGGER.info(f"{TIMED}x{TIMED}: {own:.2f} s in onnxruntime, {theirs:.2f} s in torch, as `fuse` does it")
    LOGGER.info(f"wrote {printable(out)}, {size:.1f} MB")
    return out


def _runtime() -> ModuleType:
    """onnxruntime, without its telemetry, which keeps an identifier of the user in the home folder."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def session(path: Path | str) -> Callable[..., dict[str, np.ndarray]]:
    """A file as a function of `ir` and `vi`, with as many threads as torch has."""
    runtime = _runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    inference = runtime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in inference.get_outputs()]
    return lambda ir, vi: dict(zip(outputs, inference.run(None, {"ir": ir.numpy(), "vi": vi.numpy()}), strict=True))


def differences(path: Path | str, method: methods.Ours) -> dict[str, float]:
    """Output to its largest difference from torch, over drawn pairs of `SIZES`, the infrared deformed."""
    run, worst = session(path), {}
    for size in SIZES:
        pair = drawn_pair(*size)
        fused, outputs = method.fuse(*pair), run(*pair)
        for key, value in outputs.items():
            difference = np.abs(getattr(fused, key).numpy() - value).max().item()
            worst[key] = max(worst.get(key, 0.0), difference) if np.isfinite(difference) else difference
    return worst


def seconds(path: Path | str, method: methods.Method) -> tuple[float, float]:
    """Median time of a file and of a method for a pair of `TIMED` pixels a side, after a first run each."""
    pair, functions = drawn_pair(TIMED, TIMED), (session(path), method.fuse)
    durations: tuple[list[float], list[float]] = ([], [])
    for _ in range(RUNS + 1):
        for times, fuse in zip(durations, functions, strict=True):
            start = time.perf_counter()
            fuse(*pair)
            times.append(time.perf_counter() - start)
    return statistics.median(durations[0][1:]), statistics.median(durations[1][1:])


def drawn_pair(height: int, width: int, key: str = "export") -> tuple[Tensor, Tensor]:
    """A drawn pair, (1, 1, H, W) each, its infrared deformed."""
    drawn = scene(key, height, width)
    return misalign_by_key(drawn.ir[None], "medium", keys=[key]).ir, drawn.vi[None]


def converted(network: FusionNetwork) -> onnx.ModelProto:
    """A network as an ONNX model of any batch, height and width, without traces of the machine that made it."""
    from onnxscript import INT64, opset18

    traced, sizes = Traceable(network).eval(), dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    outputs = ["image", "field", "registered_ir", "confidence"]
    pair = torch.rand(2, 2, 1, 333, 500)  # sizes at which no branch of the code is a special case
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about future changes of torch
        count = len(traced(*pair[..., :32, :32]))
        program = torch.onnx.export(
            torch.export.export(traced, tuple(pair), dynamic_shapes=(sizes, sizes)),
            input_names=["ir", "vi"],
            output_names=outputs[:count],
            opset_version=18,
            dynamo=True,
            optimize=False,  # its folding takes sizes for constants; onnxruntime optimises what it loads
            verbose=False,
            custom_translation_table={  # of numbers that are sizes, not tensors
                torch.sym_sqrt: lambda x: opset18.Sqrt(x),
                round: lambda x, digits=None: opset18.Cast(opset18.Round(x), to=INT64.dtype),
            },
        )
    model = program.model_proto
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        node.ClearField("metadata_props")  # stacks, with paths
        node.ClearField("doc_string")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("value_info")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
        for dim, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[dim].dim_param = name
    return model


class Traceable(nn.Module):
    """A network without what a tracer of symbolic sizes cannot follow: checks of values, and branches by size.

    Args:
        network: with a pyramid MSRB; it is copied.
    """

    def __init__(self, network: FusionNetwork) -> None:
        super().__init__()
        self.network = folded(network)
        volumes = self.network.msrb.comparison
        self.network.msrb.comparison = nn.ModuleList(GatheredCostVolume(each.comparison) for each in volumes)

    def forward(self, ir: Tensor, vi: Tensor) -> tuple[Tensor, ...]:
        """Image, field, registered infrared, and confidence if there is one; shapes as at the top of this module."""
        for dim in (0, 2, 3):
            torch._check(ir.shape[dim] == vi.shape[dim])
        (height, width), multiple = ir.shape[-2:], self.network.multiple
        padded = [torch.arange((n + multiple - 1) // multiple * multiple).clamp(max=n - 1) for n in (height, width)]
        output = self.network.padded_forward(_part(ir, *padded), _part(vi, *padded))
        inside = torch.arange(height), torch.arange(width)
        image, field = _part(output.image, *inside), _part(output.field, *inside)
        confidence = output.alignment.confidence
        registered = warp(ir, field, exact=False)  # onnxruntime samples in float32
        return (
            (image, field, registered) if confidence is None else (image, field, registered, _part(confidence, *inside))
        )


class GatheredCostVolume(QuickCostVolume):
    """A `CostVolume` whose shifts are gathered at once: a graph with a node for each takes minutes to be traced."""

    @staticmethod
    def correlate(moving: Tensor, fixed: Tensor, radius: int) -> Tensor:
        """As `registration.local_correlation`."""
        (height, width), side = fixed.shape[-2:], 2 * radius + 1
        moving, fixed = F.normalize(moving, dim=1), F.normalize(fixed, dim=1)
        steps = torch.tensor([*range(side)]).unsqueeze(1)  # a constant: onnxruntime warns of a fixed arange
        rows, columns = ((steps + torch.arange(n)).flatten() for n in (height, width))
        around = _part(F.pad(moving, [radius] * 4), rows, columns).view(-1, fixed.shape[1], side, height, side, width)
        return (around * fixed[:, :, None, :, None]).sum(1).transpose(2, 3).flatten(1, 2)


def _part(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return x.index_select(2, rows).index_select(3, columns)
