"""What stands in the README of a benchmark folder."""

from __future__ import annotations

from collections.abc import Mapping

CONVENTION = (
    "phi (2, H, W) float32, pixels, phi[0] to the right, phi[1] down: aligned(p) = infrared(p + phi(p)), bilinear, "
    "pixel centres at integers, the border repeated beyond the image; valid (H, W) bool, where p + phi(p) is inside"
)
# Each applies the field to `ir`, a float32 array (H, W): the infrared comes back to where the visible image is.
EXAMPLES = {
    "OpenCV": """phi = np.load("fields/CASE.npz")["phi"]
y, x = np.mgrid[: phi.shape[1], : phi.shape[2]].astype(np.float32)
aligned = cv2.remap(ir, x + phi[0], y + phi[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)""",
    "torch": """phi, (h, w) = torch.from_numpy(np.load("fields/CASE.npz")["phi"]), ir.shape
grid = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy")) + phi
grid = grid.movedim(0, -1)[None] * 2 / torch.tensor([w - 1, h - 1]) - 1
aligned = F.grid_sample(torch.from_numpy(ir)[None, None], grid, padding_mode="border", align_corners=True)[0, 0]""",
    "scipy": """phi = np.load("fields/CASE.npz")["phi"]
places = np.mgrid[: phi.shape[1], : phi.shape[2]] + phi[::-1]
aligned = scipy.ndimage.map_coordinates(ir, places, order=1, mode="nearest")""",
}


def guide(parts: Mapping[str, Mapping], boxes: Mapping[str, object]) -> str:
    """The README of the folder as Markdown."""
    rows = "\n".join(
        f"| {name} | {part['set']} | {part['level']} | {len(part['cases'])} |" for name, part in parts.items()
    )
    examples = "\n\n".join(f"{name}:\n\n```python\n{code}\n```" for name, code in EXAMPLES.items())
    labelled = sum(case_boxes is not None for case_boxes in boxes.values())
    return f"""# A benchmark of unregistered infrared and visible image fusion

| part | set | level | cases |
|---|---|---|---|
{rows}

A method is given `ir/CASE.png`, the moved infrared, and `vi/CASE.png`, the visible image in colour, which stays in
place. It makes a fused image of the same size, and a displacement field if it registers. Nothing else in this folder
may be used by a method.

- `aligned/CASE.png`: the infrared before it was moved. Fused images are scored against this one and the visible image.
- `fields/CASE.npz`: the true field and where it counts. {CONVENTION}.
- `boxes.json`: case to boxes, each class (an index into `classes` of the manifest), x0, y0, x1, y1 in pixels, edges; of
  {labelled} of {len(boxes)} cases; null where nobody has looked.
- `manifest.json`: parts, cases, versions and the SHA-256 of every file. The same command gives the same bytes on every
  machine; where the digest of a part is another, so are its images, and scores cannot be compared.

## Apply a field

`ir` is the infrared as a float32 array (H, W).

{examples}

## Score a method

Write one fused image a case, `FUSED/CASE.png` (grey or colour, 8 or 16 bits), and if the method registers, one field a
case, `FIELDS/CASE.npz` with `phi` as above (`numpy.savez(path, phi=phi)`). Then, where this folder is DIR:

    python -m fusionlib score FUSED --benchmark DIR --fields FIELDS --name "my method" -o my_method.json

A part of which there is no fused image at all is left out; of the others every case is needed.
"""
