"""Sample a density: eight schools by Langevin dynamics, and how to tell whether to believe the draws.

    python examples/11_sample_a_density.py

Prints the diagnostics of three runs, two bad ones and a good one, and writes traces.png, marginals.png and
autocorrelation.png into the folder `output`.
"""

# %% What we need
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import solvers as sv

SIZES = {"full": dict(steps=5000, warmup=1000), "tiny": dict(steps=300, warmup=200)}

# %% The data: effects of coaching in eight schools, each with its standard error (Rubin 1981)
EFFECTS = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


# %% The model: schools scatter by tau around mu; z is the effect of a school in units of tau (non-centred)
def logdensity(position: dict) -> jax.Array:
    """Log density of mu ~ N(0, 5), tau ~ half-Cauchy(5), z ~ N(0, 1), in the unconstrained variables."""
    mu, log_tau, z = position["mu"], position["log_tau"], position["z"]
    tau = jnp.exp(log_tau)
    likelihood = -0.5 * jnp.sum(((EFFECTS - mu - tau * z) / ERRORS) ** 2)
    prior = -0.5 * (mu / 5.0) ** 2 - jnp.log1p((tau / 5.0) ** 2) - 0.5 * jnp.sum(z**2)
    return likelihood + prior + log_tau  # d tau = tau d log_tau


def told(position: dict) -> dict:
    """What we want to know of a draw."""
    return {"mu": position["mu"], "tau": jnp.exp(position["log_tau"])}


def main(size: str = "full", out: str | Path = "output") -> sv.Samples:
    """Run the chains, print the tables, write the pictures, return the good run."""
    out, choice = Path(out), SIZES[size]
    out.mkdir(parents=True, exist_ok=True)
    key = jax.random.key(0)

    # %% Four chains from different places: where they end must not depend on it
    spread = jax.random.normal(jax.random.key(1), (4, 10))
    starts = {"mu": 5 * spread[:, 0], "log_tau": spread[:, 1], "z": spread[:, 2:]}

    # %% A step that is much too small: everything is accepted, and nothing moves
    timid = sv.sample(sv.Mala(logdensity, step=1e-4), key, starts, steps=choice["steps"], observe=told)
    print(f"step 1e-4, acceptance {timid.acceptance.mean():.2f}\n{timid.summary()}\n")

    # %% A step that is much too large: nothing is accepted
    bold = sv.sample(sv.Mala(logdensity, step=30.0), key, starts, steps=choice["steps"], observe=told)
    print(f"step 30, acceptance {bold.acceptance.mean():.2f}\n{bold.summary()}\n")

    # %% A warm-up finds the step, and a scale for each unknown
    run = sv.sample(sv.Mala(logdensity, step=0.1), key, starts, observe=told, **choice).check()
    step = float(run.kernel.step_size)
    print(f"adapted step {step:.2f}, acceptance {run.acceptance.mean():.2f}\n{run.summary()}")

    # %% The truth: posterior means of a long reference run (posteriordb, eight_schools noncentered)
    truth = {"mu": 4.41, "tau": 3.60}
    for name, exact in truth.items():
        mean, mcse = (float(getattr(run.summary().numbers[name], what)) for what in ("mean", "mcse"))
        print(f"{name}: {mean:.2f} +- {mcse:.2f}, reference {exact:.2f}")

    # %% Pictures: traces of the timid and the good run, marginals, how fast the chains forget
    for name, chains in {"timid": timid, "traces": run}.items():
        axes = sv.plot.traces(jax.tree.map(lambda x: x[:, :2000], chains.draws), truth=truth)
        axes[0].set_title("step 1e-4: four chains that know nothing of each other" if name == "timid" else "adapted")
        axes[0].figure.savefig(out / f"{name}.png", dpi=110)
    sv.plot.marginals(run, truth=truth)[0].figure.savefig(out / "marginals.png", dpi=110)
    sv.plot.autocorrelation(run).figure.savefig(out / "autocorrelation.png", dpi=110)
    plt.close("all")
    assert np.isfinite(run.draws["tau"]).all()
    return run


if __name__ == "__main__":
    main()
