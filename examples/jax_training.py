"""Learn what a controller minds: imitate its inputs by a layer that solves for them, under ``jax.jit``.

An expert steers a double integrator by model predictive control with weights w on position, speed and effort.
From its first inputs alone the weights are learned, up to their scale, by gradient steps in log w.
"""

from typing import Any

import cvxpy as cp
import jax
import jax.numpy as jnp
import numpy as np

from cvxfold.jax import CvxpyLayer

HORIZON = 8
DYNAMICS, INPUT = np.array([[1.0, 0.3], [0.0, 1.0]]), np.array([0.045, 0.3])


def controller() -> CvxpyLayer:
    """From the state ``(2,)`` and the roots of the three weights to the planned inputs ``(HORIZON,)``."""
    states, inputs = cp.Variable((HORIZON + 1, 2)), cp.Variable(HORIZON)
    start, roots = cp.Parameter(2), cp.Parameter(3, nonneg=True)
    cost = (
        cp.sum_squares(roots[0] * states[1:, 0])
        + cp.sum_squares(roots[1] * states[1:, 1])
        + cp.sum_squares(roots[2] * inputs)
    )
    moves = [states[k + 1] == DYNAMICS @ states[k] + INPUT * inputs[k] for k in range(HORIZON)]
    problem = cp.Problem(cp.Minimize(cost), [states[0] == start, *moves, cp.abs(inputs) <= 1])
    return CvxpyLayer(problem, [start, roots], [inputs])


def train(steps: int = 200, batch: int = 32, rate: float = 3.0) -> tuple[list[float], Any, Any]:
    """The losses, the learned weights and the expert's, both relative to that of the effort."""
    layer = controller()
    states = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (batch, 2)))
    expert = jnp.log(jnp.asarray([2.0, 0.5, 0.2]))

    def inputs(logs: Any) -> Any:
        roots = jnp.exp(logs / 2)
        return jax.vmap(lambda state: layer(state, roots)[0][0])(states)

    demonstrated = inputs(expert)

    def loss(logs: Any) -> Any:
        return ((inputs(logs) - demonstrated) ** 2).mean()

    @jax.jit
    def step(logs: Any, speed: Any) -> tuple[Any, Any, Any]:
        value, gradient = jax.value_and_grad(loss)(logs)
        speed = 0.8 * speed - rate * gradient
        return logs + speed, speed, value

    logs, speed, losses = jnp.zeros(3), jnp.zeros(3), []
    for _ in range(steps):
        logs, speed, value = step(logs, speed)
        losses.append(float(value))
    print(layer.report)
    return losses, jnp.exp(logs - logs[2]), jnp.exp(expert - expert[2])


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    losses, found, true = train()
    print(f"loss {losses[0]:.2e} → {losses[-1]:.2e}")
    print(f"weights {np.asarray(found)}, the expert's {np.asarray(true)}")
