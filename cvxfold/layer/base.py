"""What a layer is whatever framework it serves: a canonicalized problem, its options, and what lasts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import cvxpy as cp
import torch
from torch import Tensor

from cvxfold.compat.functorch import dual_numbers, lasting
from cvxfold.layer.options import OPTIONS, LayerOptions, Options, PluginOptions
from cvxfold.layer.parts import LayerParts
from cvxfold.layer.plain import CallForms, PlainArguments
from cvxfold.layer.said import Said
from cvxfold.layer.session import Session
from cvxfold.layer.shortcut import ShortCall
from cvxfold.layer.solver_args import updated
from cvxfold.problem.arguments import Arguments, prepare
from cvxfold.problem.canonical import canonicalize
from cvxfold.problem.parametrize import Parametrization
from cvxfold.problem.recover import Recovery, looks_of
from cvxfold.problem.structure import OutputSpec, ParameterSpec
from cvxfold.problem.values import ProgramValues
from cvxfold.report.report import Report


@dataclass(frozen=True)
class Source:
    """What a layer was made from. Copies of the layer share it; a file or another process gets None."""

    problem: cp.Problem
    parameters: Sequence[cp.Parameter]
    variables: Sequence[cp.Variable]
    gp: bool

    def __deepcopy__(self, _: dict[int, Any]) -> "Source":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()


class BaseLayer:
    """A parametrized problem, what was asked for, and what solves it; the layers' own ways in are theirs.

    Args:
        problem, parameters, variables, solver, gp, verbose, canon_backend, solver_args, **options: of the
            layer, as :class:`cvxfold.torch.CvxpyLayer` explains them.
    """

    def __init__(
        self,
        problem: cp.Problem,
        parameters: Sequence[cp.Parameter],
        variables: Sequence[cp.Variable],
        solver: str | None = None,
        gp: bool = False,
        verbose: bool = False,
        canon_backend: str | None = None,
        solver_args: Mapping[str, Any] | None = None,
        **options: Unpack[LayerOptions],
    ) -> None:
        given = PluginOptions(solver=solver, verbose=verbose, **options)
        said = Said()
        self._options = updated(Options.of(given), solver_args, said)
        self._canonical = canonicalize(
            problem, parameters, variables, gp=gp, verbose=verbose, canon_backend=canon_backend
        )
        self.source: Source | None = Source(problem, tuple(parameters), tuple(variables), gp)
        canonical = self._canonical
        self._session = Session(
            canonical.structure, canonical.moving, self._options.engine, looks_of(canonical)
        )
        self._session.said = said
        self._maps: dict[torch.device, tuple[Parametrization, list[Recovery]]] = {}
        self._parts: dict[torch.device, LayerParts] = {}
        self._forms = CallForms(canonical.parameters, canonical.outputs)

    def forget(self) -> None:
        """Forget the solutions that calls with ``warm_start=True`` start from, and so free their memory."""
        self._session.starts.forget()

    def program(
        self, *params: Tensor, invalid_is_error: bool = True
    ) -> tuple[Arguments, ProgramValues, list[Recovery]]:
        """The cone programs of a batch of parameter values, and the way from their solutions to outputs."""
        arguments = prepare(params, self._canonical.parameters, invalid_is_error=invalid_is_error)
        parametrization, recoveries = self._on(arguments.device)
        return arguments, parametrization(arguments.tensors), recoveries

    @property
    def session(self) -> Session:
        """What solves and differentiates the cone programs, and lasts from call to call."""
        return self._session

    @property
    def options(self) -> Options:
        """What the layer was asked for."""
        return self._options

    @property
    def parameters_of_problem(self) -> Sequence[ParameterSpec]:
        """The problem's parameters, in the order of the arguments."""
        return self._canonical.parameters

    @property
    def variables_of_problem(self) -> Sequence[OutputSpec]:
        """What is returned."""
        return self._canonical.outputs

    def recoveries(self, device: torch.device) -> Sequence[Recovery]:
        """The ways from x and y to what is returned."""
        return self._on(device)[1]

    @property
    def report(self) -> Report:
        """The record of the last call, also of one that raised an error; of no instance before the first."""
        return self._session.report

    def on_report(self, callback: Callable[[Report], Any]) -> Callable[[], None]:
        """Have a function called with the report after each pass, forward and backward.

        Args:
            callback: takes the report; its ``backward`` is None after a forward pass.

        Returns:
            A function that ends this.

        Example:
            >>> end = layer.on_report(lambda report: report.backward and log(report.to_dict()))
        """
        return self._session.on_report(callback)

    def extra_repr(self) -> str:
        """What the layer maps to what, and its options where they are not the defaults, in a line."""
        from cvxfold.layer.shown import changed

        entries = self._shapes | {"options": changed(OPTIONS, self._options.given)}
        return "; ".join(f"{name}: {told}" for name, told in entries.items())

    @property
    def _shapes(self) -> dict[str, str]:
        """Names and shapes of the parameters and of what is returned, in words."""
        from cvxfold.layer.shown import shapes

        names = None if self.source is None else [variable.name() for variable in self.source.variables]
        outputs = [output.shape for output in self._canonical.outputs]
        return {
            "parameters": shapes((spec.name, spec.shape) for spec in self._canonical.parameters) or "none",
            "returns": shapes(zip(names or [""] * len(outputs), outputs, strict=True)),
        }

    def _repr_html_(self) -> str:
        """The layer and its last report for notebooks."""
        from cvxfold.layer.shown import changed, cones, shown

        structure = self._canonical.structure
        entries = self._shapes | {
            "cone program": f"{structure.n:,} variables, {structure.m:,} rows: {cones(structure.cones)}",
            "engine": self._session.engine.name,
            "options": changed(OPTIONS, self._options.given),
        }
        return shown(type(self).__name__, entries, self.report)

    def short_call(self, params: Sequence[Tensor], options: Options) -> ShortCall | None:
        """The call by the engine's shortcut, where there is one and all is plain."""
        if (
            not options.are_plain
            or dual_numbers()
            or (shortcut := self._session.shortcut(self._canonical)) is None
        ):
            return None
        arguments = PlainArguments.of(params, self._forms)
        if arguments is None:
            return None
        return ShortCall(self._parts_on(arguments.form.device), shortcut, options, arguments)

    def say_uneven(self, names: Sequence[str]) -> None:
        """Warn, once, that parameters of these names are not as symmetric as they are declared."""
        if names:
            self._session.said.once(
                "uneven",
                f"{', '.join(names)}: declared symmetric or Hermitian, but not so to rounding; the upper "
                "triangle is read, and has the gradient, as in cvxpylayers",
            )

    def _parts_on(self, device: torch.device) -> LayerParts:
        """What a call by the shortcut needs of the layer, made at its first use on a device."""
        if device not in self._parts:
            self._parts[device] = self._new_parts(device)
        return self._parts[device]

    def _new_parts(self, device: torch.device) -> LayerParts:
        without_logarithms = replace(
            self._canonical, parameters=tuple(replace(spec, log=False) for spec in self._canonical.parameters)
        )
        with lasting():
            parametrize = Parametrization(without_logarithms, device)
        return LayerParts(self._session, self._canonical.outputs, parametrize)

    def _on(self, device: torch.device) -> tuple[Parametrization, list[Recovery]]:
        """The maps to and from the cone program on a device, made at its first use."""
        if device not in self._maps:
            with lasting():
                recoveries = [Recovery(spec, device) for spec in self._canonical.outputs]
                self._maps[device] = (Parametrization(self._canonical, device), recoveries)
        return self._maps[device]
