"""The paper's operator against its definition, step by step, differentiated by autograd."""

from functools import cache

import pytest
import torch
from laws import TRANSFORMS, assert_near, assert_same_bits, inner, random_like
from simulated_cuda import simulated_cuda
from torch import Tensor
from torch.nn import functional as F

from benchmarks.interpreted import interpreting
from genoscan.errors import InputError
from genoscan.pgf import FrechetMambaOperator

LENGTHS = (1, 2, 3, 65, 130)


def operator(
    d_model: int = 10, d_state: int = 5, dtype: torch.dtype = torch.float64, *, window: int = 3
) -> FrechetMambaOperator:
    torch.manual_seed(2)
    made = FrechetMambaOperator(d_model, d_state, init_window=window)
    with torch.no_grad():
        made.D.normal_()
    return made.to(dtype)


def by_definition(made: FrechetMambaOperator, u: Tensor) -> Tensor:
    """Return y for one sequence, from the paper's equations."""
    length, d_model = u.shape
    h = u.new_zeros(d_model, made.d_state)
    if length >= made.init_window:
        h = made.init_estimator(u[: made.init_window].flatten()).view(d_model, made.d_state)
    rows = []
    for u_t in u:
        z = torch.outer(F.softplus(made.dt_proj(u_t)), -made.A_log.exp())
        # The mean of exp over 0..z: by its series the digits of z stay.
        phi = sum(z**k / torch.lgamma(torch.tensor(k + 2.0, dtype=z.dtype)).exp() for k in range(40))
        h = z.exp() * h + phi * made.B_proj(u_t) * u_t[:, None]
        rows.append(F.softplus(h @ made.C_proj(u_t) + made.D * u_t))
    return torch.stack(rows) * made.redshift_scale.clamp(min=0.5)


def question(length: int, d_model: int = 10, batch: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return an input, a direction and cotangents of the outputs."""
    shape = (batch, length, d_model) if batch else (length, d_model)
    return random_like((torch.zeros(shape, dtype=torch.float64),) * 3)


def truth(
    made: FrechetMambaOperator, u: Tensor, du: Tensor, y_bar: Tensor
) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    """Return y, dy, u_bar and every parameter's cotangent, by torch alone."""
    u = u.clone().requires_grad_()
    y, dy = torch.func.jvp(lambda u: by_definition(made, u), (u.detach(),), (du,))
    named = dict(made.named_parameters())
    bars = torch.autograd.grad(
        (by_definition(made, u) * y_bar).sum(), [u, *named.values()], allow_unused=True, materialize_grads=True
    )
    return y.detach(), dy.detach(), bars[0], dict(zip(named, bars[1:], strict=True))


@cache
def truth_of_length(length: int) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
    return truth(operator(), *question(length))


@pytest.mark.parametrize("length", [*LENGTHS[:-1], pytest.param(LENGTHS[-1], marks=pytest.mark.slow)])
@pytest.mark.parametrize("block_size", [3, 16])
def test_all_that_it_says_is_autograds(length: int, block_size: int) -> None:
    made, (u, du, y_bar) = operator(), question(length)
    y, dy, u_bar, parameters_bar = truth_of_length(length)
    assert_near(made(u), y)
    assert_near(made.pgf_forward(u, du, block_size), (y, dy))
    assert_near(made.pgf_vjp(u, y_bar, block_size, slots=3), u_bar)
    found = made.pgf_gradients(u, y_bar, block_size, slots=3)
    assert_near(found.u, u_bar)
    assert set(found.parameters) == set(parameters_bar)
    for name, bar in parameters_bar.items():
        assert_near(found.parameters[name], bar)


def test_forward_is_differentiable_as_modules_are() -> None:
    made, (u, du, y_bar) = operator(), question(33)
    _, _, u_bar, parameters_bar = truth(made, u, du, y_bar)
    named = dict(made.named_parameters())
    u.requires_grad_()
    bars = torch.autograd.grad((made(u) * y_bar).sum(), [u, *named.values()])
    assert_near(bars, (u_bar, *(parameters_bar[name] for name in named)))


def test_float32_is_float64_to_rounding() -> None:
    exact, made = operator().float().double(), operator(dtype=torch.float32)
    u, du, y_bar = (part.float() for part in question(100))
    y, dy, u_bar, _ = truth(exact, u.double(), du.double(), y_bar.double())
    assert_near(made.pgf_forward(u, du), (y, dy), torch.float32)
    assert_near(made.pgf_vjp(u, y_bar), u_bar, torch.float32)


def test_a_batch_is_its_sequences() -> None:
    made, (u, du, y_bar) = operator(), question(70, batch=3)
    alone = [made.pgf_forward(*pair) for pair in zip(u, du, strict=True)]
    assert_near(made.pgf_forward(u, du), tuple(map(torch.stack, zip(*alone, strict=True))))
    singly = [made.pgf_gradients(*pair) for pair in zip(u, y_bar, strict=True)]
    together = made.pgf_gradients(u, y_bar)
    assert_near(together.u, torch.stack([one.u for one in singly]))
    for name, bar in together.parameters.items():
        assert_near(bar, torch.stack([one.parameters[name] for one in singly]).sum(0))


def test_both_sweeps_agree_on_a_long_sequence() -> None:
    made, (u, du, y_bar) = operator(16, 16), question(5000, 16)
    _, dy = made.pgf_forward(u, du, 256)
    pushed, pulled = inner(dy, y_bar), inner(du, made.pgf_vjp(u, y_bar, 256, slots=4))
    assert abs(pushed - pulled) <= 1e-12 * abs(pushed)


def test_nothing_moves_before_the_pulse() -> None:
    made, (u, _, _) = operator(dtype=torch.float32), question(300)
    u, du = u.float(), torch.zeros(300, 10)
    du[240] = 1
    _, dy = made.pgf_forward(u, du)
    assert not dy[:240].any()
    assert dy[240:].abs().min(1).values.max() > 0


def test_blocks_stream_in_order_and_hold_no_graph() -> None:
    made, (u, du, _) = operator(), question(100)
    rows = list(made.pgf_stream(u, du, 30))
    assert [(span.start, span.stop) for span, *_ in rows] == [(0, 10), (10, 40), (40, 70), (70, 100)]
    assert not any(part.requires_grad for _, *parts in rows for part in parts)
    y, dy = made.pgf_forward(u, du, 30)
    assert_same_bits((torch.cat([y for _, y, _ in rows]), torch.cat([d for *_, d in rows])), (y, dy))


@pytest.mark.parametrize("A_log", [-8.0, -4.0, -1.0, 0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("block_size", [32, 1024])
def test_no_decay_is_too_slow_or_too_fast(A_log: float, block_size: int) -> None:
    """The appendix's grid (A.1) and the truly stiff side of it, in float32."""
    made = operator(16, 16, torch.float32)
    with torch.no_grad():
        made.A_log.fill_(A_log)
    exact = operator(16, 16).float().double()
    exact.load_state_dict(made.state_dict())
    u, du, y_bar = (0.01 * part.float() for part in question(2000, 16))
    pair = u.double(), du.double()
    assert_near(made.pgf_forward(u, du, block_size), exact.pgf_forward(*pair, 2000), bar=1e-5)
    pulled = exact.pgf_vjp(u.double(), y_bar.double(), 2000)
    assert_near(made.pgf_vjp(u, y_bar, block_size), pulled, bar=1e-5)


def everything(made: FrechetMambaOperator, u: Tensor, du: Tensor, y_bar: Tensor) -> list[Tensor]:
    """Return all that the operator says."""
    blocks = [part for _, *parts in made.pgf_stream(u, du, 7) for part in parts]
    pulled = made.pgf_gradients(u, y_bar, 7)
    forward = made.pgf_forward(u, du, 7)
    return [made(u), *forward, *blocks, made.pgf_vjp(u, y_bar, 7), pulled.u, *pulled.parameters.values()]


def test_inference_mode_changes_nothing() -> None:
    made, asked = operator(), question(33)
    expected = everything(made, *asked)
    with torch.inference_mode():
        assert_near(everything(made, *asked), expected)
        inside, copies = operator(), tuple(part.clone() for part in asked)
        # Elsewhere in memory: products of matrices may round differently.
        assert_near(everything(inside, *copies), expected)
        for _ in made.pgf_stream(*copies[:2], 7):
            assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        assert_near(everything(inside, *copies), expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a simulated card")
def test_frozen_weights_have_gradients_on_a_card_too() -> None:
    """Where tiles of frozen layers are replayed, and the weights of a graph would be taken for constants."""
    made, (u, _, y_bar) = operator().requires_grad_(False), question(60)
    expected = made.pgf_gradients(u, y_bar, 5)
    with interpreting(small=True), simulated_cuda():
        there = made.to("cuda").pgf_gradients(u.to("cuda"), y_bar.to("cuda"), 5)
        assert_near(there.u.cpu(), expected.u)
        for name, bar in there.parameters.items():
            assert_near(bar.cpu(), expected.parameters[name])


def test_blocks_are_handed_to_a_callback() -> None:
    made, (u, du, _) = operator(), question(100)
    rows: list[tuple[Tensor, Tensor, int, int]] = []
    answer = made.pgf_forward(u, du, 30, streaming=True, callback=lambda *row: rows.append(row))
    assert answer == (None, None)
    assert [row[2:] for row in rows] == [(0, 10), (10, 40), (40, 70), (70, 100)]
    y, dy = made.pgf_forward(u, du, 30)
    assert_same_bits((torch.cat([r[0] for r in rows]), torch.cat([r[1] for r in rows])), (y, dy))
    for half in ({"streaming": True}, {"callback": print}):
        with pytest.raises(InputError, match="both or neither"):
            made.pgf_forward(u, du, 30, **half)


def test_half_precision_is_refused() -> None:
    made, asked = operator(dtype=torch.float32), tuple(part.float() for part in question(9))
    methods = made.pgf_forward, made.pgf_vjp, made.pgf_gradients, lambda u, _: made(u)
    for kind in (torch.float16, torch.bfloat16):
        half = tuple(part.to(kind) for part in asked)
        for method in methods:
            with pytest.raises(InputError, match="expected float32 or float64"):
                method(*half[:2])
            with torch.autocast("cpu", dtype=kind), pytest.raises(InputError, match=r"torch\.autocast is on"):
                method(*asked[:2])
        with pytest.raises(InputError, match="expected float32 or float64"):
            made.pgf_forward(asked[0], half[1])
        with pytest.raises(InputError, match="expected float32 or float64"):
            operator(dtype=kind)(half[0])


def test_methods_refuse_transforms_that_would_lose_their_derivative() -> None:
    made, (u, du, y_bar) = operator(), question(9)
    for other, method in ((du, made.pgf_forward), (y_bar, made.pgf_vjp)):
        for transform in TRANSFORMS.values():
            for asked in (lambda x: method(x, other), lambda x: method(u, x)):  # noqa: B023
                with pytest.raises(NotImplementedError, match="whole window"):
                    transform(asked, u)


def test_wrong_shapes_are_said() -> None:
    made, (u, du, _) = operator(), question(20)
    for wrong in (u[0], u[:, :3], u[:0], u[None, None]):
        with pytest.raises(InputError, match="expected"):
            made(wrong)
    with pytest.raises(InputError, match="the same"):
        made.pgf_forward(u, du[:-1])
