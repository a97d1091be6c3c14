"""fusionlib: the thin library behind the notebooks of *Target-aware unregistered infrared and visible image fusion*."""

__version__ = "0.1.0"
