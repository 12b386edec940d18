"""Fit in unconstrained space: a Gaussian, a mixture and a hidden Markov model by plain gradient descent.

    python examples/13_fit_in_unconstrained_space.py

Covariances must stay positive definite, probabilities must sum to one: bijectors see to that, and the descent knows no
constraint. Each fit is held against the exact answer or against EM. Writes fits.png into the folder `output`.
"""

# %% What we need
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import solvers as sv

SIZES = {"full": dict(count=400, steps=800, rounds=200), "tiny": dict(count=200, steps=400, rounds=200)}
BIJECTORS = {"weights": sv.Simplex(), "means": sv.Real(), "factors": sv.CovarianceCholesky(2)}


# %% Log likelihoods of constrained parameters, and nothing about constraints in them
def components(y: jax.Array, p: dict) -> jax.Array:
    """Log density of each component, N(mean, factor factor^T), at each datum, up to a constant: (count, components)."""
    white = jnp.einsum("kij,nkj->nki", jnp.linalg.inv(p["factors"]), y[:, None] - p["means"])
    return -0.5 * jnp.sum(white**2, axis=2) - jnp.sum(jnp.log(jnp.diagonal(p["factors"], axis1=1, axis2=2)), axis=1)


def independent(logs: jax.Array, weights: jax.Array) -> jax.Array:
    """Log likelihood of a mixture from the densities of its components."""
    return jnp.sum(jax.nn.logsumexp(jnp.log(weights) + logs, axis=1))


def chained(logs: jax.Array, weights: jax.Array) -> jax.Array:
    """Log likelihood of a hidden Markov model by the forward recursion; all first states are alike."""

    def forward(belief: jax.Array, log: jax.Array) -> tuple:
        return jax.nn.logsumexp(belief[:, None] + jnp.log(weights), axis=0) + log, None

    return jax.nn.logsumexp(jax.lax.scan(forward, logs[0], logs[1:])[0])


# %% EM for both: what its E step asks for are derivatives of the log likelihood
def em(y: jax.Array, start: dict, law: Callable, rounds: int) -> dict:
    """Expectation maximisation: shares are d law / d log densities, counts are d law / d log weights."""

    def once(_: int, p: dict) -> dict:
        share, slope = jax.grad(law, argnums=(0, 1))(components(y, p), p["weights"])
        counts, total = slope * p["weights"], jnp.sum(share, axis=0)
        means = share.T @ y / total[:, None]
        away = y[:, None] - means
        covariances = jnp.einsum("nk,nki,nkj->kij", share, away, away) / total[:, None, None]
        weights = counts / jnp.sum(counts, axis=-1, keepdims=True)
        return {"weights": weights, "means": means, "factors": jnp.linalg.cholesky(covariances)}

    return jax.jit(lambda p: jax.lax.fori_loop(0, rounds, once, p))(start)


# %% The descent: any log likelihood, any bijectors. No volume, for this is an optimum and no density
@partial(jax.jit, static_argnums=(2, 3))
def fit(y: jax.Array, start: dict, law: Callable, steps: int) -> tuple[dict, jax.Array]:
    """Parameters that maximise the log likelihood, and minus its value at each step."""
    space = sv.Unconstrained(lambda p: law(components(y, p), p["weights"]), BIJECTORS)
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, steps))

    def step(carry: tuple, _: None) -> tuple:
        u, state = carry
        loss, slope = jax.value_and_grad(lambda u: -space.logdensity(space.constrain(u)))(u)
        change, state = optimiser.update(slope, state)
        return (optax.apply_updates(u, change), state), loss

    u = space.unconstrain(start)
    (u, _), losses = jax.lax.scan(step, (u, optimiser.init(u)), None, steps)
    return space.constrain(u), losses


def main(size: str = "full", out: str | Path = "output") -> dict[str, float]:
    """Three fits and a picture; returns the largest difference of a parameter for each."""
    (count, steps, rounds), rng = SIZES[size].values(), np.random.default_rng(0)
    # %% Data: states drawn one by one, and states that stay for five steps; each adds noise of one shape
    centres, shape = np.array([[-2.0, 0.0], [0.5, 1.5], [2.0, -1.0]]), np.array([[0.9, 0.0], [0.5, 0.6]])
    drawn, stays = rng.choice(3, count, p=[0.5, 0.3, 0.2]), np.repeat(rng.choice(3, count), 5)[:count]
    mixed, chain = (jnp.asarray(centres[k] + rng.normal(size=(count, 2)) @ shape.T) for k in (drawn, stays))
    # %% Rough starts, and the answers: that of one Gaussian is exact, the others are those of EM
    rough = {"means": 0.5 * centres + 0.3, "factors": np.broadcast_to(np.eye(2), (3, 2, 2))}
    one = {"weights": np.ones(1), **jax.tree.map(lambda x: x[:1], rough)}
    factor = np.linalg.cholesky(np.cov(mixed.T, bias=True))
    exact = {"weights": np.ones(1), "means": np.mean(mixed, axis=0)[None], "factors": factor[None]}
    even, still = ({"weights": np.full(n, 1 / 3), **rough} for n in (3, (3, 3)))
    cases = {
        "Gaussian": (mixed, one, independent, exact),
        "mixture": (mixed, even, independent, em(mixed, even, independent, rounds)),
        "hidden Markov model": (chain, still, chained, em(chain, still, chained, rounds)),
    }
    # %% The fits; in the picture ellipses of two deviations, ours as lines, the answers dotted
    differences, figure = {}, plt.figure(figsize=(10, 3.1), layout="constrained")
    circle = 2 * np.stack([np.cos(a := np.linspace(0, 2 * np.pi, 60)), np.sin(a)])
    for ax, (name, (y, start, law, answer)) in zip(figure.subplots(1, 3), cases.items(), strict=True):
        found, losses = fit(y, start, law, steps)
        differences[name] = max(float(np.max(np.abs(found[k] - np.asarray(answer[k])))) for k in found)
        print(f"{name}: log likelihood {-losses[0]:.2f} -> {-losses[-1]:.4f}, largest gap {differences[name]:.1e}")
        ax.scatter(*np.asarray(y).T, s=4, color="0.75")
        for p, style in ((found, "C0-"), (answer, "k:")):
            ellipses = np.asarray(p["means"])[..., None] + np.asarray(p["factors"]) @ circle
            ax.plot(ellipses[:, 0].T, ellipses[:, 1].T, style)
        ax.set(title=f"{name} ({'exact' if len(ellipses) == 1 else 'EM'}: dotted)", aspect="equal")
    Path(out).mkdir(parents=True, exist_ok=True)
    figure.savefig(Path(out) / "fits.png", dpi=110)
    plt.close(figure)
    assert max(differences.values()) < (1e-3 if size == "full" else 1e-2), "the descent did not arrive"
    return differences


if __name__ == "__main__":
    main()
