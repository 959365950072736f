"""Effects of edits that are finished early: linear estimates, their derivatives, and what they cost."""

from pathlib import Path

import numpy as np
import pytest
import torch
from headed import write_headed
from laws import assert_near
from test_edits import random_edits
from toys import genome, one_hot_table, tiny_stack
from truth import models

from genoscan.effects.edit_effects import edit_effects
from genoscan.effects.edit_sums import Terms
from genoscan.engine.edits import Edit
from genoscan.engine.inputs import OneHot
from genoscan.engine.linearised import linearise
from genoscan.engine.target import whole_window
from genoscan.errors import UnsupportedModelError
from genoscan.layer import leaves, map_leaves
from genoscan.model import load_model


def test_cotangents_are_derivatives_by_the_carry(two_threads: None) -> None:
    stack, table, codes = tiny_stack(n_layers=3), one_hot_table(), genome(120)
    target = whole_window(codes, torch.tensor([0, 1, 2, 3, -1]), 1)
    positions = {0, 7, 50, 119}
    found = linearise(stack, OneHot(codes, table), target, positions, tile=32, slots=3)
    assert set(found.cotangents) == positions
    for at in positions:
        carry = stack.begin(1)
        if at:
            _, carry = stack(table[codes[:, :at].long()], carry)
        carry = map_leaves(lambda leaf: leaf.detach().clone().requires_grad_(), carry)
        outputs, _ = stack(table[codes[:, at:].long()], carry)
        value = target(outputs, slice(at, 120)).sum()
        truth = torch.autograd.grad(value, leaves(carry), allow_unused=True, materialize_grads=True)
        for bar, own in zip(leaves(found.cotangents[at]), truth, strict=True):
            assert_near(bar, own, torch.float64)
        moved = map_leaves(lambda leaf: leaf.detach() + 1e-7 * torch.randn_like(leaf), carry)
        change = target(stack(table[codes[:, at:].long()], moved)[0], slice(at, 120)) - value.detach()
        estimate = found.change([at], moved, map_leaves(torch.detach, carry))
        assert float(estimate) == pytest.approx(float(change), rel=1e-3)


@pytest.mark.parametrize("weighted", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_estimates_are_near_and_cheap(tmp_path: Path, weighted: bool) -> None:
    model = load_model(models.native(tmp_path / "m", models.CAUSAL["mamba"]).folder, dtype=torch.float64, tile=256)
    (codes,) = genome(4_000, n_share=0.01)
    edits = [Edit(e.start, e.stop, e.codes, 4_000) for e in random_edits(1_500, 14, 10)]
    terms = Terms(torch.randn(4, dtype=torch.float64), first=500) if weighted else Terms(first=500)
    exact_run: list[int] = []
    exact = edit_effects(model, codes, edits, terms, progress=exact_run.append)
    previous = np.inf
    for tolerance in (1e-2, 1e-5, 1e-9):
        run: list[int] = []
        near = edit_effects(model, codes, edits, terms, tolerance=tolerance, progress=run.append)
        error = np.abs(near.delta - exact.delta).max()
        assert near.own == pytest.approx(exact.own, abs=1e-12)
        assert error <= tolerance + 1e-12
        assert error <= previous
        previous = error
        if tolerance > 1e-9:
            assert sum(run) < sum(exact_run) / 2
    assert previous < 1e-9


def test_a_tolerance_needs_a_causal_model(tmp_path: Path) -> None:
    model = load_model(write_headed(tmp_path / "m", "bidirectional"), tile=32)
    with pytest.raises(UnsupportedModelError, match="--tolerance"):
        edit_effects(model, genome(100)[0], [Edit(5, 6, (1,), 100)], Terms(), tolerance=1e-3)
