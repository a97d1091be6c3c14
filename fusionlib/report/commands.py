"""`results check`, `results plan`, `results accept` and `publish` as commands of `python -m fusionlib`."""

from __future__ import annotations

import argparse

from fusionlib.support.paths import ROOT


def add(commands: argparse._SubParsersAction) -> None:
    """Add the commands to the parser."""
    actions = commands.add_parser("results", help="see whether kept results fit today's code and data").add_subparsers(
        required=True, metavar="ACTION"
    )
    command = actions.add_parser("check", help="a line for each set of weights and each table: fits, or what changed")
    command.add_argument("--preset", default="mini", help="smoke, mini, paper or rehearsal; default mini")
    command.add_argument("--results", metavar="DIR", help="where results are; default results/ of the checkout")
    command.set_defaults(command=_check)
    command = actions.add_parser("plan", help="what a preset trains, and about how long that takes")
    command.add_argument("--preset", default="paper", help="smoke, mini, paper or rehearsal; default paper")
    command.set_defaults(command=_plan)
    command = actions.add_parser("accept", help="for maintainers: record how the code behaves now")
    command.add_argument("names", nargs="*", metavar="COMPONENT", help="all if none is given")
    command.add_argument("--why", metavar="TEXT", help="why a behaviour was changed; its results no longer fit then")
    command.set_defaults(command=_accept)

    command = commands.add_parser("publish", help="write the pages of results and the model cards from what is there")
    command.add_argument("--results", metavar="DIR", help="where results are; default results/ of the checkout")
    command.set_defaults(command=_publish)


def _check(arguments: argparse.Namespace) -> int:
    from fusionlib.report import results_check

    return results_check.command(arguments.results or ROOT / "results", arguments.preset)


def _plan(arguments: argparse.Namespace) -> int:
    from fusionlib.report import training_plan

    return training_plan.command(arguments.preset)


def _accept(arguments: argparse.Namespace) -> int:
    from fusionlib.report import results_check

    return results_check.accept(arguments.names, arguments.why)


def _publish(arguments: argparse.Namespace) -> int:
    from fusionlib.report import publish

    return publish.command(arguments.results or ROOT / "results")
