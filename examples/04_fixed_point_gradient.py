"""The gradient of an equilibrium: tolls that make selfish drivers share the roads of a town well.

    python examples/04_fixed_point_gradient.py

Drivers cross a grid of streets from one corner to the other. The time on a street grows with its traffic, and drivers
spread over the routes by a logit model of what each costs: time plus toll. So the flows f solve a fixed point,

    f = demand * R softmax(-R^T (time(f) + toll) / noise),    time(f) = free * (1 + 0.15 (f / capacity)^4),

with R the incidence of streets and routes. We choose the tolls that minimise what the town loses, by the gradient of
the equilibrium. Theory knows the answer: Pigou's toll, what a driver costs the others, f * dtime/df. Writes tolls.png
into the folder `output`.
"""

# %% What we need
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

import solvers as sv

SIZES = {"full": dict(side=4, rounds=40), "tiny": dict(side=3, rounds=6)}
DEMAND, NOISE = 8.0, 1.0  # thousand cars per hour, minutes


# %% A town: streets lead east or south, routes are all ways through
def town(side: int) -> tuple[list, np.ndarray]:
    """Streets as pairs of crossings, and the incidence (streets, routes)."""
    crossings = [(i, j) for i in range(side) for j in range(side)]
    streets = [(c, d) for c in crossings for d in ((c[0] + 1, c[1]), (c[0], c[1] + 1)) if d in crossings]
    routes, ends = [], [[(0, 0)]]
    while ends:
        way = ends.pop()
        onward = [d for c, d in streets if c == way[-1]]
        ends += [[*way, d] for d in onward]
        if not onward:
            routes.append([pair in set(pairwise(way)) for pair in streets])
    return streets, np.array(routes, float).T


def main(size: str = "full", out: str | Path = "output") -> np.ndarray:
    """Design tolls, draw, return the flows."""
    with jax.enable_x64(True):
        return design(SIZES[size]["side"], SIZES[size]["rounds"], Path(out))


def design(side: int, rounds: int, out: Path) -> np.ndarray:
    """The whole story for side x side crossings."""
    out.mkdir(parents=True, exist_ok=True)
    streets, routes = town(side)
    free = np.random.default_rng(5).uniform(2.0, 5.0, len(streets))  # minutes without traffic
    capacity = np.random.default_rng(6).uniform(1.5, 5.0, len(streets))  # thousand cars per hour

    # %% The equilibrium: what the drivers do is what they would do, given what they do
    def time(flow: jax.Array) -> jax.Array:
        return free * (1 + 0.15 * (flow / capacity) ** 4)

    def split(flow: jax.Array, toll: jax.Array) -> jax.Array:
        return jax.nn.softmax(-routes.T @ (time(flow) + toll) / NOISE)

    def choose(flow: jax.Array, toll: jax.Array) -> jax.Array:
        return DEMAND * routes @ split(flow, toll)

    start, none = choose(jnp.zeros(len(streets)), jnp.zeros(len(streets))), jnp.zeros(len(streets))
    # The equilibrium is unique, so it does not matter that the plain iteration would leave it.
    plain = sv.fixed_point(choose, start, none, method=sv.Picard(), max_steps=200)
    before = sv.fixed_point(choose, start, none, stability=0).check()
    print(f"plain iteration: {plain.status.name}; Anderson: {before.status.name}, {before.stats.evaluations} calls")

    # %% What the town loses: time, less what drivers gain by having a choice
    def loss(toll: jax.Array) -> jax.Array:
        flow = sv.fixed_point(choose, start, toll, rtol=1e-10, stability=0).value
        share = split(flow, toll)
        return flow @ time(flow) / DEMAND + NOISE * jnp.sum(share * jnp.log(share))

    # Does the gradient predict what the loss does?
    print(f"Taylor rate {sv.check_gradient(loss, none).check().remainders[1].rate:.2f}, expected 2")

    # %% Design the tolls: the equilibrium is solved anew in each round, its gradient costs one linear solve
    history = []

    def run(toll: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = both(jnp.asarray(toll))
        history.append(float(value))
        return history[-1], np.asarray(gradient)

    both = jax.jit(jax.value_and_grad(loss))
    found = minimize(run, np.zeros(len(streets)), jac=True, method="L-BFGS-B", options={"maxiter": rounds})
    after = sv.fixed_point(choose, start, jnp.asarray(found.x), stability=0).check()

    # %% Theory: the toll that the flows themselves make, one fixed point more
    def pigou(flow: jax.Array) -> jax.Array:
        return flow * 0.6 * free / capacity * (flow / capacity) ** 3

    best = sv.root(lambda flow: choose(flow, pigou(flow)) - flow, start, rtol=1e-12).check()
    optimum, off = float(loss(pigou(best.value))), float(jnp.abs(after.value - best.value).max())
    print(f"loss {history[0]:.4f} -> {history[-1]:.4f} min per driver, theory {optimum:.4f}; flows off by {off:.1e}")

    # %% Picture: the streets before and after, and the way there
    figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    titles = ("without tolls", "with designed tolls")
    for ax, found_flow, title in zip(axes[:2], (before.value, after.value), titles, strict=True):
        load = np.asarray(found_flow) / capacity
        for (a, b), x in zip(streets, load, strict=True):
            ax.plot([a[1], b[1]], [-a[0], -b[0]], linewidth=1 + 5 * x, color=plt.cm.viridis_r(min(x / 1.5, 1)))
        ax.set_title(f"{title}: fullest street at {load.max():.0%} of capacity")
        ax.axis("off")
    axes[2].semilogy(np.array(history) - optimum + 1e-12, "o-", markersize=3)
    axes[2].set(xlabel="equilibria solved", ylabel="loss above that of theory (minutes)")
    figure.savefig(out / "tolls.png", dpi=120)
    return np.asarray(after.value)


if __name__ == "__main__":
    main()
