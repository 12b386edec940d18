"""The doors of generation: nothing stale, nothing silently wrong, memory that all samples share."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.sampling.flow import Flow, check_kinds
from solvers.sampling.reverse import _adjoint, _Options, _Reverse

KEY = jax.random.key(0)
NOISE = sv.VarianceExploding(0.1, 10.0)
POINT = jnp.array([[0.3, -0.2]])


def by_centre(place):
    """A Gaussian score about a centre that may change."""
    return lambda x, sigma: (place["centre"] - x) / (1 + sigma**2)


def test_a_score_that_reads_what_changes_is_asked_again():
    place = {"centre": 0.0}
    score = by_centre(place)

    def answers():
        start = jnp.ones((1, 2))
        draws = sv.generate(score, NOISE, KEY, shape=(1, 2), start=start, method=sv.Ddim(3))
        stein = sv.kernel_stein(lambda x: score(x, 0.1), np.array([[0.0], [1.0], [2.5]]))
        return float(draws[0, 0]), float(sv.log_likelihood(score, NOISE, POINT, KEY, rtol=1e-2)[0]), stein

    before, again = answers(), answers()
    place["centre"] = 3.0
    assert before == again
    assert all(abs(a - b) > 0.1 for a, b in zip(before, answers(), strict=True))


def test_samples_of_a_device_share_its_memory():
    """Storing all takes as much as all samples together; a budget below that leads to checkpoints."""
    flow = Flow(by_centre({"centre": 0.0}), NOISE)
    method, y = sv.ReverseSde(500), jnp.ones(64)
    levels = method.levels(NOISE)
    march, state = _Reverse(method, flow, KEY), (y, method.memory(y), jnp.zeros((), jnp.int32))
    given = dict(steps=500, dt=jnp.ones(()), inputs=levels)

    def chosen(memory, lanes):
        return _adjoint(march, state, given, _Options((64,), y.dtype, True, False, "auto", memory, lanes))

    table = sv.plan(march, state, **given, memory="1GB")
    storing, least = table.options[0].bytes, min(option.bytes for option in table.options)
    assert chosen(2 * storing, 1) == sv.StoreAll()
    assert isinstance(chosen(2 * storing, 4), sv.Checkpoint)
    with pytest.raises(ValueError, match="fewer samples"):
        chosen(least, 2)
    # Without a limit of the user's there is none for a run that only goes forwards.
    assert isinstance(chosen(None, 10**9), sv.Checkpoint)


@pytest.mark.slow
def test_the_memory_of_a_gradient_keeps_to_the_budget():
    def value(start, memory):
        score = sv.MixtureScore(jnp.zeros(64), 1.0, NOISE)
        draws = sv.generate(score, NOISE, KEY, shape=(256, 64), start=start, method=sv.ReverseSde(500), memory=memory)
        return jnp.sum(draws**2)

    program = jax.jit(jax.grad(lambda start: value(start, "200MB"))).lower(jnp.ones((256, 64))).compile()
    assert program.memory_analysis().temp_size_in_bytes < 200e6


def test_a_score_made_for_another_noise_is_refused():
    """VE and EDM have the same alpha at the same sigma; so have two variance-preserving noises of different rates."""
    network = sv.ScoreMlp(2, KEY, width=8, depth=1)
    preserving = network.bound(sv.VariancePreserving(), 0.0, 1.0)
    check_kinds(network, sv.Edm(), KEY)
    check_kinds(preserving, sv.VariancePreserving(0.2, 30.0), KEY)
    for score, other in [
        (network, sv.VariancePreserving()),
        (preserving, NOISE),
        (preserving, sv.SubVariancePreserving()),
        (sv.MixtureScore(jnp.zeros(2), 1.0, NOISE), sv.VariancePreserving()),
    ]:
        with pytest.raises(ValueError, match="made for"):
            sv.generate(score, other, KEY, shape=(2, 2))
        with pytest.raises(ValueError, match="made for"):
            sv.log_likelihood(score, other, POINT, KEY)


def test_labels_that_a_network_does_not_know_are_refused():
    network, plain = (sv.ScoreMlp(2, KEY, width=8, depth=1, classes=c) for c in (2, 0))
    data, ten = jax.random.normal(KEY, (50, 2)), jnp.arange(50) % 10
    for score, word in [(network, "knows 2 classes"), (plain, "no classes")]:
        with pytest.raises(ValueError, match=word):
            sv.generate(score, NOISE, KEY, shape=(2, 2), condition=sv.Labels(7))
        with pytest.raises(ValueError, match=word):
            sv.fit_score(score, NOISE, data, KEY, 3, labels=ten)
    with pytest.raises(ValueError, match="no classes"):
        plain(POINT[0], 1.0, jnp.asarray(1))
    with pytest.raises(TypeError, match="label"):
        sv.generate(lambda x, sigma: -x, NOISE, KEY, shape=(2, 2), condition=sv.Labels(1))
    # Under a transformation nobody can look: NaN, and not the nearest class.
    told = jax.vmap(lambda label: network.conditioning(jnp.asarray(0.1), label))(jnp.array([-2, -1, 1, 2]))
    assert np.isnan(told).any(axis=1).tolist() == [True, False, False, True]


def test_wrong_kinds_are_named():
    def score(x, sigma):
        return -x

    network, data = sv.ScoreMlp(2, KEY, width=8, depth=1), jax.random.normal(KEY, (9, 2))
    for call, word in [
        (lambda: sv.generate(score, NOISE, KEY, shape=(2, 2), condition=3), "condition"),
        (lambda: sv.fit_score(network, 0.1, data, KEY, 3), "noise"),
        (lambda: sv.fit_score(network, NOISE, data, 3, 3), "key"),
        (lambda: sv.fit_score(network, NOISE, data, KEY, 3, loss="dsm"), "loss"),
        (lambda: sv.log_likelihood(score, 0.1, POINT, KEY), "noise"),
        (lambda: sv.log_likelihood(score, NOISE, POINT, 0), "key"),
        (lambda: sv.log_likelihood(score, NOISE, POINT, KEY, 3.0), "prior"),
        (lambda: sv.Heun(5, rho="a"), "rho"),
        (lambda: sv.ProbabilityFlow(rtol="a"), "rtol"),
    ]:
        with pytest.raises(TypeError, match=word):
            call()


@pytest.mark.parametrize("kind", [sv.VariancePreserving, sv.SubVariancePreserving])
def test_a_sigma_that_is_one_in_single_precision_is_no_division_by_zero(kind):
    noise = kind(jnp.float32(0.1), jnp.float32(40.0), jnp.float32(0.01))
    sigma = noise.scales(noise.ratio_max())[1]
    assert float(sigma) == 1.0
    ratio = noise.ratio(sigma)
    # 1 - sigma lies below a quarter of the machine epsilon, or half a spacing.
    assert bool(jnp.isfinite(ratio)) and ratio >= noise.ratio(jnp.nextafter(sigma, jnp.float32(0.0)))
    assert bool(jnp.isnan(noise.ratio(jnp.float32(1.5))))
    score = sv.ScoreMlp(2, KEY, width=8, depth=1).bound(noise, 0.0, 1.0)
    # Untrained, it is the exact score of N(0, 1), which this noise leaves as it is.
    value = score(jnp.ones(2, jnp.float32), sigma)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, -1.0, rtol=1e-5)


@pytest.mark.slow
def test_forward_mode_by_another_adjoint():
    """The derivative of log p is the score, that of the flow of a Gaussian its ratio of deviations."""
    score, push = sv.MixtureScore(jnp.zeros(2), 1.0, NOISE), jnp.ones((1, 2))
    forward = diffrax.ForwardMode()

    def logp(x):
        end = lambda e: score.logdensity(e, NOISE.sigma_max)  # noqa: E731
        return sv.log_likelihood(score, NOISE, x, KEY, end, adjoint=forward, rtol=1e-8)

    slope = jax.jvp(logp, (POINT,), (push,))[1]
    np.testing.assert_allclose(slope, [jnp.sum(score(POINT[0], NOISE.sigma_min))], rtol=1e-5)
    method = sv.ProbabilityFlow(rtol=1e-8, adjoint=forward)

    def flow(x):
        return sv.generate(score, NOISE, KEY, shape=(1, 2), start=x, method=method, denoise=False)

    moved = jax.jvp(flow, (POINT,), (push,))[1]
    np.testing.assert_allclose(moved, np.sqrt(1.01 / 101) * push, rtol=1e-5)


DATA = jax.random.normal(KEY, (40, 1))


@pytest.mark.slow
def test_training_notes_at_any_interval_and_goes_on_with_the_defaults(tmp_path):
    """A prime number of steps, more steps with another default interval, another average or network."""
    network = sv.ScoreMlp(1, KEY, width=8, depth=1)
    given = dict(network=network, noise=NOISE, data=DATA, key=KEY, batch=4)
    file = tmp_path / "fit"
    first = sv.fit_score(**given, steps=101, every=40, checkpoint=file)
    assert first.steps.tolist() == [40, 80, 101] and np.all(np.isfinite(first.validation))
    more = sv.fit_score(**given, steps=211, every=40, checkpoint=file)
    whole = sv.fit_score(**given, steps=211, every=40)
    assert eqx.tree_equal(more.score, whole.score)
    assert more.steps.tolist() == [40, 80, 120, 160, 200, 211]
    np.testing.assert_array_equal(more.loss, whole.loss)
    np.testing.assert_array_equal(more.validation, whole.validation)
    for other in (dict(average=0.99999), dict(drop_labels=0.3)):
        with pytest.raises(sv.CheckpointError, match="another run"):
            sv.fit_score(**given, steps=211, every=40, checkpoint=file, **other)
    unet = sv.ScoreMlp(1, KEY, width=16, depth=3)
    with pytest.raises(sv.CheckpointError, match="another network") as told:
        sv.fit_score(**{**given, "network": unet}, steps=211, checkpoint=file)
    assert len(str(told.value)) < 600
