"""What an update depends on, read off its tape: found out once, as silence there would be a zero gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cvxfold.fold.tape import UpdateTape

_ASIDE = 1e-3


def leaves_reached(outputs: Sequence[Tensor], through: Sequence[Tensor]) -> tuple[set[int], bool]:
    """Which of the tensors ``through`` the outputs depend on, by place, and whether on any other leaf.

    What lies behind one of those is not looked at.
    """
    ends = {_node(tensor): [] for tensor in through}
    for place, tensor in enumerate(through):
        ends[_node(tensor)].append(place)
    reached: set[int] = set()
    others = False
    front = [output.grad_fn for output in outputs if output.grad_fn is not None]
    seen = set(front)
    while front:
        node = front.pop()
        if node in ends:
            reached.update(ends[node])
            continue
        others |= hasattr(node, "variable")  # accumulates the gradient of a leaf
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                front.append(following)
    return reached, others


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
    return others


def beside(x: Sequence[Tensor]) -> list[Tensor]:
    """x moved a little, in all entries."""
    return [leaf.detach() + _ASIDE * (1 + leaf.detach().abs()) for leaf in x]
