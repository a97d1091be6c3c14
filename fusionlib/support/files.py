"""Files that are either whole or absent, and their checksums."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout

LOGGER = logging.getLogger(__name__)


class InputError(ValueError):
    """An input of the user cannot be used; the message is one sentence that says what to do about it."""


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def clear_write_errors(path: Path | str) -> Iterator[None]:
    """Turn the system's errors while `path` is written into one sentence with advice; errors about other files pass.

    Raises:
        InputError: the disk is full, or the folder is a file, is not writable, or was removed meanwhile.
    """
    try:
        yield
    except OSError as error:
        own = error.filename is None or Path(error.filename) in (Path(path), *Path(path).parents)
        if error.errno in FULL:
            advice = "free some space and run it again"
        elif error.errno in CLOSED and (own or Path(error.filename).parent == Path(path).parent):
            advice = "choose a folder that can be written to"
        elif error.errno == errno.ENOENT and not Path(path).parent.is_dir():  # removed while we worked, or in /proc
            advice = "choose a folder that stays there"
        else:
            raise
        raise InputError(f"{path} cannot be written ({os.strerror(error.errno)}): {advice}.") from None


def check_writable(folder: Path | str) -> None:
    """InputError if nothing could be written below a folder, which need not exist yet; called before long work."""
    folder = Path(folder)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        why = "is closed to us" if existing.is_dir() else "is a file"
        raise InputError(f"{folder} cannot be written to, since {existing} {why}: choose another folder.")


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it into place when the block ends well, remove it when it does not.

    A reader therefore sees the old file or the new one, never half of one, even if this process is killed.

    Raises:
        InputError: as `clear_write_errors`.
    """
    path = Path(path)
    part = path.with_name(f".{_brief(path)}.{os.getpid()}-{secrets.token_hex(4)}.part{path.suffix}")
    with clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
            with open(part, "rb") as written:
                os.fsync(written.fileno())  # else a power cut could leave the new name with nothing behind it
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold the lock of `path` until the block ends, so that one process alone makes what lies there.

    If another process holds it, a line says so and this one waits; afterwards it has to look whether the file is there
    now. The operating system releases the lock of a process that ends or is killed; an empty hidden file stays. A
    process cannot take a lock that it holds.

    Raises:
        InputError: as `clear_write_errors`.
    """
    path = Path(path)
    with clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{_brief(path)}.lock"))
        try:  # FileLock waits for ever where it can make no file, as in /proc
            Path(lock.lock_file).touch()
        except FileNotFoundError:
            raise InputError(f"{path.parent} takes no files: choose another folder.") from None
        try:
            lock.acquire(timeout=0)
        except Timeout:
            LOGGER.info(f"{path.stem}: another process works in {path.parent}; waiting until it is done")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _brief(path: Path) -> str:
    """The stem, shortened by a digest if it is so long that a prefix and a suffix would make more than 255 bytes."""
    stem = os.fsencode(path.stem)
    return path.stem if len(stem) <= 200 else f"{path.stem[:30]}~{hashlib.sha256(stem).hexdigest()[:16]}"


def printable(text: Path | str) -> str:
    """Text for messages: bytes of names that are no text, which no log file and no other process takes, as escapes.

    >>> printable("a" + chr(0xDCFF) + ".png")
    'a\\\\udcff.png'
    """
    return str(text).encode("utf-8", "backslashreplace").decode()


def remove_partial_files(path: Path | str) -> None:
    """Remove the temporary files that killed processes have left of `path` and of files of the same stem.

    Those are, beside weights, their log and checkpoint. No process may be writing one of them now.
    """
    path = Path(path)
    for part in path.parent.glob(f".{escape(_brief(path))}.*.part*"):
        part.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> Path:
    """Write UTF-8 text atomically; return the path."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)


def write_bytes(path: Path | str, content: bytes) -> Path:
    """Write bytes atomically; return the path."""
    with atomic(path) as part:
        part.write_bytes(content)
    return Path(path)


def write_json(path: Path | str, value: object) -> Path:
    """Write indented JSON atomically; return the path."""
    return write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob(path: Path | str) -> str:
    """Hexadecimal name that git gives to the content of a file: SHA-1 of "blob", its length, and the content."""
    digest = hashlib.sha1(f"blob {Path(path).stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        for part in iter(lambda: file.read(1 << 20), b""):
            digest.update(part)
    return digest.hexdigest()


def is_recorded(path: Path | str, facts: Mapping[str, object]) -> bool:
    """Whether a file is the recorded one, by its `sha256`, or by its `git_blob` where no SHA-256 was recorded."""
    return sha256(path) == facts["sha256"] if "sha256" in facts else git_blob(path) == facts["git_blob"]


def fingerprint(*parts: object) -> str:
    """Sixteen hexadecimal digits that change when any of the JSON-able parts changes."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
