"""Posteriors of others: means within four standard errors of the reference draws of posteriordb.

Magnusson and others, posteriordb: testing, benchmarking and developing Bayesian inference algorithms, AISTATS (2025).
"""

import pathlib

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

KEY = jax.random.key(3)


def assert_means(run, reference):
    """Every mean within four standard errors, ours and those of the reference: name -> (mean, mcse)."""
    summary = run.check().summary()
    assert summary.worst_r_hat < 1.02, summary
    for name, (mean, error) in reference.items():
        told = summary.numbers[name]
        z = (told.mean - np.asarray(mean)) / np.sqrt(told.mcse**2 + np.asarray(error) ** 2)
        assert np.all(np.abs(z) < 4), (name, z)
        # Seen to be right, not only not seen to be wrong: the error is a small part of the posterior's width.
        assert np.all(told.mcse < 0.1 * told.sd), (name, told)


@pytest.mark.slow
def test_eight_schools():
    """`solvers validate sampling.eight_schools` holds the scatter between schools against its quadrature."""
    target = sv.targets.eight_schools()
    start = jax.tree.map(lambda x: jax.random.normal(KEY, (4, *x.shape)), target.start)
    kernel = sv.Mala(target.logdensity, step=0.1)
    run = sv.sample(kernel, KEY, start, steps=4000, warmup=800, observe=target.parameters)
    theta = [6.1505, 4.9396, 3.9059, 4.7960, 3.6144, 4.0511, 6.3172, 4.8840]
    # The reference has 10 000 draws: its errors of theta are a hundredth of the posterior's width, 3.8 to 5.6.
    assert_means(run, {"mu": (4.4105, 0.033), "tau": (3.6021, 0.032), "theta": (theta, 0.056)})


def test_a_mixture():
    """Two normal laws in 1000 data; means in order."""
    y = jnp.asarray(np.loadtxt(pathlib.Path(__file__).parent / "low_dim_gauss_mix.txt").ravel() / 100)
    assert y.shape == (1000,)

    def posterior(p):
        mu, sigma, theta = p["mu"], p["sigma"], p["theta"]
        logs = -0.5 * ((y[:, None] - mu) / sigma) ** 2 - jnp.log(sigma) + jnp.log(jnp.stack([theta, 1 - theta]))
        prior = -0.5 * jnp.sum((mu / 2) ** 2) - 0.5 * jnp.sum((sigma / 2) ** 2) + 4 * jnp.log(theta * (1 - theta))
        return prior + jnp.sum(jax.nn.logsumexp(logs, axis=1))

    density = sv.Unconstrained(posterior, {"mu": sv.Ordered(), "sigma": sv.Positive(), "theta": sv.Interval(0.0, 1.0)})
    spread = jnp.linspace(-1.0, 1.0, 4)[:, None]
    guess = {"mu": jnp.array([-2.0, 2.0]) + spread, "sigma": jnp.exp(0.3 * spread) * jnp.ones(2)}
    start = density.unconstrain({**guess, "theta": jnp.full(4, 0.5)})
    run = sv.sample(sv.Mala(density, step=1e-3), KEY, start, steps=1500, warmup=500, observe=density.constrain)
    reference = {
        "mu": ([-2.73351, 2.86983], [4.2e-4, 5.6e-4]),
        "sigma": ([1.02807, 1.02382], [3.2e-4, 4.1e-4]),
        "theta": (0.621549, 1.5e-4),
    }
    assert_means(run, reference)


# Pelts in thousands, 1900 to 1920, Hudson's Bay Company.
HARE = "30 47.2 70.2 77.4 36.3 20.6 18.1 21.4 22 25.4 27.1 40.3 57 76.6 52.3 19.5 11.2 7.6 14.6 16.2 24.7"
LYNX = "4 6.1 9.8 35.2 59.4 41.7 19 13 8.3 9.1 7.4 8 12.3 19.5 45.7 51.1 29.7 15.8 9.7 10.1 8.6"


@pytest.mark.slow
def test_lotka_volterra():
    """Eight parameters of an ordinary differential equation, solved by diffrax; scores by forward mode."""
    times, data = jnp.arange(21.0), jnp.log(jnp.array([[float(x) for x in row.split()] for row in (HARE, LYNX)]).T)

    def change(t, z, theta):
        return jnp.stack([(theta[0] - theta[1] * z[1]) * z[0], (theta[3] * z[0] - theta[2]) * z[1]])

    def posterior(p):
        theta, first, sigma = p["theta"], p["first"], p["sigma"]
        z = diffrax.diffeqsolve(
            diffrax.ODETerm(change), diffrax.Tsit5(), 0.0, 20.0, 0.05, first, theta,
            saveat=diffrax.SaveAt(ts=times), stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-6),
            adjoint=diffrax.ForwardMode(), max_steps=500, throw=False,
        )  # fmt: skip
        logs = jnp.where(z.result == diffrax.RESULTS.successful, jnp.log(jnp.maximum(z.ys, 1e-30)), jnp.nan)
        likelihood = -0.5 * jnp.sum(((data - logs) / sigma) ** 2) - 21 * jnp.sum(jnp.log(sigma))
        rates = -0.5 * jnp.sum(((theta - jnp.array([1, 0.05, 1, 0.05])) / jnp.array([0.5, 0.05, 0.5, 0.05])) ** 2)
        widths = -0.5 * jnp.sum((jnp.log(sigma) + 1) ** 2) - jnp.sum(jnp.log(sigma))
        begin = -0.5 * jnp.sum((jnp.log(first) - jnp.log(10.0)) ** 2) - jnp.sum(jnp.log(first))
        return likelihood + rates + widths + begin

    density = sv.Unconstrained(posterior, {"theta": sv.Positive(), "first": sv.Positive(), "sigma": sv.Positive()})
    guess = {"theta": [0.6, 0.03, 0.8, 0.025], "first": [30.0, 5.0], "sigma": [0.3, 0.3]}
    factor = jnp.exp(0.1 * jnp.linspace(-1.0, 1.0, 4))[:, None]
    start = density.unconstrain({name: factor * jnp.array(x) for name, x in guess.items()})
    kernel = sv.Mala(density, step=1e-4, score=jax.jacfwd(density))
    choices = dict(steps=2000, warmup=1200, adapt=sv.AdaptLowRank(8), observe=density.constrain)
    reference = {
        "theta": ([0.546864, 0.0277473, 0.800095, 0.0240859], [6.3e-4, 4.1e-5, 8.8e-4, 3.5e-5]),
        "first": ([34.0352, 5.93590], [0.0293, 5.3e-3]),
        "sigma": ([0.248057, 0.251017], [4.4e-4, 4.4e-4]),
    }
    assert_means(sv.sample(kernel, KEY, start, **choices), reference)
