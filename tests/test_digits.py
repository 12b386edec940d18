"""The score of digits that comes with the library: what it generates, where its data are from, the demo's part."""

import numpy as np
import pytest

from solvers.demo.digits import digits_out_of_noise
from solvers.evidence import digits


@pytest.mark.parametrize("row", digits.ROWS, ids=lambda row: row.name)
def test_new_digits_keep_their_bounds(row):
    """One set of digits meets all bounds at once; it is generated once."""
    found = row.compute()
    assert found.ok, found


def test_the_measures_tell_digits_from_blots():
    """What a Gaussian with the moments of the data draws misses the bounds that the score keeps."""
    data = digits.scanned()
    flat = data.train.reshape(len(data.train), -1).astype(float)
    blots = np.random.default_rng(0).multivariate_normal(flat.mean(axis=0), np.cov(flat.T), digits.HELD)
    blots = digits.rounded(blots).reshape(data.held.shape)
    assert digits.squared_discrepancy(blots, data.held) > 0.03
    assert np.mean(digits.opinions(blots).max(axis=1) > 0.9) < 0.6
    assert np.mean(digits.opinions(data.held).argmax(axis=1) == data.held_labels) > 0.96


def test_the_digits_are_those_of_scikit_learn():
    bundled = pytest.importorskip("sklearn.datasets").load_digits()
    order = np.random.default_rng(0).permutation(1797)
    data = digits.scanned()
    np.testing.assert_array_equal(16 * np.concatenate([data.train, data.held]), bundled.images[order])
    np.testing.assert_array_equal(np.concatenate([data.train_labels, data.held_labels]), bundled.target[order])


def test_what_comes_along_is_small():
    assert sum(path.stat().st_size for path in digits.FOLDER.iterdir()) < 500_000


@pytest.mark.slow
def test_the_part_of_the_demo(tmp_path):
    chapter = digits_out_of_noise(tmp_path, quick=True)
    assert all((tmp_path / picture.file).stat().st_size > 1000 for picture in chapter.pictures)
    assert float(chapter.rows[0].ours) > 0.9
