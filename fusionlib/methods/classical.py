"""Classical registration, the baseline of every network: phase correlation, ECC, mutual information with SimpleITK.

Between infrared and visible images brightness has no stable relation, so all of them compare edges: the strength of
`local_structure`. That and every default below were chosen on the 11 validation pairs of RoadScene at 256 px,
one setting for the light, medium and heavy deformations together.

Convention:
    - `register(ir, vi, registration)` takes (B, 1, H, W) float32 in [0, 1] and finds fields (B, 2, H, W) in pixels, as
      in `fusionlib.deformation`: `warp(ir, field)` lies on the visible image.
    - Inside, `moving` (infrared) and `fixed` (visible) are arrays (h, w). The motion maps a point of `fixed` to the
      corresponding point of `moving`; a displacement is motion(p) - p.
    - Pixel centres are integers. Averaging squares of k pixels puts the point p at (p + 0.5) / k - 0.5.
    - A registration that fails gives the identity and is marked in `RegistrationResult.failed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fusionlib.deformation import warp
from fusionlib.methods.protocol import Fused
from fusionlib.methods.simple_fusion import RULES
from fusionlib.support.files import InputError
from fusionlib.support.inputs import check_pair, local_structure
from fusionlib.support.quiet_import import opencv

# cv2 and SimpleITK are imported where they are used: together they take a second, and few callers need them.

SIDE = 256  # images are downsampled to about this shorter side, so that a method behaves alike at every size
LARGEST = 0.1  # part of the shorter side; a larger mean displacement counts as a failure


@dataclass(frozen=True)
class RegistrationResult:
    """The result of a registration.

    Attributes:
        field: (B, 2, H, W) pixels, float32; zero where it failed.
        failed: (B,) bool: it did not converge, or exceeded LARGEST.
    """

    field: Tensor
    failed: Tensor


class Registration(Protocol):
    """A way to register one image to another."""

    def displacement(self, moving: np.ndarray, fixed: np.ndarray, points: np.ndarray) -> np.ndarray | None:
        """Find the motion from `fixed` to `moving`, both (h, w) float32.

        Args:
            moving, fixed: edge maps of about SIDE pixels a side.
            points: (2, H, W), x and y in pixels of `fixed`, equally spaced: the output grid.

        Returns:
            (2, H, W) in pixels of `fixed`, or None if it did not converge.
        """
        ...


def register(ir: Tensor, vi: Tensor, registration: Registration) -> RegistrationResult:
    """Register each infrared image to its visible one; same-sized batches (B, 1, H, W) in [0, 1], on any device.

    Raises:
        InputError: sizes differ, a side is under 32 pixels, more than one channel, or values that are not finite.

    >>> image = torch.rand(1, 1, 64, 96)
    >>> result = register(image, image, REGISTRATIONS["identity"])
    >>> result.field.abs().max().item(), result.failed.tolist()
    (0.0, [False])
    """
    height, width = check_pair(ir, vi, smallest=32)
    step = max(1, round(min(height, width) / SIDE))
    moving, fixed = (
        local_structure(F.avg_pool2d(image.detach().float().cpu(), step))[:, 0].numpy() for image in (ir, vi)
    )
    y, x = ((np.arange(side) + 0.5) / step - 0.5 for side in (height, width))
    points = np.stack(np.meshgrid(x, y))

    fields = torch.zeros(len(ir), 2, height, width)
    failed = torch.ones(len(ir), dtype=torch.bool)
    for i in range(len(ir)):
        displacement = registration.displacement(moving[i], fixed[i], points)
        if displacement is not None and np.hypot(*displacement).mean() * step <= LARGEST * min(height, width):
            fields[i] = torch.from_numpy(displacement * step)
            failed[i] = False
    return RegistrationResult(fields.to(ir.device), failed.to(ir.device))


@dataclass(frozen=True)
class Identity:
    """The identity: no registration."""

    def displacement(self, moving: np.ndarray, fixed: np.ndarray, points: np.ndarray) -> np.ndarray | None:
        return np.zeros_like(points)


@dataclass(frozen=True)
class PhaseCorrelation:
    """One shift for the whole image: the peak of the phase correlation (Kuglin & Hines, 1975) under a Hann window.

    Attributes:
        side: images are first reduced, by a whole factor, to about this many pixels on the shorter side: phase
            correlation gives every frequency the same weight, and the modalities agree best in the low ones.
    """

    side: int = 96

    def displacement(self, moving: np.ndarray, fixed: np.ndarray, points: np.ndarray) -> np.ndarray | None:
        cv2 = opencv()
        factor = max(1, round(min(fixed.shape) / self.side))
        moving, fixed = (_reduced(image - image.mean(), factor) for image in (moving, fixed))
        window = cv2.createHanningWindow(fixed.shape[::-1], cv2.CV_32F)
        shift, response = cv2.phaseCorrelate(fixed, moving, window)
        if not response > 0:  # no peak: OpenCV's centroid is then far off, or NaN
            return None
        return np.broadcast_to(np.reshape(shift, (2, 1, 1)) * factor, points.shape)


@dataclass(frozen=True)
class ECC:
    """A rotation and a shift that maximise the enhanced correlation coefficient (Evangelidis & Psarakis, 2008).

    An affine motion or a homography overfits to edges of one modality only, and has a larger error than this.

    Attributes:
        reductions: the pyramid, from coarse to fine; levels under 32 pixels are left out, but for the last.
        blur: side in pixels of the Gaussian filter, at each level.
        iterations, tolerance: stopping criteria of each level: their number, and the gain of the coefficient.
    """

    reductions: tuple[int, ...] = (8, 4, 2, 1)
    blur: int = 5
    iterations: int = 100
    tolerance: float = 1e-5

    def displacement(self, moving: np.ndarray, fixed: np.ndarray, points: np.ndarray) -> np.ndarray | None:
        cv2 = opencv()
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, self.iterations, self.tolerance)
        motion = np.eye(3)
        for factor in self.reductions:
            if min(fixed.shape) < 32 * factor and factor != self.reductions[-1]:
                continue
            scale = np.array([[1, 0, 0.5 - factor / 2], [0, 1, 0.5 - factor / 2], [0, 0, factor]]) / factor
            start = (scale @ motion @ np.linalg.inv(scale))[:2].astype(np.float32)
            images = [_reduced(image, factor) for image in (fixed, moving)]
            try:
                _, matrix = cv2.findTransformECC(*images, start, cv2.MOTION_EUCLIDEAN, criteria, None, self.blur)
            except cv2.error:  # raised when the images do not correlate
                return None
            motion = np.linalg.inv(scale) @ np.vstack([matrix, [0, 0, 1]]) @ scale
        return np.tensordot(motion[:2, :2], points, 1) + motion[:2, 2].reshape(2, 1, 1) - points


@dataclass(frozen=True)
class MutualInformation:
    """A rotation and a shift that maximise Mattes' mutual information (2003), by SimpleITK; a B-spline on request.

    The B-spline and an affine motion raise the mutual information and lower the accuracy, as measured on the validation
    pairs, so neither is the default. All pixels are used, none drawn at random, and one thread: the result repeats.

    Attributes:
        bins: of the joint histogram, along each axis.
        reductions, blur: the levels from coarse to fine: images reduced by this factor, after a Gaussian of this
            standard deviation in pixels.
        mesh: cells along each axis of a cubic B-spline that is fitted after the rotation and shift; 0 for none.
        spline_reductions, spline_blur: its levels.
        step: length of the first step of the gradient descent, in pixels; it halves when the direction turns.
        iterations: of each level, at most.
    """

    bins: int = 16
    reductions: tuple[int, ...] = (4, 4, 2)
    blur: tuple[float, ...] = (8, 4, 2)
    mesh: int = 0
    spline_reductions: tuple[int, ...] = (4,)
    spline_blur: tuple[float, ...] = (4,)
    step: float = 4.0
    iterations: int = 100

    def displacement(self, moving: np.ndarray, fixed: np.ndarray, points: np.ndarray) -> np.ndarray | None:
        sitk = _simpleitk()
        moving, fixed = (sitk.GetImageFromArray(image) for image in (moving, fixed))
        # SimpleITK's transforms, too, lead from the fixed to the moving image, in pixels as long as spacing is 1.
        rigid = sitk.Euler2DTransform()
        rigid.SetCenter([(side - 1) / 2 for side in fixed.GetSize()])
        motion = [rigid]
        try:
            with _one_thread():
                method = self._method(self.reductions, self.blur)
                method.SetOptimizerScalesFromPhysicalShift()  # one radian moves further than one pixel
                method.SetInitialTransform(rigid, inPlace=True)
                method.Execute(fixed, moving)
                if self.mesh:
                    spline = sitk.BSplineTransformInitializer(fixed, [self.mesh] * 2, order=3)
                    method = self._method(self.spline_reductions, self.spline_blur)
                    method.SetMovingInitialTransform(rigid)
                    method.SetInitialTransform(spline, inPlace=True)
                    method.Execute(fixed, moving)
                    motion.append(spline)  # the last is applied first: rigid(spline(p))
        except RuntimeError:  # such as: the images no longer overlap
            return None
        step = [points[0, 0, 1] - points[0, 0, 0]] * 2
        size = points.shape[:0:-1]
        motion = sitk.CompositeTransform(motion)  # it copies its arguments, so all must be fitted before
        field = sitk.TransformToDisplacementField(motion, sitk.sitkVectorFloat64, size, points[:, 0, 0].tolist(), step)
        return sitk.GetArrayFromImage(field).transpose(2, 0, 1)

    def _method(self, reductions: tuple[int, ...], blur: tuple[float, ...]):
        """The settings that the rigid and the B-spline registration share."""
        sitk = _simpleitk()
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(self.bins)
        method.SetMetricSamplingStrategy(method.NONE)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetShrinkFactorsPerLevel(reductions)
        method.SetSmoothingSigmasPerLevel(blur)
        method.SetOptimizerAsRegularStepGradientDescent(self.step, minStep=1e-3, numberOfIterations=self.iterations)
        return method


@contextmanager
def _one_thread() -> Iterator[None]:
    """SimpleITK with one thread: the order of its sums depends on which thread is done first.

    `SetNumberOfThreads` of a registration does not reach all that it makes for itself; the default does.
    """
    sitk = _simpleitk()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def _simpleitk():
    """The module SimpleITK; InputError where it is not installed."""
    try:
        import SimpleITK
    except ImportError as error:
        advice = "install it with `pip install -c constraints.txt simpleitk`, or choose another method"
        raise InputError(f"SimpleITK cannot be loaded ({error}): {advice}.") from error
    return SimpleITK


def _reduced(image: np.ndarray, factor: int) -> np.ndarray:
    """Means over squares of `factor` pixels; what is left over on the right and below is cut off."""
    height, width = (side // factor for side in image.shape)
    squares = image[: height * factor, : width * factor].reshape(height, factor, width, factor)
    return squares.mean(axis=(1, 3), dtype=np.float32)


REGISTRATIONS: dict[str, Registration] = {
    "identity": Identity(),
    "phase_correlation": PhaseCorrelation(),
    "ecc": ECC(),
    "simpleitk": MutualInformation(),
}


@dataclass(frozen=True)
class Classical:
    """A classical registration, whose result is averaged with the visible image; where it fails, the field is 0."""

    name: str
    by: Registration

    def fuse(self, ir: Tensor, vi: Tensor) -> Fused:
        field = register(ir, vi, self.by).field
        registered = warp(ir, field)
        return Fused(RULES["average"].rule(registered, vi), field, registered)


CLASSICAL = {name: Classical(name, by) for name, by in REGISTRATIONS.items()}
