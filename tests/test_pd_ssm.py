"""PD-SSM blocks against complex matrices, their training estimators, and automata."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from commands import bases, genoscan, tiny_model, write_fasta
from laws import assert_near, assert_same_bits, random_like
from test_memory import in_status, linux_only
from torch import Tensor
from torch.nn import functional as F
from toys import genome, mixed_config, mixed_stack, one_hot_table, output_columns, pd_block

import genoscan as library
from benchmarks.speed.sequence import shipped_genome
from genoscan.engine.adjoint import adjoint, consume
from genoscan.engine.forward import forward
from genoscan.engine.inputs import Dense, OneHot
from genoscan.engine.tangent import BaseChange, tangent
from genoscan.engine.target import WeightedSum, whole_window
from genoscan.errors import ModelError
from genoscan.genome.genome import open_genome
from genoscan.layers.automaton import from_automaton, open_reading_frames
from genoscan.layers.bidirectional import BidirectionalStack
from genoscan.layers.margins import margins
from genoscan.layers.pd_ssm import PdSsm, PdSsmConfig, with_surrogate
from genoscan.layers.stack import Stack
from genoscan.layers.surrogate import Surrogate
from genoscan.layers.weights import assemble, build, save_model
from genoscan.model import choose_method, load_model
from genoscan.ops.dispatch import choose
from genoscan.ops.dual import Dual, primal
from genoscan.ops.pd_mix import step_of
from genoscan.ops.pd_scan import argmax_maps
from genoscan.tracks.reader import BigWig
from genoscan.training.data import Piece, SequenceId, Split
from genoscan.training.train import TrainOptions, train

F32, F64 = torch.float32, torch.float64
TWO_WAY = {"tied": False}, {"rcps": True, "fused_add_norm": True}
"""Settings of bidirectional blocks."""


def straight(layer: PdSsm, x: Tensor, carry: tuple[Tensor, Tensor]) -> Tensor:
    """Return the block's outputs over a whole window, by complex matrices in plain torch."""
    tail, state = carry
    heads, n_states = layer.config.heads, layer.config.d_state
    normed = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + layer.norm.eps) * layer.norm.weight
    c, z = (normed @ layer.in_proj.weight.T).chunk(2, -1)
    padded = torch.cat([tail, c], 1).transpose(1, 2)
    groups = c.shape[-1]
    c = F.conv1d(padded, layer.conv.weight[:, None], layer.conv.bias, groups=groups).transpose(1, 2)
    c = c * torch.sigmoid(c)
    size, phase, reading = (c @ layer.low.weight.T).chunk(3, -1)
    size = layer.size(size)
    step = torch.log1p(torch.exp(size)) if layer.config.coupled else torch.clamp(size, min=0)
    step = step.unflatten(-1, (heads, n_states))
    phase = layer.phase(phase).unflatten(-1, (heads, n_states))
    D = torch.polar(torch.exp(-step), step * phase if layer.config.coupled else phase)
    shape = (heads, 2, n_states)
    B, C = ((part.unflatten(-1, shape)) for part in (layer.B_proj(c), layer.C_proj(reading)))
    B, C = torch.complex(*B.unbind(-2)), torch.complex(*C.unbind(-2))
    B = (1 - D.abs()) * B if layer.config.coupled else B
    route = layer.router(c).unflatten(-1, (heads, -1)).argmax(-1)
    P = F.one_hot(layer.dictionary.argmax(-2), n_states).transpose(-1, -2).to(D.dtype)
    h, reads = torch.complex(*state.unbind(-2)), []
    for t in range(x.shape[1]):
        chosen = P[torch.arange(heads), route[:, t]]
        h = torch.einsum("bhiq,bhq->bhi", chosen, D[:, t] * h) + B[:, t]
        reads.append((C[:, t] * h).real.flatten(1))
    y = torch.stack(reads, 1) @ layer.state_out.weight.T + layer.D * c
    return x + (y * (z * torch.sigmoid(z))) @ layer.out_proj.weight.T


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("kernels", ["cpu", "reference"])
def test_a_block_is_what_its_formulas_say(kernels: str, coupled: bool) -> None:
    layer = pd_block(kernels=kernels, coupled=coupled)
    x = random_like(torch.zeros(2, 40, 8, dtype=F64)).requires_grad_()
    carry = random_like(layer.begin(2), 4)
    found, truth = layer(x, carry)[0], straight(layer, x, carry)
    assert_near(found, truth)
    bar = random_like(truth, 5)
    (x_bar,), (true_bar,) = (torch.autograd.grad((y * bar).sum(), x) for y in (found, truth))
    assert_near(x_bar, true_bar)


def test_initial_maps_keep_nearly_every_state() -> None:
    """In three of four heads all maps are the identity, in the others half, and the rest permutations but for noise."""
    config = PdSsmConfig(heads=5, d_state=16, n_maps=6, rank=2)
    torch.manual_seed(1)
    (layer,) = assemble([config], 8, 4, 4, eps=1e-5, kernels=choose("cpu")).layers
    maps = argmax_maps(layer.dictionary).long()
    identity = maps == torch.arange(16)
    assert identity[1:4].all() and identity[::4, :3].all()
    for head in maps[::4, 3:]:  # random maps have ten different destinations
        assert sum(len(destinations.unique()) for destinations in head) >= 3 * 14
        assert (head != torch.arange(16)).any(1).all()


@pytest.mark.parametrize("coupled", [False, True])
def test_initial_steps_of_every_fourth_head_reach_those_of_mamba(coupled: bool) -> None:
    config = PdSsmConfig(heads=8, d_state=64, rank=2, coupled=coupled)
    torch.manual_seed(1)
    (layer,) = assemble([config], 8, 4, 4, eps=1e-5, kernels=choose("cpu")).layers
    steps = step_of(layer.size.bias.detach().double(), coupled=coupled).view(8, 64)
    for head, found in enumerate(steps):
        lowest, highest = (1e-3, 1) if head % 4 == 2 else (1e-4, 0.1)
        assert found.min() >= lowest * 0.999 and found.max() <= highest * 1.001
        # Each of the three decades has about a third of them.
        share = [(found < lowest * 10**k).double().mean().item() for k in (1, 2)]
        assert share == pytest.approx([1 / 3, 2 / 3], abs=0.2)


def test_coupled_steps_depend_more_on_the_input_at_first() -> None:
    torch.manual_seed(1)
    widest = [
        assemble([PdSsmConfig(rank=4, coupled=coupled)], 8, 4, 4, eps=1e-5, kernels=choose("cpu")).layers[0].size.weight
        for coupled in (False, True)
    ]
    assert widest[0].abs().max() <= 0.5 < 1.8 < widest[1].abs().max() <= 2


def test_decays_reach_one_exactly() -> None:
    """Where they do the state neither fades nor grows, at any length."""
    layer = pd_block(dtype=torch.float32)
    with torch.no_grad():
        layer.size.weight.zero_()
        layer.size.bias.fill_(-200)
    x = random_like(torch.zeros(1, 5_000, 8))
    _, (_, state) = layer(x, layer.begin(1))
    assert sorted(state.flatten().tolist()) == [0.0] * (2 * 2 * 6 - 2) + [1.0, 1.0]


@pytest.mark.parametrize("tile", [pytest.param(1, marks=pytest.mark.slow), 13, 64, 500])
def test_the_engines_derivatives_are_whole_window_autograds(tile: int) -> None:
    stack = mixed_stack(kinds=("pd_ssm", "mamba", "pd_ssm"))
    inputs = OneHot(genome(150, batch=2, n_share=0.05), one_hot_table())
    target = whole_window(inputs.codes, output_columns())
    x_bar = torch.empty(2, 150, 4, dtype=F64)

    def receive(span: slice, part: Tensor) -> None:
        x_bar[:, span] = part

    result = consume(adjoint(stack, inputs, target, tile=tile, slots=3), receive)
    plain = mixed_stack(kinds=("pd_ssm", "mamba", "pd_ssm"), kernels="reference")
    x = inputs.tile(slice(0, 150)).requires_grad_()
    value = target(plain(x, plain.begin(2))[0], slice(0, 150))
    (true_bar,) = torch.autograd.grad(value.sum(), x)
    assert_near(result.value, value)
    assert_near(x_bar, true_bar)
    change = torch.tensor([[-1.0, 1.0, 0.0, 0.0], [0.0, -1.0, 0.0, 1.0]], dtype=F64)
    one = OneHot(inputs.codes[:1], inputs.table)
    dots = [d for *_, d in tangent(stack, one, BaseChange(70, change), tile=tile)]
    whole = inputs.tile(slice(0, 150))[:1]
    for i in range(2):
        x_dot = torch.zeros_like(whole)
        x_dot[0, 70] = change[i]
        _, truth = torch.func.jvp(lambda x: plain(x, plain.begin(1))[0], (whole,), (x_dot,))
        assert_near(torch.cat([part[i] for part in dots], 1), truth)


def test_a_sensitivity_is_finite_differences_where_no_route_flips() -> None:
    stack = mixed_stack(kinds=("pd_ssm",))
    x = OneHot(genome(60), one_hot_table()).tile(slice(0, 60)).requires_grad_()
    weights = random_like(torch.zeros(1, 60, 4, dtype=F64))
    (x_bar,) = torch.autograd.grad((stack(x, stack.begin(1))[0] * weights).sum(), x)
    with torch.no_grad():
        for at, column in [(0, 1), (20, 3), (59, 0)]:
            sides = []
            for step in (1e-6, -1e-6):
                moved = x.clone()
                moved[0, at, column] += step
                sides.append(float((stack(moved, stack.begin(1))[0] * weights).sum()))
            assert (sides[0] - sides[1]) / 2e-6 == pytest.approx(float(x_bar[0, at, column]), abs=1e-7)


def test_the_margin_is_that_of_the_nearest_route() -> None:
    layer = pd_block()
    x, carry = random_like(torch.zeros(2, 30, 8, dtype=F64)), layer.begin(2)
    margin = layer.margin(x, carry)
    assert margin.shape == (2, 30)
    assert ((margin > 0) & (margin < 1)).all()
    with torch.no_grad():
        layer.router.weight.zero_()
    assert not layer.margin(x, carry).any()
    assert (pd_block(n_maps=1).margin(x, carry) == 1).all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of a Mamba and a PD-SSM block, as users have it."""
    path = tmp_path_factory.mktemp("models") / "mixed"
    save_model(path, mixed_config(), mixed_stack(dtype=torch.float32), "# mixed\n\nUntrained.\n")
    return path


def test_margins_are_a_second_track(folder: Path, tmp_path: Path) -> None:
    letters = bases(120, 1) + "NNN" + bases(177, 2)
    genome = write_fasta(tmp_path / "genome.fa", {"one": letters})
    outputs = "-o", tmp_path / "score.bedgraph", "--with-margin", tmp_path / "margin.bedgraph"
    done = genoscan("attribute", genome, "-m", folder, "-r", "one:101-200", "--strand", "both", "--tile", 37, *outputs)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [str(outputs[1]), str(outputs[3])]
    codes = torch.tensor(["ACGTN".index(letter) for letter in letters[91:209]], dtype=torch.uint8)
    layer, of_strands = margins(load_model(folder).stack), []
    for read in (codes, torch.tensor([3, 2, 1, 0, 4], dtype=torch.uint8)[codes.long().flip(0)]):
        x = OneHot(read[None], one_hot_table(torch.float32)).tile(slice(0, 118))
        of_strands.append(layer.forward(x, layer.begin(1))[0].flatten())
    expected = torch.minimum(of_strands[0], of_strands[1].flip(0))[9:109].tolist()
    found = {}
    for line in Path(outputs[3]).read_text().splitlines():
        chrom, start, end, value = line.split("\t")
        assert chrom == "one"
        found |= dict.fromkeys(range(int(start), int(end)), float(value))
    assert set(found) == set(range(100, 200)) - {120, 121, 122}
    for at, value in found.items():
        assert value == pytest.approx(expected[at - 100], rel=1e-4, abs=1e-6)
    assert json.loads((tmp_path / "margin.bedgraph.json").read_text())["track"] == "margin"


def test_an_interruption_in_the_margins_costs_no_scores(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores take longer and are continued; margins begin anew, and so come first."""
    from genoscan import margin, pipeline

    genome = write_fasta(tmp_path / "genome.fa", {"one": bases(90, 1), "two": bases(90, 2)})
    outputs = "-o", tmp_path / "score.bw", "--with-margin", tmp_path / "margin.bw", "--batch", 1
    command = "attribute", genome, "-m", folder, *outputs

    def stop(*_given: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(margin, "_update_minimum", stop)
        patch.setattr(pipeline, "attribute_batch", lambda *_given, **_options: pytest.fail("scores were computed"))
        assert genoscan(*command).code == 130
    assert not list(tmp_path.glob("score*"))
    done = genoscan(*command)
    assert (done.code, done.out.split()) == (0, [str(outputs[1]), str(outputs[3])])


@pytest.mark.parametrize("two_way", TWO_WAY)
def test_margins_of_both_directions(two_way: dict[str, Any], tmp_path: Path) -> None:
    """The smallest of every router, wherever it reads from."""
    kinds = "pd_ssm", "mamba", "pd_ssm"
    stack = mixed_stack(kinds=kinds, two_way=two_way, dtype=torch.float32)
    letters = bases(90, 1)
    x = OneHot(torch.tensor([["ACGT".index(letter) for letter in letters]], dtype=torch.uint8), one_hot_table(F32))
    found, h = [], stack.encode(x.tile(slice(0, 90)))
    for block, kind in zip(stack.blocks, kinds, strict=True):
        read = block.prepare(h)
        strands = zip(read.split(8, -1), [(block.fwd, block.rev), (block.rev, block.fwd)], strict=False)
        for strand, (there, back) in strands if kind == "pd_ssm" else ():
            found += [there.margin(strand, there.begin(1)), back.margin(strand.flip(1), back.begin(1)).flip(1)]
        ways = block.left_to_right, block.right_to_left
        left, right = (way.forward(part, way.begin(1))[0] for way, part in zip(ways, (read, read.flip(1)), strict=True))
        h = block.merge(h, left, right.flip(1))
    expected = torch.cat(found).amin(0)
    save_model(tmp_path / "m", mixed_config(kinds=kinds, two_way=two_way), stack, "")
    genome, track = write_fasta(tmp_path / "g.fa", {"one": letters}), tmp_path / "margin.bw"
    done = genoscan(
        "attribute", genome, "-m", tmp_path / "m", "-o", tmp_path / "x.bw", "--with-margin", track, "--tile", 37
    )
    assert done.code == 0, done.err
    with BigWig(track) as opened:
        assert_near(torch.from_numpy(opened.scores("one", 0, 90)), expected)


def test_a_model_that_selects_nothing_has_no_margin(tmp_path: Path) -> None:
    genome = write_fasta(tmp_path / "genome.fa", {"one": bases(100, 1)})
    command = "attribute", genome, "-o", tmp_path / "score.bw", "--with-margin"
    refused = genoscan(*command, tmp_path / "margin.bw", "-m", tiny_model(tmp_path / "tiny"))
    assert refused.code == 1
    assert "the model has no PD-SSM layer" in refused.err
    assert not (tmp_path / "score.bw").exists()
    config, stack = (make(kinds=("mamba",), two_way={}) for make in (mixed_config, mixed_stack))
    save_model(tmp_path / "both", config, stack, "")
    refused = genoscan(*command, tmp_path / "margin.bw", "-m", tmp_path / "both")
    assert "the model has no PD-SSM layer" in refused.err
    refused = genoscan(*command, tmp_path / "score.bw")
    assert refused.code == 1
    assert "an output is given twice" in refused.err
    refused = genoscan(*command, tmp_path / "margin.npz")
    assert refused.code == 1
    assert "expected a track, such as a .bw" in refused.err


# Training


def by_matrices(
    layer: PdSsm,
    decay: Tensor,
    inflow: Tensor,
    state: Tensor,
    scores: Tensor,
    kind: Literal["activated", "straight_through"],
    temperature: float,
) -> Tensor:
    """Return the states by dense transitions whose derivatives are the estimator's."""
    p_map = torch.softmax(scores / temperature, -1)
    p_row = torch.softmax(layer.dictionary / temperature, -2)
    one_map = F.one_hot(scores.argmax(-1), scores.shape[-1]).to(decay)
    one_row = F.one_hot(layer.dictionary.argmax(-2), decay.shape[-1]).transpose(-1, -2).to(decay)
    if kind == "activated":  # of either softmax, the picked entry's derivative alone
        p_map, p_row = p_map * one_map, p_row * one_row
    soft_map = one_map + (p_map - p_map.detach())
    soft_row = one_row + (p_row - p_row.detach())
    P = torch.einsum("bthk,hkiq->bthiq", soft_map, one_row)
    P = P + torch.einsum("bthk,hkiq->bthiq", one_map, soft_row - soft_row.detach())
    D, h = torch.complex(*decay.unbind(-2)), torch.complex(*state.unbind(-2))
    B, states = torch.complex(*inflow.unbind(-2)), []
    for t in range(decay.shape[1]):
        h = torch.einsum("bhiq,bhq->bhi", P[:, t].to(h), D[:, t] * h) + B[:, t]
        states.append(torch.stack([h.real, h.imag], -2))
    return torch.stack(states, 1)


@pytest.mark.parametrize("kind", ["activated", "straight_through"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_training_takes_the_estimators_derivative(
    kind: Literal["activated", "straight_through"], temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = pd_block().requires_grad_()
    layer.surrogate = Surrogate(kind, temperature)
    x, carry = random_like(torch.zeros(2, 25, 8, dtype=F64)), layer.begin(2)
    weights = dict(layer.named_parameters())
    bar = random_like(x, 9)
    found = torch.autograd.grad((layer(x, carry)[0] * bar).sum(), weights.values())
    value = layer(x, carry)[0].detach()

    # The same block, its scan by matrices.
    held: dict[str, Tensor] = {}

    def hold(decay: Tensor, inflow: Tensor, scores: Tensor, _route: Tensor) -> tuple[Tensor, Tensor]:
        held["scores"] = scores
        return decay, inflow

    monkeypatch.setattr(layer, "_estimate", lambda _state, _maps: hold)

    def scan(decay: Tensor, inflow: Tensor, state: Tensor, **_: Tensor) -> tuple[Tensor, Tensor]:
        states = by_matrices(layer, decay, inflow, state, held["scores"], kind, temperature)
        return states, states[:, -1]

    monkeypatch.setattr(layer, "kernels", layer.kernels._replace(pd_scan=scan))
    y = layer(x, carry)[0]
    assert_near(value, y)
    truth = torch.autograd.grad((y * bar).sum(), weights.values())
    for name, a, b in zip(weights, found, truth, strict=True):
        assert b.any(), name
        assert_near(a, b)


def adjoint_of(stack: Stack | BidirectionalStack, *, parameters: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the derivatives with respect to the inputs, and to the parameters if asked for."""
    weight = next(stack.parameters())
    inputs = OneHot(genome(90, n_share=0.05), one_hot_table(weight.dtype))
    x_bar = torch.empty(1, 90, 4, dtype=weight.dtype)

    def receive(span: slice, part: Tensor) -> None:
        x_bar[:, span] = part

    asked = list(stack.parameters()) if parameters else []
    target = whole_window(inputs.codes, output_columns())
    pull = choose_method(stack, tile=40, slots=2).gradient(stack, inputs, target, parameters=asked)
    return x_bar, consume(pull, receive).parameters


KINDS = "pd_ssm", "mamba", "pd_ssm"


@pytest.mark.parametrize("kernels", ["cpu", "reference"])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("torchs_mode", [False, True])
def test_sensitivities_do_not_depend_on_what_requires_gradients(kernels: str, trained: bool, torchs_mode: bool) -> None:
    expected, _ = adjoint_of(mixed_stack(kinds=KINDS, kernels=kernels).eval())
    stack = mixed_stack(kinds=KINDS, kernels=kernels).requires_grad_(trained).train(torchs_mode)
    assert_same_bits(adjoint_of(stack)[0], expected)
    if trained:
        found, bars = adjoint_of(stack, parameters=True)
        assert_same_bits(found, expected)
        # Nothing that the deployed function computes varies with these.
        exact = {name: bar for (name, _), bar in zip(stack.named_parameters(), bars, strict=True)}
        for name in ("layers.0.dictionary", "layers.2.dictionary", "layers.2.router.weight"):
            assert not exact[name].any()


@pytest.mark.parametrize("kind", ["activated", "straight_through"])
@pytest.mark.parametrize("two_way", [None, *TWO_WAY])
def test_a_surrogate_is_used_by_the_copy_alone(
    kind: Literal["activated", "straight_through"], two_way: dict[str, Any] | None
) -> None:
    stack = mixed_stack(kinds=KINDS if two_way is None else ("pd_ssm",), two_way=two_way).requires_grad_()
    expected, _ = adjoint_of(stack)
    trained = with_surrogate(stack, Surrogate(kind))
    assert dict(trained.named_parameters()).keys() == dict(stack.named_parameters()).keys()
    pairs = zip(trained.parameters(), stack.parameters(), strict=True)
    assert all(a is b for a, b in pairs)
    x = random_like(torch.zeros(1, 20, 4, dtype=F64))
    carry = [] if two_way is not None else [stack.begin(1)]
    assert_near(trained(x, *carry), stack(x, *carry))
    found, bars = adjoint_of(trained.eval(), parameters=True)
    with pytest.raises(AssertionError):
        assert_near(found, expected)
    for (name, _), bar in zip(stack.named_parameters(), bars, strict=True):
        assert bar.any(), name
    # It is asked for: weights that are frozen do not turn it off.
    assert_same_bits(adjoint_of(trained.requires_grad_(False))[0], found)
    assert_same_bits(adjoint_of(stack)[0], expected)


@pytest.mark.parametrize("kind", ["activated", "straight_through"])
@pytest.mark.parametrize("two_way", TWO_WAY)
def test_a_surrogate_in_both_directions_is_that_of_the_whole_window(
    kind: Literal["activated", "straight_through"], two_way: dict[str, Any]
) -> None:
    stack = with_surrogate(mixed_stack(two_way=two_way).requires_grad_(), Surrogate(kind))
    codes = genome(90, n_share=0.05)
    x = OneHot(codes, one_hot_table()).tile(slice(0, 90)).requires_grad_()
    value = whole_window(codes, output_columns())(stack(x), slice(0, 90))
    truth = torch.autograd.grad(value.sum(), [x, *stack.parameters()])
    found, bars = adjoint_of(stack, parameters=True)
    assert_near((found, *bars), truth)


def test_no_surrogate_is_on_unless_asked_for(folder: Path, tmp_path: Path) -> None:
    """Neither in what is built and loaded, nor in what training returns."""
    options = TrainOptions(steps=2, window=16, walk=2, batch=2, tile=16, warm_up=0)
    codes = genome(200)[0].numpy()
    split = Split([Piece(codes)], [Piece(codes[:50])], [SequenceId("one", 200, "")], 0.1)
    trained = train(mixed_config(), split, options, work=tmp_path)
    assert all(weight.requires_grad for weight in trained.parameters())
    frozen = copy.deepcopy(trained).requires_grad_(False)
    assert_same_bits(adjoint_of(trained)[0], adjoint_of(frozen)[0])
    save_model(tmp_path / "made", mixed_config(), trained, "")
    loaded = load_model(tmp_path / "made").causal
    assert_same_bits(adjoint_of(loaded)[0], adjoint_of(trained)[0])
    assert loaded.layers[1].surrogate is build(mixed_config()).layers[1].surrogate is None


# Automata


def runs(transitions: Tensor, start: list[int], codes: Tensor) -> Tensor:
    """Return (length, heads): the states after every symbol, one look-up at a time."""
    tables, found = transitions.tolist(), []
    states = list(start)
    for code in codes.tolist():
        states = [table[state][code] for table, state in zip(tables, states, strict=True)]
        found.append(list(states))
    return torch.tensor(found)


def states_of(stack: Stack, codes: Tensor, heads: int, n_symbols: int, tile: int) -> Tensor:
    """Return the same as the model's outputs say."""
    carry, found = stack.begin(1), []
    for part in codes.split(tile):
        outputs, carry = stack(torch.eye(n_symbols)[part.long()][None], carry)
        found.append(outputs[0].unflatten(-1, (heads, -1)).argmax(-1))
    return torch.cat(found)


@pytest.mark.parametrize(("heads", "n_states", "n_symbols"), [(1, 1, 2), (1, 64, 5), (3, 17, 4), (2, 2, 1)])
@pytest.mark.parametrize("permute", [False, True])
def test_any_automaton_is_run_without_error(heads: int, n_states: int, n_symbols: int, permute: bool) -> None:
    random = torch.Generator().manual_seed(n_states)
    shape = heads, n_states, n_symbols
    transitions = torch.randint(n_states, shape, generator=random)
    if permute:
        transitions = torch.rand(shape, generator=random).argsort(1)
    start = torch.randint(n_states, (heads,), generator=random).tolist()
    codes = torch.randint(n_symbols, (5_000,), generator=random)
    stack = from_automaton(transitions, start)
    found = states_of(stack, codes, heads, n_symbols, 700)
    assert torch.equal(found, runs(transitions, start, codes))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_million_symbols_without_error(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    transitions = torch.randint(64, (1, 64, 5), generator=random)
    codes = torch.randint(5, (1_000_000,), generator=random)
    found = states_of(from_automaton(transitions, [seed]), codes, 1, 5, 4_096)
    assert torch.equal(found, runs(transitions, [seed], codes))


def inside_frames(sequence: str) -> list[list[bool]]:
    """Return, a frame and a base, whether an ATG has been read and no stop codon since."""
    found = []
    for frame in range(3):
        inside, mask, start = False, [False] * len(sequence), 0
        for at in range(frame, len(sequence) - 2, 3):
            codon = sequence[at : at + 3]
            if not inside and codon == "ATG":
                inside, start = True, at + 2
            elif inside and codon in ("TAA", "TAG", "TGA"):
                inside = False
                mask[start : at + 2] = [True] * (at + 2 - start)
        if inside:
            mask[start:] = [True] * (len(sequence) - start)
        found.append(mask)
    return found


def frames_by_model(codes: Tensor) -> Tensor:
    transitions, start = open_reading_frames()
    return states_of(from_automaton(transitions, start), codes, 3, 5, 4_096) >= 8


def test_open_reading_frames_are_those_of_a_plain_finder() -> None:
    genome = open_genome(shipped_genome())
    (chrom, size), *_ = genome.sizes.items()
    codes = torch.from_numpy(genome.fetch(chrom, 0, size))
    codes[1_000:60_000:997] = 4  # N, here and there
    truth = torch.tensor(inside_frames("".join("ACGTN"[code] for code in codes.tolist()))).T
    assert truth.any(0).all()
    assert torch.equal(frames_by_model(codes), truth)


def test_what_is_no_automaton_is_refused() -> None:
    transitions = torch.zeros(2, 3, 5, dtype=torch.long)
    with pytest.raises(ModelError, match="start: 1 states, expected one for each of 2"):
        from_automaton(transitions, [0])
    with pytest.raises(ModelError, match="start: state out of range, expected 0 to 2"):
        from_automaton(transitions, [0, 3])
    with pytest.raises(ModelError, match="transitions: state out of range, expected 0 to 2"):
        from_automaton(transitions - 1, [0, 0])


def test_a_dictionary_that_is_no_choice_is_refused_in_use() -> None:
    layer = pd_block()
    with torch.no_grad():
        layer.dictionary[1, 2, :, 3] = 0.5
    with pytest.raises(ModelError, match="dictionary, head 1, map 2, column 3: all entries equal"):
        layer(torch.zeros(1, 3, 8, dtype=F64), layer.begin(1))


def test_a_dictionary_that_changes_changes_the_maps() -> None:
    """Maps are kept while the dictionary stays as it is."""
    stack = mixed_stack(8, ("pd_ssm",))
    (block,) = stack.layers
    first = argmax_maps(block.dictionary)
    assert argmax_maps(block.dictionary) is first
    with torch.no_grad():
        block.dictionary.copy_(block.dictionary.flip(-2))
    assert torch.equal(argmax_maps(block.dictionary), block.config.d_state - 1 - first)


def test_a_model_that_ran_in_inference_mode_is_differentiable(folder: Path) -> None:
    stack, inputs = mixed_stack(8, ("pd_ssm",)), Dense(torch.randn(1, 40, 4, dtype=F64))
    target = WeightedSum(torch.randn(1, 40, 4, dtype=F64))
    with torch.inference_mode():
        list(forward(stack, inputs, tile=16))
        assert library.attribute(bases(60, 1), load_model(folder)).value
    found = torch.cat([x_bar for _, x_bar in adjoint(stack, inputs, target, tile=16, slots=2)], 1)
    assert found.abs().sum() > 0


def peak_of_a_step(kind: Literal["activated", "straight_through"], length: int) -> None:
    """Print by how much a step of training raises the peak of this process."""
    torch.set_num_threads(1)
    layer = pd_block(8, heads=1, d_state=256, n_maps=2, dtype=torch.float32).requires_grad_()
    layer.surrogate = Surrogate(kind)
    for steps in (64, length):
        x = random_like(torch.zeros(1, steps, 8))
        Path("/proc/self/clear_refs").write_text("5")
        before = in_status("VmRSS")
        layer(x, layer.begin(1))[0].sum().backward()
    print(in_status("VmHWM") - before)


@linux_only
@pytest.mark.parametrize("kind", [pytest.param("activated", marks=pytest.mark.slow), "straight_through"])
def test_no_matrix_is_made_for_a_step(kind: str) -> None:
    """Not even in training."""
    length = 4_096
    script = f"import test_pd_ssm; test_pd_ssm.peak_of_a_step({kind!r}, {length})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 0.25 * length * 256 * 256 * 4


@pytest.mark.parametrize("way", ["forward", "tangent"])
def test_scores_that_overflow_are_no_choice(way: str) -> None:
    """The first of two infinities would be taken, whichever is larger."""
    layer = pd_block(8, dtype=torch.float32)
    with torch.no_grad():
        layer.router.weight.copy_(3e38 * layer.router.weight.sign())
    x = torch.ones(1, 5, 8)
    if way == "tangent":
        x = Dual.of(x, torch.ones_like(x)[None])
    y, _ = layer.forward(x, layer.begin(1))
    assert not primal(y).isfinite().any()
