"""Fuse a pair with the file that `python -m fusionlib export -o ours.onnx` writes, without this library and torch.

pip install onnxruntime numpy pillow
ORT_DISABLE_TELEMETRY=1 python fuse_with_onnxruntime.py ours.onnx infrared.png visible.png fused.png

Without that variable, onnxruntime keeps an identifier of the user in the home folder.
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image

model, infrared, visible, out = sys.argv[1:]
ir, colour = Image.open(infrared).convert("L"), Image.open(visible).convert("RGB")
if ir.size != colour.size or min(ir.size) < 32:
    sys.exit("The two images need the same size, and 32 pixels or more each side: resize them first.")

# Float32 (1, 1, H, W) in [0, 1]; the visible image as its luma, which Pillow's L is.
ir, vi = (np.asarray(image, np.float32)[None, None] / 255 for image in (ir, colour.convert("L")))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
image, field = session.run(["image", "field"], {"ir": ir, "vi": vi})

# The colour of the visible image: what its luma gains or loses, red, green and blue gain or lose, too.
rgb = np.asarray(colour, np.float32) / 255
fused = rgb + (image[0, 0] - rgb @ np.float32([0.299, 0.587, 0.114]))[..., None]
Image.fromarray((fused.clip(0, 1) * 255).round().astype(np.uint8)).save(out)
print(f"wrote {out}; the infrared was moved by {np.hypot(*field[0]).mean():.1f} pixels on average")
