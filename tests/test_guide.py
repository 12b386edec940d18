"""The code of the guide for waves runs as it is printed, on a small problem."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "how_to.md"


@pytest.mark.slow
def test_the_code_for_many_shots_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert blocks
    given = {
        "sv": sv,
        "jax": jax,
        "grid": sv.Grid(16, 10.0),
        "speed": 1500.0,
        "faces": sv.Rigid(),
        "steps": 6,
        "dt": 1e-3,
        "signal": sv.ricker(100.0, steps=6, dt=1e-3),
        "line": [[30.0], [60.0]],
        "shots": jnp.linspace(40.0, 110.0, 5)[:, None],
    }
    code = "\n".join(blocks)
    exec(code.replace("records = jax.vmap", "at_once = jax.vmap"), given)  # noqa: S102
    assert given["records"].shape == (5, 6, 2) and np.abs(given["records"]).max() > 0
    np.testing.assert_allclose(given["at_once"], given["records"], rtol=1e-12)
