"""What the commands share: checked options, logged lines, and system errors as sentences."""

from __future__ import annotations

import argparse
import ast
import errno
import io
import logging
import math
import os
import re
import sys
from collections.abc import Callable, Sequence

from fusionlib.support.files import CLOSED, FULL, InputError, printable

# Errors of the system, such as a full disk, not mistakes in the code.
SYSTEM_ERRORS = (*CLOSED, *FULL, errno.ENAMETOOLONG, errno.EISDIR, errno.ELOOP, errno.EIO)


def whole(least: int, most: int = 2**32 - 1) -> Callable[[str], int]:
    """A reader of options that are whole numbers within these limits."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return number

    return read


def minutes(text: str) -> float:
    """An option that is a time above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return number


def cluster(text: str) -> str:
    """An option that names Dask workers; it is not checked here whether they answer."""
    if not re.fullmatch(r"local(:[1-9]\d*)?|(?!local:)(\w+://)?[^\s/]+:\d+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither local, local:N nor an address such as tcp://HOST:8786")
    return text


def system_error_message(error: OSError | ModuleNotFoundError | RuntimeError | MemoryError) -> str:
    """One sentence if an error comes from a closed folder, a full disk, a long name, a link to itself, a missing
    package or a memory that is full; else "".
    """
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return "The memory of this machine is too small for this: give smaller images, or close other programs."
    if isinstance(error, RuntimeError):
        if type(error).__name__ == "OutOfMemoryError":  # by its name, since torch is slow to import
            advice = "give smaller images or, where the command has it, --device cpu"
            return f"The memory of the GPU is too small for this: {advice}."
        paths = {"Symlink loop": "a link that leads to itself", "home directory": "~ before a name that nobody has"}
        found = next((paths[text] for text in paths if text in str(error)), None)
        return f"A path holds {found} ({error}): give another one." if found else ""
    if isinstance(error, ModuleNotFoundError):
        if (error.name or "fusionlib").partition(".")[0] == "fusionlib":
            return ""
        return f"The package {error.name} is missing: run `pip install -c constraints.txt -e .` in the checkout."
    if error.errno not in SYSTEM_ERRORS:
        return ""
    if error.filename is None:
        silence()
    place = "The output" if error.filename is None else os.fsdecode(error.filename)
    advice = "give a place that is open to you, has room and has a name of 255 bytes at most"
    return f"{place} cannot be used ({os.strerror(error.errno)}): {advice}."


class _Lines(logging.Handler):
    """One line for each record: warnings to stderr, all else to stdout, as both are set at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        text = printable(record.getMessage())
        print(text, file=sys.stderr if record.levelno >= logging.WARNING else sys.stdout, flush=True)


LINES = _Lines()


def show_messages() -> None:
    """Show what the library logs, its progress and its messages. Commands and notebooks ask for it, no import does."""
    logger = logging.getLogger("fusionlib")
    logger.setLevel(logging.INFO)
    logger.addHandler(LINES)  # a second call adds nothing


def prepare_output() -> None:
    """Show messages; names of files may hold bytes that are no text, which are shown as escapes."""
    if sys.stderr is None:  # closed by the shell, as `2>&-` does; bars of progress need something to write to
        sys.stderr = io.StringIO()
    show_messages()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def without_gaps(arguments: argparse.Namespace) -> argparse.Namespace:
    """The same arguments; InputError if one is empty, as an unset variable of the shell is; a path would be here."""
    for name, value in vars(arguments).items():
        if any(each == "" for each in (value if isinstance(value, list) else [value])):
            raise InputError(f"{name.upper()} is empty: give one, and look whether a variable of your shell is unset.")
    return arguments


def silence() -> None:
    """Discard further output; otherwise Python flushes it when it ends, which fails again."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parameter(text: str) -> object:
    """A parameter as Python would read it; anything else is a string. `1e-3` is a number, unlike in YAML."""
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def show_warning(message: Warning | str, *_: object) -> None:
    """A warning in one line, as `warnings.showwarning` has it."""
    print(f"fusionlib: warning: {message}", file=sys.stderr)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text in columns.

    >>> print(table([["a", "1"], ["long", "2"]]))
    a     1
    long  2
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
