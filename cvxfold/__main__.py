"""``python -m cvxfold`` is the command line."""

from cvxfold.cli import app

app(prog_name="cvxfold")
