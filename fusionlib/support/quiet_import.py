"""Import of OpenCV and ultralytics: a clear error, and no side effects."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import warnings
from types import ModuleType
from unittest import mock

import torch
from PIL import Image

from fusionlib.support.files import InputError


def opencv() -> ModuleType:
    """The module cv2; InputError where the system lacks a library that it links to."""
    try:
        import cv2
    except ImportError as error:
        advice = "install libgl1 and libglib2.0-0 (Debian's names)"
        raise InputError(f"OpenCV, which this needs, cannot be loaded ({error}): {advice}.") from error
    return cv2


def import_quietly(name: str) -> ModuleType:
    """A module of ultralytics, by its dotted name.

    On import it looks for a network connection, writes settings below the home directory, replaces `torch.save` and
    Pillow's `Image.open` (which then tries to install a package when a file is not an image), changes how torch and
    numpy print, turns OpenCV's threads off, sets environment variables and silences warnings. All of that is restored;
    a program that wants these changes imports ultralytics before it builds a detector.
    """
    if name in sys.modules:
        return sys.modules[name]
    opencv()
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.dict(os.environ, YOLO_CONFIG_DIR=folder, YOLO_OFFLINE="true", YOLO_VERBOSE="false"),
        mock.patch("torch.save", torch.save),
        mock.patch("PIL.Image.open", Image.open),
        mock.patch("torch.set_printoptions"),
        mock.patch("numpy.set_printoptions"),
        mock.patch("cv2.setNumThreads"),
        warnings.catch_warnings(),
    ):
        return importlib.import_module(name)
