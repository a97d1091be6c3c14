"""Scenes and brains that are drawn on the spot, so that all runs without a download. Uses images and `support`."""
