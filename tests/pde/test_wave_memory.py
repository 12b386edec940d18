"""Memory as promised, by the compiler's own account, and a loop that copies no field."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv


def temporary(n, steps, adjoint, wrt, *, boundary=None):
    """Temporary bytes of a gradient in fields of n x n in float32."""
    grid = sv.Grid((n, n), 10.0)
    receivers = np.stack([np.full(50, 40.0), np.linspace(20.0, 10.0 * n - 30, 50)], 1)

    def misfit(speed, signal, pressure):
        wave = sv.Wave(grid, speed, boundary=boundary or sv.Rigid(), sources=[[10.0 * n / 2, 10.0 * n / 3]])
        run = sv.simulate(wave, wave.state(pressure), steps=steps, dt=1e-3, inputs=signal,
                          observe=wave.receivers(receivers), adjoint=adjoint)  # fmt: skip
        return jnp.sum(run.observed**2)

    field = jax.ShapeDtypeStruct((n, n), jnp.float32)
    signal = jax.ShapeDtypeStruct((steps,), jnp.float32)
    compiled = jax.jit(jax.grad(misfit, argnums=wrt)).lower(field, signal, field).compile()
    return compiled.memory_analysis().temp_size_in_bytes / (4 * n * n)


@pytest.mark.parametrize(("levels", "fields"), [(2, 115), (4, 62)])
def test_a_gradient_of_1024_steps_at_256_squared(levels, fields):
    assert temporary(256, 1024, sv.Checkpoint(levels), 0) <= fields


@pytest.mark.parametrize("wrt", [1, 2], ids=["source", "initial state"])
@pytest.mark.parametrize("adjoint", [sv.StoreAll(), pytest.param(sv.Checkpoint(2), marks=pytest.mark.slow)])
@pytest.mark.parametrize("boundary", [sv.Rigid(), sv.Absorbing(6)], ids=["walls", "layers"])
def test_gradients_of_what_enters_linearly_keep_nothing_per_step(wrt, adjoint, boundary):
    """Signals and traces grow by a few numbers per step; no field may."""
    n = 64
    short, long = (temporary(n, steps, adjoint, wrt, boundary=boundary) for steps in (128, 1024))
    # Traces, their cotangents and these brought onto the line of receivers, in fields per step.
    per_step = 4 * (50 + n) / n**2
    assert long - short < 896 * per_step + 1


def test_memory_grows_as_promised():
    """Store-all by one field per step; L levels by the L-th root."""
    n, steps = 48, (256, 4096)
    grown = {}
    for adjoint in (sv.StoreAll(), sv.Checkpoint(2), sv.Checkpoint(3)):
        short, long = (temporary(n, s, adjoint, 0) for s in steps)
        # Traces and what the loop makes of them are kept for all steps whatever the strategy.
        traces = 4 * (50 + n) / n**2 * (steps[1] - steps[0])
        grown[str(adjoint)] = (long - short, traces)
    for name, power in (("StoreAll()", 1), ("Checkpoint(levels=2)", 2), ("Checkpoint(levels=3)", 3)):
        more, traces = grown[name]
        # Leapfrog keeps two fields at a checkpoint and one at a step: L (2^(L-1) T)^(1/L).
        promised = power * 2 ** ((power - 1) / power) * (steps[1] ** (1 / power) - steps[0] ** (1 / power))
        assert more < 1.25 * promised + traces + 2, name


def while_bodies(text):
    """Text of the computations that while loops run, and of all that these call."""
    blocks = {m[1]: m[0] for m in re.finditer(r"^(?:ENTRY )?%?([\w.\-]+)[^\n]*\{\n(?:.*\n)*?\}", text, re.M)}
    found, ahead = set(), set(re.findall(r"body=%?([\w.\-]+)", text))
    while ahead:
        found |= ahead
        named = (set(re.findall(r"%?([\w.\-]+)", blocks[name].split("\n", 1)[1])) for name in ahead & set(blocks))
        ahead = set().union(*named) & set(blocks) - found
    return [blocks[name] for name in found if name in blocks]


def test_a_copy_in_an_outlined_computation_is_seen():
    text = """\
%outlined (a: f32[4]) -> f32[4] {
  %a = f32[4] parameter(0)
  ROOT %c = f32[4] copy(%a)
}

%body (b: f32[4]) -> f32[4] {
  %b = f32[4] parameter(0)
  ROOT %d = f32[4] call(%b), to_apply=%outlined
}

ENTRY %main (e: f32[4]) -> f32[4] {
  %e = f32[4] parameter(0)
  ROOT %f = f32[4] while(%e), condition=%cond, body=%body
}
"""
    bodies = while_bodies(text)
    assert len(bodies) == 2 and any("copy(" in body for body in bodies)


def test_the_compiled_loop_copies_no_field():
    """Free surface and layers, a source and receivers, in single precision: no copy of a field or of its padding."""
    shape, order, width = (90, 110), 8, 10
    wave = sv.Wave(sv.Grid(shape, 10.0), np.float32(1500), order=order, sources=[[200.0, 300.0]],
                   boundary=((sv.Free(), sv.Absorbing(width)), sv.Absorbing(width)))  # fmt: skip

    def run(signal):
        return sv.simulate(wave, wave.at_rest(), steps=1000, dt=1e-3, inputs=signal,
                           observe=wave.receivers([[20.0, 100.0], [20.0, 500.0], [50.0, 700.0]]),
                           adjoint=sv.StoreAll())  # fmt: skip

    text = jax.jit(run).lower(jnp.zeros(1000, jnp.float32)).compile().as_text()
    bodies = while_bodies(text)
    assert bodies
    extended = (shape[0] + width, shape[1] + 2 * width)
    sizes = {extended[0] * extended[1], (extended[0] + order) * (extended[1] + order)}
    copies = []
    for body in bodies:
        for line in body.splitlines():
            found = re.search(r"= f32\[([\d,]+)\]\S* copy(?:-start)?\(", line)
            if found and np.prod([int(n) for n in found[1].split(",")]) in sizes:
                copies.append(line.strip()[:160])
    assert not copies, "\n".join(copies)
