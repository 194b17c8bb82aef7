"""What an update depends on, read off its tape: found out once, as silence there would be a zero gradient."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from cvxfold.fold.tape import UpdateTape

_ASIDE = 1e-3


def graph_of(outputs: Sequence[Tensor], through: Sequence[Tensor]) -> set[Any]:
    """The nodes of autograd's graph behind the outputs, up to and with those of the tensors ``through``."""
    ends = {_node(tensor) for tensor in through}
    front = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(front)
    while front:
        node = front.pop()
        if node in ends:
            continue
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                front.append(following)
    return seen


def leaves_reached(outputs: Sequence[Tensor], through: Sequence[Tensor]) -> tuple[set[int], list[Tensor]]:
    """Which of the tensors ``through`` the outputs depend on, by place, and the other leaves that they do.

    What lies behind one of those is not looked at.
    """
    nodes = graph_of(outputs, through)
    ends = [_node(tensor) for tensor in through]
    reached = {place for place, end in enumerate(ends) if end in nodes}
    others = [node.variable for node in nodes if hasattr(node, "variable") and node not in ends]
    return reached, others


def closed_over(tape: UpdateTape, wanted: Sequence[Tensor]) -> list[Tensor]:
    """The leaves that y depends on beside x and the parameters that require a gradient."""
    return leaves_reached(tape.y, [*tape.x, *wanted])[1]


def _node(tensor: Tensor) -> object:
    """Where the gradient of a tensor arrives."""
    return torch.autograd.graph.get_gradient_edge(tensor).node


def check_reach(tape: UpdateTape, again: Sequence[Tensor], wanted: Sequence[tuple[str, Tensor]]) -> bool:
    """Check that y depends on all that should get a gradient; whether it depends on other leaves as well.

    Args:
        tape: of the update.
        again: F beside x, whatever autograd knows of it; leaves.
        wanted: the tensors that require a gradient, by name.

    Raises:
        ValueError: autograd sees no way from y to one of them, or to x although y changes with it.
    """
    through = [*tape.x, *(leaf for _, leaf in wanted)]
    reached, others = leaves_reached(tape.y, through)
    count = len(tape.x)
    for place, (name, _) in enumerate(wanted, start=count):
        if place not in reached:
            raise ValueError(
                f"update: expected a result that depends on params{name}, which requires a gradient, but "
                "autograd sees no way to it; is something detached, in numpy or under no_grad in the update? "
                "(A parameter that it does not use is to be passed with requires_grad=False.)"
            )
    if not any(place < count for place in reached):
        same = all(torch.equal(y, z) for y, z in zip(tape.y, again, strict=True))
        if not same:
            raise ValueError(
                "update: its result changes with x, but autograd sees no way to it; is x detached, in numpy "
                "or under no_grad in the update?"
            )
    return bool(others)


def beside(x: Sequence[Tensor]) -> list[Tensor]:
    """x moved a little, in all entries."""
    return [leaf.detach() + _ASIDE * (1 + leaf.detach().abs()) for leaf in x]
