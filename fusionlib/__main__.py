"""The commands: `python -m fusionlib reproduce | results | fuse | export | benchmark | score | data | methods | ...`.

Heavy modules are imported by the commands that need them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Sequence

from fusionlib.experiments.benchmark import commands as benchmark_commands
from fusionlib.report import commands as results_commands
from fusionlib.support import command_line
from fusionlib.support.command_line import whole
from fusionlib.support.files import InputError
from fusionlib.support.threads import short_spin


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 2 for a mistake of the user, 130 if interrupted, 141 if the reader of its
    output has gone, as behind `| head`.
    """
    os.environ.update(short_spin(os.environ))  # before torch is imported
    for name in ("SIGTERM", "SIGHUP"):  # end as after Ctrl-C, so that nothing half-written stays
        ending = getattr(signal, name, None)
        if ending and signal.getsignal(ending) is not signal.SIG_IGN:  # nohup has it ignored
            signal.signal(ending, signal.default_int_handler)
    command_line.prepare_output()
    arguments = _parser().parse_args(argv)
    with warnings.catch_warnings():
        warnings.showwarning = command_line.show_warning
        try:
            status = arguments.command(command_line.without_gaps(arguments))
            if sys.stdout is not None:  # it is None where the shell has closed it
                sys.stdout.flush()
            return status
        except InputError as error:
            print(f"fusionlib: error: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print("fusionlib: stopped", file=sys.stderr)
            return 130
        except BrokenPipeError:
            command_line.silence()
            return 141
        except (OSError, ModuleNotFoundError, RuntimeError, MemoryError) as error:
            if not (sentence := command_line.system_error_message(error)):
                raise
            print(f"fusionlib: error: {sentence}", file=sys.stderr)
            return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fusionlib", description="Target-aware unregistered infrared and visible image fusion"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("reproduce", help="run notebooks headless and compare with the paper's numbers")
    command.add_argument("numbers", nargs="*", metavar="NN", help="numbers of notebooks, such as 03; default all")
    command.add_argument(
        "--preset", default="smoke", help="smoke (minutes, no download), mini, paper, or rehearsal of paper"
    )
    command.add_argument("--jobs", type=whole(1, 1024), default=1, metavar="N", help="notebooks at a time; default 1")
    command.add_argument("--seed", type=whole(0), default=0, help="of everything random; default 0")
    command.add_argument(
        "--train", action="store_true",
        help="train, for hours if need be, what is not there or no longer fits; see `results check`",
    )  # fmt: skip
    command.add_argument("--retrain", action="store_true", help="train everything, also where kept weights fit")
    command.add_argument("--force", action="store_true", help="run also what is up to date")
    command.add_argument(
        "--cluster", type=command_line.cluster, metavar="WHERE",
        help="spread over Dask workers: local or local:N on this machine, or a scheduler, tcp://HOST:8786",
    )  # fmt: skip
    command.add_argument(
        "--timeout", type=command_line.minutes, metavar="MIN", help="minutes for one notebook; no limit by default"
    )
    command.add_argument("--results", metavar="DIR", help="where results go; default results/ of the checkout")
    command.add_argument(
        "-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
        help="a parameter of the notebooks that know it; may be given again",
    )  # fmt: skip
    command.set_defaults(command=_reproduce)

    command = commands.add_parser("fuse", help="fuse two images, or two folders of images")
    command.add_argument("ir", metavar="IR", help="infrared image or folder")
    command.add_argument("vi", metavar="VI", help="visible image or folder with files of the same names")
    command.add_argument("-o", "--out", required=True, help="PNG to write, or folder of them")
    command.add_argument("--method", default="ours_robust", help="see `fusionlib methods`; default ours_robust")
    command.add_argument("--field", metavar="F.npz", help="also write the displacement field, or a folder of them")
    command.add_argument("--weights", metavar="PATH", help="weights of the network instead of the project's own")
    command.add_argument("--device", help="cpu, cuda, ...; a GPU is taken if there is one")
    command.add_argument("--page", type=whole(1), metavar="N", help="of files that have several; default the first")
    command.add_argument("--skip-existing", action="store_true", help="skip pairs with a newer result of any method")
    command.set_defaults(command=_fuse)

    command = commands.add_parser("export", help="write Ours as an ONNX file, for programs without this library")
    command.add_argument("method", nargs="?", default="ours_robust", metavar="METHOD", help="default ours_robust")
    command.add_argument("-o", "--out", required=True, metavar="FILE.onnx", help="file to write")
    command.add_argument("--weights", metavar="PATH", help="weights of the network instead of the project's own")
    command.set_defaults(command=_export)

    benchmark_commands.add(commands)

    actions = commands.add_parser("data", help="fetch and check data sets and published weights").add_subparsers(
        required=True, metavar="ACTION"
    )
    command = actions.add_parser("fetch", help="bring data sets or weights from their pinned upstream")
    command.add_argument(
        "names", nargs="+", metavar="NAME", help="a set, a compared system, or weights for all of them"
    )
    command.set_defaults(command=_data)
    command = actions.add_parser("check", help="compare what is there with the recorded checksums")
    command.add_argument("name", nargs="?", metavar="NAME", help="all sets if none is given")
    command.set_defaults(command=_data)

    command = commands.add_parser("methods", help="list what can fuse, and where its weights come from")
    command.set_defaults(command=_methods)

    command = commands.add_parser("retrain", help="train compared systems whose weights are not available")
    command.add_argument("names", nargs="+", metavar="NAME", help="see `fusionlib methods`")
    command.add_argument("--preset", default="mini", help="smoke, mini or paper; default mini")
    command.add_argument("--seed", type=whole(0), default=0, help="of weights, order and deformations; default 0")
    command.add_argument("--force", action="store_true", help="train also where weights of the same recipe are")
    command.add_argument("--device", help="cpu, cuda, ...; a GPU is taken if there is one")
    command.add_argument("--results", metavar="DIR", help="where results go; default results/ of the checkout")
    command.set_defaults(command=_retrain)

    command = commands.add_parser("train", help="train Ours and score it, in pieces if there is little time at once")
    command.add_argument("--preset", default="paper", help="smoke, mini, paper or rehearsal; default paper")
    command.add_argument("--seeds", type=whole(1, 100), default=1, metavar="N", help="trainings of Ours; default 1")
    command.add_argument("--minutes", type=command_line.minutes, metavar="MIN", help="stop before these are over")
    command.add_argument("--compiled", action="store_true", help="let torch compile the network first (minutes)")
    command.add_argument("--results", metavar="DIR", help="where results go; default results/ of the checkout")
    command.set_defaults(command=_train)

    results_commands.add(commands)
    return parser


def _reproduce(arguments: argparse.Namespace) -> int:
    from fusionlib.reproduce.reproduce import reproduce
    from fusionlib.support.paths import ROOT

    options = _options(arguments)
    options["parameters"] = {name: command_line.parameter(text) for name, text in arguments.parameters}
    options["results"] = arguments.results or ROOT / "results"
    return reproduce(options.pop("numbers") or None, **options)


def _fuse(arguments: argparse.Namespace) -> int:
    from fusionlib.methods.fuse import fuse_files

    fuse_files(**_options(arguments))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from fusionlib.methods.export import export

    export(**_options(arguments))
    return 0


def _data(arguments: argparse.Namespace) -> int:
    from fusionlib.data import download

    return download.fetch_commands(arguments.names) if "names" in arguments else download.check_command(arguments.name)


def _methods(arguments: argparse.Namespace) -> int:
    from fusionlib import methods

    print(command_line.table(methods.overview()))
    return 0


def _retrain(arguments: argparse.Namespace) -> int:
    from fusionlib.reproduce import trainings

    return trainings.retrain(**_options(arguments))


def _train(arguments: argparse.Namespace) -> int:
    from fusionlib.reproduce import trainings

    return trainings.train(**_options(arguments))


def _options(arguments: argparse.Namespace) -> dict[str, object]:
    """What was given to a command, by the names of its function's arguments."""
    return {name: value for name, value in vars(arguments).items() if name != "command"}


if __name__ == "__main__":
    sys.exit(main())
