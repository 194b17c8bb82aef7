"""An expression of each of cvxpy's atoms, by name."""

from collections.abc import Callable
from typing import Any

import cvxpy as cp
import numpy as np

Make = Callable[[Any], Any]
untyped: Any = cp  # its annotations are narrower than what it takes


def _weights(x: Any) -> Any:
    return np.linspace(0.5, 1.5, x.size).reshape(x.shape)


def _symmetric(x: Any) -> Any:
    """A symmetric matrix near 3 I."""
    if x.ndim != 2:
        raise ValueError("expected a matrix")
    return cp.symmetric_wrap(x + x.T + 3 * np.eye(x.shape[0]))


def _perspective(x: Any) -> Any:
    z, s = cp.Variable(), cp.Variable(nonneg=True)
    return cp.perspective(cp.square(z), s) + cp.square(z - cp.sum(x)) + cp.square(s - 1)


def _support(x: Any) -> Any:
    y = cp.Variable(x.shape)
    return cp.suppfunc(y, [cp.norm(y.flatten(order="C")) <= 1])(x)


ATOMS: dict[str, Make] = {
    # entry by entry
    "abs": cp.abs,
    "ceil": cp.ceil,
    "entr": cp.entr,
    "exp": cp.exp,
    "floor": cp.floor,
    "huber": lambda x: untyped.huber(x - 0.3, 0.2),
    "inv_pos": cp.inv_pos,
    "kl_div": lambda x: cp.kl_div(x, _weights(x)),
    "log": cp.log,
    "log1p": cp.log1p,
    "log_normcdf": cp.log_normcdf,
    "loggamma": cp.loggamma,
    "logistic": cp.logistic,
    "maximum": lambda x: cp.maximum(x, 0.2 + 0 * _weights(x), 0.5 * x),
    "minimum": lambda x: cp.minimum(x, 0.2 + 0 * _weights(x), 0.5 * x),
    "neg": cp.neg,
    "pos": cp.pos,
    "power": lambda x: cp.power(x, 3),
    "power, concave": lambda x: cp.power(x, 0.4),
    "power, negative": lambda x: cp.power(x, -1.5),
    "rel_entr": lambda x: cp.rel_entr(x, _weights(x)),
    "scalene": lambda x: cp.scalene(x, 2.0, 1.0),
    "sign": cp.sign,
    "sqrt": cp.sqrt,
    "square": cp.square,
    "xexp": cp.xexp,
    # to numbers
    "cvar": lambda x: cp.cvar(x, 0.6),
    "dist_ratio": lambda x: cp.dist_ratio(x, np.zeros(x.shape), np.ones(x.shape)),
    "dotsort": lambda x: cp.dotsort(x, _weights(x)),
    "geo_mean": cp.geo_mean,
    "harmonic_mean": cp.harmonic_mean,
    "inv_prod": cp.inv_prod,
    "length": cp.length,
    "log_sum_exp": cp.log_sum_exp,
    "log_sum_exp, axis 0": lambda x: cp.log_sum_exp(x, axis=0),
    "log_sum_exp, last axis": lambda x: cp.log_sum_exp(x, axis=x.ndim - 1),
    "max": cp.max,
    "max, axis 0": lambda x: cp.max(x, axis=0),
    "max, last axis": lambda x: cp.max(x, axis=x.ndim - 1),
    "mean": cp.mean,
    "min": cp.min,
    "min, axis 0": lambda x: cp.min(x, axis=0),
    "min, last axis": lambda x: cp.min(x, axis=x.ndim - 1),
    "mixed_norm": lambda x: cp.mixed_norm(x, 2, 1),
    "norm": cp.norm,
    "norm, axis 0": lambda x: cp.norm(x, axis=0),
    "norm, axis 1": lambda x: cp.norm(x, axis=1),
    "norm, last axis": lambda x: cp.norm(x, axis=x.ndim - 1),
    "norm1": cp.norm1,
    "norm1, last axis": lambda x: cp.norm1(x, axis=x.ndim - 1),
    "norm2": cp.norm2,
    "norm_inf": cp.norm_inf,
    "pnorm": lambda x: untyped.pnorm(x, 3),
    "pnorm, concave": lambda x: untyped.pnorm(x, 0.5),
    "prod": cp.prod,
    "ptp": cp.ptp,
    "quad_form": lambda x: cp.quad_form(x, np.diag(_weights(x).ravel()) + 0.1),
    "quad_over_lin": lambda x: cp.quad_over_lin(x, cp.sum(x) + 1),
    "quad_over_lin, axis 0": lambda x: cp.quad_over_lin(x, np.array(2.0), axis=0),
    "std": cp.std,
    "std, axis 0": lambda x: cp.std(x, axis=0),
    "std, axis 1": lambda x: cp.std(x, axis=1),
    "sum": cp.sum,
    "sum, axis 0": lambda x: cp.sum(x, axis=0),
    "sum, last axis": lambda x: cp.sum(x, axis=x.ndim - 1),
    "sum_largest": lambda x: cp.sum_largest(x, min(x.size, 2)),
    "sum_smallest": lambda x: cp.sum_smallest(x, min(x.size, 2)),
    "sum_squares": cp.sum_squares,
    "suppfunc": _support,
    "tv": cp.tv,
    "var": cp.var,
    "perspective": _perspective,
    # of matrices
    "condition_number": lambda x: cp.condition_number(_symmetric(x)),
    "gen_lambda_max": lambda x: cp.gen_lambda_max(_symmetric(x), _symmetric(x)),
    "lambda_max": lambda x: cp.lambda_max(_symmetric(x)),
    "lambda_min": lambda x: cp.lambda_min(_symmetric(x)),
    "lambda_sum_largest": lambda x: cp.lambda_sum_largest(_symmetric(x), 2),
    "lambda_sum_smallest": lambda x: cp.lambda_sum_smallest(_symmetric(x), 2),
    "log_det": lambda x: cp.log_det(_symmetric(x)),
    "matrix_frac": lambda x: cp.matrix_frac(np.ones(x.shape[0]), _symmetric(x)),
    "normNuc": cp.normNuc,
    "quantum_cond_entr": lambda x: untyped.quantum_cond_entr(_symmetric(x[:2, :2]), [1, 2]),
    "quantum_rel_entr": lambda x: untyped.quantum_rel_entr(_symmetric(x[:2, :2]), np.eye(2), (2, 2)),
    "sigma_max": cp.sigma_max,
    "tr_inv": lambda x: cp.tr_inv(_symmetric(x)),
    "trace": cp.trace,
    "von_neumann_entr": lambda x: cp.von_neumann_entr(_symmetric(x)),
    # affine
    "bmat": lambda x: cp.bmat([[x, 2 * x], [x, -x]]),
    "broadcast_to": lambda x: cp.broadcast_to(x, (2, *x.shape)),
    "concatenate": lambda x: cp.concatenate([x, 2 * x]),
    "conj": cp.conj,
    "conv": lambda x: cp.conv(np.array([1.0, 2.0]), x),
    "convolve": lambda x: cp.convolve(np.array([1.0, 2.0]), x),
    "cummax": cp.cummax,
    "cummax, last axis": lambda x: cp.cummax(x, axis=x.ndim - 1),
    "cumsum": cp.cumsum,
    "cumsum, last axis": lambda x: cp.cumsum(x, axis=x.ndim - 1),
    "deep_flatten": lambda x: untyped.atoms.deep_flatten([x, 2 * x]),
    "diag": cp.diag,
    "diff": cp.diff,
    "einsum": lambda x: cp.einsum("i,i->i", x, np.array([1.0, 2.0, 3.0])),
    "hermitian_wrap": cp.hermitian_wrap,
    "hstack": lambda x: cp.hstack([x, 2 * x]),
    "imag": lambda x: cp.imag(x * (1 + 2j)),
    "indexing": lambda x: x[0] if x.ndim else x[...],
    "indexing by a list": lambda x: x[[0, 0, 1]],
    "kron": lambda x: cp.kron(np.array([[1.0, 2.0]]), x),
    "matmul": lambda x: x @ np.arange(1.0, 1.0 + x.shape[-1]),
    "matmul, from the left": lambda x: np.arange(1.0, 1.0 + x.shape[0]) @ x,
    "moveaxis": lambda x: cp.moveaxis(x, 0, -1),
    "multiply": lambda x: cp.multiply(_weights(x), x),
    "outer": lambda x: cp.outer(x, np.array([1.0, 2.0])),
    "partial_trace": lambda x: untyped.partial_trace(x, [1, x.shape[0]]),
    "partial_transpose": lambda x: untyped.partial_transpose(x, [1, x.shape[0]]),
    "permute_dims": lambda x: untyped.permute_dims(x, tuple(range(x.ndim))[::-1]),
    "promote": lambda x: untyped.atoms.promote(x, (2, 2)),
    "psd_wrap": lambda x: cp.psd_wrap(x),
    "real": lambda x: cp.real(x * (1 + 2j)),
    "reshape": lambda x: cp.reshape(x, (x.size, 1), order="C"),
    "scalar_product": lambda x: cp.scalar_product(x, _weights(x)),
    "skew_symmetric_wrap": lambda x: cp.skew_symmetric_wrap(x - x.T),
    "squeeze": lambda x: cp.squeeze(x[None]),
    "stack": lambda x: cp.stack([x, 2 * x]),
    "swapaxes": lambda x: cp.swapaxes(x, 0, 1),
    "symmetric_wrap": lambda x: cp.symmetric_wrap(x + x.T),
    "transpose": lambda x: x.T,
    "upper_tri": cp.upper_tri,
    "vdot": lambda x: cp.vdot(x, _weights(x)),
    "vec": lambda x: cp.vec(x, order="C"),
    "vec_to_upper_tri": lambda x: cp.vec_to_upper_tri(x),
    "vstack": lambda x: cp.vstack([x, 2 * x]),
}

GEOMETRIC: dict[str, Make] = {
    "cumprod": cp.cumprod,
    "diff_pos": lambda x: cp.diff_pos(1.0, x),
    "eye_minus_inv": cp.eye_minus_inv,
    "geo_mean": cp.geo_mean,
    "gmatmul": lambda x: cp.gmatmul(np.full((2, x.shape[0]), 0.5), x),
    "harmonic_mean": cp.harmonic_mean,
    "maximum": lambda x: cp.maximum(x, 0.15),
    "norm": cp.norm,
    "one_minus_pos": cp.one_minus_pos,
    "pf_eigenvalue": cp.pf_eigenvalue,
    "quad_form": lambda x: cp.quad_form(x, np.full((x.size, x.size), 0.5) + np.eye(x.size)),
    "resolvent": lambda x: cp.resolvent(x, 2.0),
    "sum": cp.sum,
}

APPROXIMATE = (ATOMS["quantum_cond_entr"], ATOMS["quantum_rel_entr"], ATOMS["upper_tri"])
"""Atoms that cvxpy replaces by approximations when it solves, or does not evaluate."""

UNNAMED = {
    *("EXP_ATOMS", "GP_EXP_ATOMS", "GP_NONPOS_ATOMS", "NONPOS_ATOMS", "POWCONE_ATOMS", "POWCONE_ND_ATOMS"),
    *("PSD_ATOMS", "SOC_ATOMS"),
    *("AddExpression", "GeoMean", "GeoMeanApprox", "MatrixFrac", "MulExpression", "Pnorm", "PnormApprox"),
    *("Power", "PowerApprox", "Prod", "QuadForm", "Sum", "Trace"),
}
"""Names in ``cvxpy.atoms`` that are lists, or classes that functions of other names make."""
