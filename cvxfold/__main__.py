"""``python -m cvxfold`` is the command line."""

from cvxfold.cli.app import app

app(prog_name="cvxfold")
