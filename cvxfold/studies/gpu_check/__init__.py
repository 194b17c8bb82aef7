"""One prepared run on a machine with a GPU: tests, waits, floors and the bench, in a few minutes.

``python -m cvxfold.studies.gpu_check`` runs it; with ``wheels FOLDER`` it collects what a machine that can
download nothing needs (docs/gpu.md).
"""
