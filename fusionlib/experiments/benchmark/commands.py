"""The commands `benchmark make` and `score`."""

from __future__ import annotations

import argparse

from fusionlib.experiments.benchmark.folder import LEVELS, SETS, SIZES
from fusionlib.support.command_line import whole


def add(commands: argparse._SubParsersAction) -> None:
    """Add both to the commands of `python -m fusionlib`."""
    actions = commands.add_parser("benchmark", help="make the benchmark that other methods can be scored on")
    command = actions.add_subparsers(required=True, metavar="ACTION").add_parser(
        "make", help="write moved infrared, visible and aligned images, true fields and boxes of test pairs"
    )
    command.add_argument("sets", nargs="+", metavar="SET", help=f"{', '.join(SETS)} (which needs no download)")
    command.add_argument(
        "-o", "--out", required=True, metavar="DIR", help="folder to write; must be new or a benchmark"
    )
    command.add_argument(
        "--levels", nargs="+", default=["light", "medium", "heavy"], metavar="LEVEL",
        help=f"{', '.join(LEVELS)}; default the first three",
    )  # fmt: skip
    command.add_argument("--size", choices=SIZES, default="256", help="side of the images in pixels; default 256")
    command.add_argument("--count", type=whole(1), metavar="N", help="only the first N pairs of each set, for a trial")
    command.set_defaults(command=_make)

    command = commands.add_parser("score", help="score a folder of fused images, with fields if there are any")
    command.add_argument("fused", metavar="FUSED", help="folder of fused images, named as the cases or as IR and VI")
    command.add_argument("-o", "--out", required=True, metavar="ENTRY.json", help="entry to write")
    command.add_argument("--benchmark", metavar="DIR", help="folder that `benchmark make` has written; or else")
    command.add_argument("--ir", metavar="IR", help="folder of the infrared images, aligned")
    command.add_argument("--vi", metavar="VI", help="folder of the visible images")
    command.add_argument("--fields", metavar="FIELDS", help="folder of the method's fields, CASE.npz with phi")
    command.add_argument("--name", metavar="NAME", help="of the method in tables; default that of the entry")
    command.add_argument(
        "--against", nargs="+", default=[], metavar="ENTRY.json",
        help="entries to compare with, beside those of the project",
    )  # fmt: skip
    command.add_argument("--add", action="store_true", help="keep the other parts of the entry that is there")
    command.add_argument("--threads", type=whole(1, 1024), metavar="N", help="images at a time; default all cores")
    command.set_defaults(command=_score)


def _make(arguments: argparse.Namespace) -> int:
    from fusionlib.experiments.benchmark.make import make

    out = make(arguments.sets, arguments.out, arguments.levels, arguments.size, arguments.count)
    print(f"wrote {out}; its README.md says what is in it and how a method is scored")
    return 0


def _score(arguments: argparse.Namespace) -> int:
    from fusionlib.experiments.benchmark.leaderboard import in_words
    from fusionlib.experiments.benchmark.score import score

    options = {key: value for key, value in vars(arguments).items() if key not in ("command", "fused", "out")}
    print(in_words(score(arguments.fused, arguments.out, **options)))
    print(f"wrote {arguments.out}")
    return 0
