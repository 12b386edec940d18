"""Losses against the closed-form optimum of a linear score, networks, training with resume, files."""

import signal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.sampling.networks import _as_product, _convolved, _gathered, _scattered

KEY = jax.random.key(0)
FACTOR = jnp.array([[1.0, 0.0], [0.8, 0.5]])
COVARIANCE = FACTOR @ FACTOR.T
LOSSES = [sv.Denoising(), sv.Sliced(slices=2), sv.Sliced(law="gaussian"), sv.Implicit()]


@pytest.mark.parametrize(
    "loss",
    [*LOSSES[:2], *[pytest.param(loss, marks=pytest.mark.slow) for loss in LOSSES[2:]]],
    ids=["denoising", "rademacher", "gaussian", "implicit"],
)
def test_a_linear_score_has_the_same_optimum_under_every_loss(loss):
    """The minimiser over matrices P of the loss of -P x, against (S + sigma^2 I)^-1, within 5 standard errors.

    The loss is quadratic in P, so that one Newton step is exact. One level only: elsewhere P would be a compromise.
    """
    noise = sv.VarianceExploding(0.7, 0.7 + 1e-9)

    @jax.jit
    def optimum(key):
        first, second = jax.random.split(key)
        data = jax.random.normal(first, (4000, 2)) @ FACTOR.T

        def value(p):
            return loss(lambda x, sigma: -(p.reshape(2, 2) @ x), noise, data, second)

        zero = jnp.zeros(4)
        return -jnp.linalg.solve(jax.hessian(value)(zero), jax.grad(value)(zero))

    found = np.stack([optimum(k) for k in jax.random.split(KEY, 24)])
    truth = np.linalg.inv(COVARIANCE + 0.49 * np.eye(2)).ravel()
    assert np.all(np.abs(found.mean(axis=0) - truth) < 5 * found.std(axis=0, ddof=1) / np.sqrt(24))
    assert np.all(found.std(axis=0) < 0.1 * np.abs(truth).max())


def test_levels_cover_their_law_evenly():
    noise = sv.VarianceExploding(0.01, 10.0)
    uniform = np.sort(np.log(sv.Levels().draw(noise, KEY, 64, jnp.float64)))
    np.testing.assert_allclose(np.diff(uniform), np.log(1000) / 64, rtol=1e-9)
    normal = np.log(sv.Levels(-0.5, 0.4, 2.0).draw(noise, KEY, 4096, jnp.float32))
    assert normal.dtype == np.float32 and np.all(np.isfinite(normal))
    assert abs(normal.mean() - np.log(2.0) + 0.5) < 1e-3 and abs(normal.std() - 0.4) < 1e-2


def test_weightings_weigh():
    """The exact denoiser of a point mass at 0 has no error; a wrong one is weighed as the names promise."""
    noise, data = sv.VarianceExploding(0.5, 0.5 + 1e-9), jnp.zeros((64, 2))

    def wrong(x, sigma):
        return -2 * x / sigma**2

    plain = float(sv.Denoising()(wrong, noise, data, KEY))
    for name, weight in (("denoiser", 0.25), ("edm", 1.25), ("min_snr", 1.0), (lambda k: 3.0 * k, 1.5)):
        assert abs(float(sv.Denoising(name)(wrong, noise, data, KEY)) / plain - weight) < 1e-6
    assert float(sv.Denoising()(lambda x, sigma: -x / sigma**2, noise, data, KEY)) < 1e-20


def assert_gaussian(network, x):
    noise = sv.VariancePreserving()
    network, sigma, alpha = network.bound(noise, jnp.asarray(0.3), jnp.asarray(2.0)), noise.sigma(0.4), noise.alpha(0.4)
    expected = -(x - alpha * 0.3) / (alpha**2 * 4 + sigma**2)
    np.testing.assert_allclose(eqx.filter_jit(network)(x, sigma), expected, rtol=1e-9)


def test_an_untrained_network_is_a_gaussian_score_and_is_told_labels():
    network, x = sv.ScoreMlp(3, KEY, width=8, depth=1, classes=3), jnp.array([1.0, -0.3, 0.2])
    assert_gaussian(network, x)
    awake = eqx.tree_at(
        lambda n: (n.outward.weight, n.blocks[0].second.weight), network, replace_fn=lambda w: w + jnp.cos(w.shape[0])
    )
    told = eqx.filter_jit(lambda label: awake(x, 1.0, label))
    assert not np.allclose(told(0), told(2), rtol=1e-3) and not np.allclose(told(0), told(-1), rtol=1e-3)
    for build, word in [
        (lambda: sv.ScoreUNet((9, 8), KEY), "divisible"),
        (lambda: sv.ScoreUNet((8, 8), KEY, width=12), "multiple"),
        (lambda: sv.ScoreMlp(0, KEY), "dimensions"),
    ]:
        with pytest.raises(ValueError, match=word):
            build()


def test_patches_hold_neighbours_and_come_apart_again():
    image = jnp.arange(4 * 6 * 3.0).reshape(4, 6, 3)
    gathered = _gathered(image, 2)
    assert gathered.shape == (2, 3, 12)
    np.testing.assert_array_equal(gathered[1, 2], image[2:4, 4:6].ravel())
    np.testing.assert_array_equal(_scattered(gathered, 2), image)


@pytest.mark.parametrize("size", [1, 3])
def test_a_convolution_is_one_product(size):
    """What runs on processors, against XLA's convolution, with its derivatives."""
    image, weight = jax.random.normal(KEY, (4, 6, 2)), jax.random.normal(KEY, (size, size, 2, 3))
    for ours, theirs in zip(*(jax.vjp(f, image, weight) for f in (_as_product, _convolved)), strict=True):
        if callable(ours):
            ours, theirs = (f(jnp.cos(jnp.arange(72.0)).reshape(4, 6, 3)) for f in (ours, theirs))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-13), ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "patch"), [((8, 8), 1), ((2, 4, 8), 1), ((8, 8), 2)])
def test_an_untrained_unet_is_a_gaussian_score(shape, patch):
    network = sv.ScoreUNet(shape, KEY, width=8, resolutions=3, patch=patch)
    assert_gaussian(network, jax.random.normal(KEY, shape))


NOISE = sv.VarianceExploding(0.05, 10.0)
DATA = jnp.where(jax.random.uniform(KEY, (600, 1)) < 0.3, -1.0, 1.0) + 0.2 * jax.random.normal(KEY, (600, 1))


def small(key=KEY):
    return sv.ScoreMlp(1, key, width=16, depth=1)


def test_training_resumes_bit_for_bit_and_refuses_another_network(tmp_path):
    given = dict(steps=51, batch=16, every=3, learning_rate=0.01)
    whole = sv.fit_score(small(), NOISE, DATA, KEY, **given).check()
    file, told = tmp_path / "fit", []
    sv.fit_score(small(), NOISE, DATA, KEY, **{**given, "steps": 30}, checkpoint=file)
    longer = sv.fit_score(small(), NOISE, DATA, KEY, **given, checkpoint=file, progress=lambda *at: told.append(at))
    assert told[0] == (30, 51) and told[-1] == (51, 51)

    def interrupt(done, steps):
        if 0 < done < steps:
            signal.raise_signal(signal.SIGINT)

    # A process that was started in the background ignores the signal, until it is told not to.
    broken, before = tmp_path / "broken", signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            sv.fit_score(small(), NOISE, DATA, KEY, **given, checkpoint=broken, progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    again = sv.fit_score(small(), NOISE, DATA, KEY, **given, checkpoint=broken)
    for other in (longer, again):
        assert eqx.tree_equal(whole.score, other.score) and eqx.tree_equal(whole.network, other.network)
        np.testing.assert_array_equal(whole.loss, other.loss)
        np.testing.assert_array_equal(whole.validation, other.validation)
    assert whole.steps.tolist() == list(range(3, 52, 3)) and np.all(np.isfinite(whole.validation))
    assert whole.validation[-1] < whole.validation[0]
    with pytest.raises(sv.CheckpointError, match="another run"):
        sv.fit_score(sv.ScoreMlp(1, KEY, width=8, depth=1), NOISE, DATA, KEY, **given, checkpoint=file)


@pytest.mark.slow
def test_a_trained_score_is_close_to_the_true_one():
    """Two modes with a gap: the learned score generates them in their proportions, and beats a Gaussian by far."""
    fit = sv.fit_score(sv.ScoreMlp(1, KEY, width=64, depth=2), NOISE, DATA, KEY, 2000, learning_rate=3e-3).check()
    draws = sv.generate(fit.score, NOISE, jax.random.key(1), shape=(2000, 1))
    # 540 data leave a standard error of 0.02 in the weight, 2000 draws one of 0.01.
    assert abs(jnp.mean(draws < 0) - jnp.mean(DATA < 0)) < 0.06
    assert float(jnp.mean(jnp.abs(jnp.abs(draws) - 1) < 0.6)) > 0.97
    true = sv.MixtureScore(jnp.array([[-1.0], [1.0]]), jnp.array([0.2, 0.2]), NOISE, jnp.array([0.3, 0.7]))
    loss = sv.Denoising()
    best, ours, gaussian = (
        float(loss(s, NOISE, DATA, jax.random.key(5))) for s in (true, fit.score, small().bound(NOISE, 0.4, 0.95))
    )
    assert ours - best < 0.1 * (gaussian - best)


@pytest.mark.slow
def test_a_unet_learns_what_no_gaussian_score_tells():
    """Images that are bright or dark as a whole: most of the loss of the Gaussian score, with which it starts, goes."""
    images = jnp.ones((200, 4, 4)) * jnp.where(jnp.arange(200) % 2, 1.0, -1.0)[:, None, None]
    network = sv.ScoreUNet((4, 4), KEY, width=8, resolutions=2)
    fit = sv.fit_score(network, NOISE, images, KEY, 120, batch=16, learning_rate=0.01, average=0.9, every=120).check()
    # The true score of these images has 0.05 here.
    assert fit.validation[-1] < 0.4


@pytest.mark.slow
def test_labels_are_learned():
    labels = (DATA[:, 0] > 0).astype(int)
    network, noise = sv.ScoreMlp(1, KEY, width=16, depth=1, classes=2), sv.VariancePreserving()
    fit = sv.fit_score(network, noise, DATA, KEY, 120, labels=labels, learning_rate=0.02, every=120)
    score = eqx.filter_jit(fit.score)
    left, right = (score(jnp.zeros(1), noise.sigma(0.3), jnp.asarray(label))[0] for label in (0, 1))
    assert left < 0 < right


def test_a_score_comes_back_from_its_file(tmp_path):
    """With the noise and the moments that it was trained for; another network is refused."""
    network = small().bound(sv.SubVariancePreserving(0.2, 15.0), jnp.asarray(0.4), jnp.asarray(1.7))
    sv.save(tmp_path / "score", network)
    assert eqx.tree_equal(sv.load(tmp_path / "score", small(jax.random.key(9))), network)
    assert eqx.tree_equal(sv.load(tmp_path / "score", eqx.filter_eval_shape(small, jax.random.key(9))), network)
    for other, word in [
        (sv.ScoreMlp(1, KEY, width=8, depth=1), "other sizes"),
        (sv.ScoreMlp(1, KEY, width=16, depth=2), "another structure"),
        (NOISE, "VarianceExploding"),
    ]:
        with pytest.raises(sv.CheckpointError, match=word):
            sv.load(tmp_path / "score", other)
    with pytest.raises(ValueError, match="no array"):
        sv.save(tmp_path / "nothing", lambda x, sigma: -x)


def test_what_cannot_be_trained_is_refused():
    bad = DATA.at[3].set(jnp.nan)
    for given, word in [
        (dict(data=bad), "must be finite"),
        (dict(data=DATA[:, 0]), "leading axis"),
        (dict(data=jnp.ones((5, 1))), "the same"),
        (dict(steps=0), "steps"),
        (dict(average=1.0), "average"),
        (dict(learning_rate=-1.0), "learning_rate"),
        (dict(labels=jnp.zeros(3, int)), "labels"),
    ]:
        with pytest.raises((ValueError, TypeError), match=word):
            sv.fit_score(small(), NOISE, **{"data": DATA, "key": KEY, "steps": 5, **given})

    class Batch(eqx.Module):
        scale: jax.Array

        def __call__(self, x, sigma):
            return self.scale * x[None]

    with pytest.raises(ValueError, match="no batch axis"):
        sv.fit_score(Batch(jnp.ones(())), NOISE, DATA, KEY, 5)
    for network, data in [(small(), jnp.ones((9, 2))), (sv.ScoreUNet((4, 4), KEY, width=8), jnp.ones((9, 4, 5)))]:
        with pytest.raises(ValueError, match="is for"):
            sv.fit_score(network, NOISE, data.at[0].set(0.0), KEY, 5)
    with pytest.raises(ValueError, match="is for samples of shape"):
        sv.generate(small(), NOISE, KEY, shape=(3, 2))
    with pytest.raises(ValueError, match="nothing to train"):
        sv.fit_score(lambda x, sigma: -x, NOISE, DATA, KEY, 5)
    with pytest.raises(ValueError, match="weighting"):
        sv.Denoising("best")
    with pytest.raises(ValueError, match="law"):
        sv.Sliced(law="uniform")
