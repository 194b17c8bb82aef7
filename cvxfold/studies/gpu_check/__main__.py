"""``python -m cvxfold.studies.gpu_check``: the run, and ``wheels`` for it."""

import argparse
from pathlib import Path

from cvxfold.studies.gpu_check import wheels
from cvxfold.studies.gpu_check.plan import plan
from cvxfold.studies.gpu_check.run import check
from cvxfold.studies.gpu_check.show import text


def main() -> None:
    """Read the arguments, do it, print."""
    parser = argparse.ArgumentParser(prog="python -m cvxfold.studies.gpu_check", description=main.__doc__)
    parser.add_argument("--device", default="cuda", help="where the values are (cuda)")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder of the JSON and the logs")
    parser.add_argument("--seconds", type=float, default=280.0, help="for everything (280)")
    parser.add_argument("--tiny", action="store_true", help="a few small problems, to try the run itself")
    parser.add_argument("--only", action="append", help="parts whose name has this in it; may be repeated")
    wheels.add_arguments(parser.add_subparsers(dest="command").add_parser("wheels", help=wheels.__doc__))
    given = parser.parse_args()
    if given.command == "wheels":
        wheels.run(given)
        return
    parts = plan(given.device, given.tiny or given.device == "cpu")
    if given.only:
        parts = [part for part in parts if any(word in part.name for word in given.only)]
    print(text(check(given.device, given.seconds, given.out, parts)))


if __name__ == "__main__":
    main()
