"""The public data sets and weights: what their files are, fetching them from the pinned upstream, checking them.

`data/registry/<set>.json` records every file with its SHA-256 and its address at a pinned commit. No image is part of
the checkout, because the terms of most sets forbid handing them on: each user fetches them from their upstream. The
published weights of a compared system are fetched in the same way, by its name, from what `fusionlib.data.systems`
records.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from fusionlib.data import systems
from fusionlib.support.files import CLOSED, FULL, InputError, is_recorded
from fusionlib.support.paths import FACTS, data_root

LOGGER = logging.getLogger(__name__)
WEIGHTS = "weights"  # the name for the published weights of all systems, and their folder below the data root
REGISTRY = FACTS / "registry"
RETRIES = 2  # of one file, before its failure is reported
TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class Registry:
    """What is known about a set; `files` maps a path below `folder` to sha256, bytes and (if not base_url + path) url,
    or, of a file whose SHA-256 is not known, to git_blob and url (`files.is_recorded`).

    `by_hand` says how to get a set that no program can fetch, or whose upstream commit or paths are not known.
    """

    title: str
    folder: str
    terms: str
    citation: str
    upstream: str
    commit: str | None
    base_url: str | None
    files: dict[str, dict]
    by_hand: str | None = None


@dataclass(frozen=True)
class SetReport:
    """How the files of one set compare with its registry."""

    name: str
    folder: Path
    present: int
    missing: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every file is there with the right checksum."""
        return not self.missing and not self.wrong

    def __str__(self) -> str:
        total = self.present + len(self.missing) + len(self.wrong)
        line = f"{self.name}: {self.present} of {total} files present"
        for files, state in ((self.missing, "missing"), (self.wrong, "with a wrong checksum")):
            if files:
                line += f", {len(files)} {state} (first {files[0]})"
        return line


def set_names() -> list[str]:
    """Names of all registered sets, including those that are downloaded by hand."""
    return sorted(file.stem for file in REGISTRY.glob("*.json"))


def weight_names() -> list[str]:
    """Names of the compared systems whose published weights can be fetched."""
    return [name for name in systems.names() if systems.system(name).files]


def members(name: str) -> list[str]:
    """What a name stands for: "weights" for the weights of every system, any other for itself."""
    return weight_names() if _key(name) == WEIGHTS else [name]


def registry(name: str) -> Registry:
    """The registry of a set, or of a system's weights, by its name in upper or lower case.

    Raises:
        InputError: No such set or system, or a system without weights to fetch.
    """
    key = _key(name)
    if key in set_names():
        return Registry(**json.loads((REGISTRY / f"{key}.json").read_text(encoding="utf-8")))
    if key in systems.names():
        return _weights(systems.system(key))
    known = ", ".join([*set_names(), WEIGHTS])
    raise InputError(f"There is no data set {name!r} to fetch or check: choose one of {known}, or a compared system.")


def check(name: str | None = None, root: Path | str | None = None) -> list[SetReport]:
    """Compare the files below the data root with the registry of one set, or of all that have recorded files.

    Raises:
        InputError: No such set, or a set without recorded files.
    """
    root = data_root() if root is None else Path(root)
    wanted = [*set_names(), *weight_names()] if name is None else members(name)
    entries = {_key(each): registry(each) for each in wanted}
    if name is not None and not any(entry.files for entry in entries.values()):
        raise InputError(
            f"The files of {name} cannot be checked: it is downloaded by hand, and no checksums of it are recorded."
        )
    return [_report(key, entry, root) for key, entry in entries.items() if entry.files]


def fetch(name: str, root: Path | str | None = None, progress: bool = True) -> Path:
    """Bring a set below the data root, verified by SHA-256; files already there are kept, so it may be run again.

    Args:
        name: One of `set_names()` or of `weight_names()`.
        root: Data root, by default `data_root()`.
        progress: Whether to say how many files are there.

    Returns:
        The folder of the set.

    Raises:
        InputError: Unknown set; a set that has to be downloaded by hand (the message has the steps); no connection; a
            file that is not the recorded one. A file is there whole and verified, or not at all.
    """
    entry = registry(name)
    root = data_root() if root is None else Path(root)
    folder = root / entry.folder
    report = _report(_key(name), entry, root)
    absent = [*report.missing, *report.wrong]
    if entry.by_hand and (absent or not entry.files):
        then = f"; `python -m fusionlib data check {_key(name)}` tells whether it worked" if entry.files else ""
        raise InputError(f"{_key(name)} cannot be fetched by this command: {entry.by_hand.format(root=root)}{then}.")

    pooch.get_logger().setLevel(logging.WARNING)  # a line for each of 663 files says nothing that the count does not
    store = pooch.create(
        path=folder,
        base_url=entry.base_url or "",
        registry={file: _hash(facts) for file, facts in entry.files.items()},
        urls={file: facts["url"] for file, facts in entry.files.items() if "url" in facts},
        retry_if_failed=RETRIES,
    )
    downloader = pooch.HTTPDownloader(timeout=TIMEOUT, progressbar=False)
    total = len(entry.files)
    if progress:
        LOGGER.info(f"{_key(name)}: {total - len(absent)}/{total} files")
    for done, file in enumerate(absent, total - len(absent)):
        facts = entry.files[file]
        try:
            if file in report.wrong and _hash(facts) is None:
                (folder / file).unlink()  # pooch keeps what it cannot check
            store.fetch(file, downloader=_checking(downloader, facts))
        except OSError as error:
            if error.errno in FULL:
                room = sum(entry.files[name].get("bytes", 0) for name in absent[done - total :]) / 1e6
                fact = f"{folder} is full: {room:.0f} MB of {_key(name)} are still to be fetched"
                raise InputError(f"{fact}, so free some space and run the command again.") from None
            if error.errno in CLOSED or isinstance(error, PermissionError):
                raise InputError(
                    f"{folder} cannot be written to: set FUSIONLIB_DATA to a folder of your own."
                ) from None
            reason = getattr(getattr(error, "response", None), "status_code", type(error).__name__)
            kept = f"{done} of {total} files are there and are kept"
            advice = "check the connection and run the command again"
            raise InputError(f"{store.get_url(file)} could not be fetched ({reason}): {advice}; {kept}.") from None
        except ValueError:
            fact = f"{store.get_url(file)} is not the file whose checksum is recorded, so it was not kept"
            raise InputError(f"{fact}: run the command again, and report it if it stays so.") from None
        if progress and 10 * (done + 1) // total > 10 * done // total:  # a line every tenth
            LOGGER.info(f"{_key(name)}: {done + 1}/{total} files")
    return folder


def fetch_command(name: str) -> None:
    """Fetch a set, and say where it is, its terms and whom to cite."""
    folder, entry = fetch(name), registry(name)
    print(f"{entry.title}\n  folder: {folder}\n  terms: {entry.terms}\n  cite: {entry.citation}")


def fetch_commands(names: Sequence[str]) -> int:
    """`python -m fusionlib data fetch NAME ...`; exit status.

    If one upstream does not answer, the others are still fetched; failures are reported at once and at the end.
    """
    names, failed = [member for name in names for member in members(name)], []
    for name in names:
        registry(name)  # a mistyped name is an error before anything is fetched
    for name in names:
        try:
            fetch_command(name)
        except InputError as error:
            if len(names) == 1:
                raise
            LOGGER.warning(str(error))
            failed.append(name)
    if failed:
        raise InputError(f"Of {len(names)} to be fetched, {len(failed)} failed, as said above: {', '.join(failed)}.")
    return 0


def check_command(name: str | None = None) -> int:
    """`python -m fusionlib data check [NAME]`: print one line a set; exit status 1 if a set is there but not complete.

    A set that is wholly absent counts as incomplete only if it is asked for by name.
    """
    if not (root := data_root()).is_dir():  # only FUSIONLIB_DATA can name such a one
        LOGGER.warning(f"{root}, which FUSIONLIB_DATA names, is not a folder: set it to that of the data sets.")
    reports = check(name)
    print("\n".join(map(str, reports)))
    return int(any(not report.complete and (name or report.present or report.wrong) for report in reports))


def _weights(system: systems.System) -> Registry:
    if not system.files:
        make = f"`python -m fusionlib retrain {system.name}` makes some"
        raise InputError(f"No weights of {system.title} that could be fetched are published: {make}.")
    return Registry(
        title=f"{system.title}: published weights",
        folder=f"{WEIGHTS}/{system.name}",
        terms=system.licence,
        citation=system.paper,
        upstream=system.upstream,
        commit=system.commit,
        base_url=None,
        files=system.files,
    )


def _report(key: str, entry: Registry, root: Path) -> SetReport:
    folder = root / entry.folder
    missing = [file for file in entry.files if not (folder / file).is_file()]
    present = entry.files.keys() - set(missing)
    wrong = [file for file, facts in entry.files.items() if file in present and not is_recorded(folder / file, facts)]
    return SetReport(key, folder, len(present) - len(wrong), tuple(missing), tuple(wrong))


def _hash(facts: Mapping[str, object]) -> str | None:
    """The checksum as pooch takes it; None of a git blob, which it does not know."""
    return f"sha256:{facts['sha256']}" if "sha256" in facts else None


def _checking(downloader: pooch.HTTPDownloader, facts: Mapping[str, object]) -> Callable:
    """The same downloader, which raises ValueError, as pooch does, unless what it brings is the recorded file."""

    def download(url: str, output: str, store: pooch.Pooch) -> None:
        downloader(url, output, store)
        if not is_recorded(output, facts):
            raise ValueError(url)
        # Pooch's temporary file, which becomes the file, is closed to all but its owner, whatever the user's mask.
        os.umask(mask := os.umask(0))
        Path(output).chmod(0o666 & ~mask)

    return download


def _key(name: str) -> str:
    return name.lower().replace("-", "_")
