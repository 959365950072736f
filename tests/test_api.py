"""The Python interface: the same numbers as the command line's, for every kind of sequence."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, bases, tiny_model, write_fasta
from commands import genoscan as command
from hub_models import TOKENS, transformers_model
from laws import assert_near
from truth import caduceus

import genoscan
import genoscan.cli
from genoscan.errors import InputError, ModelError, NonFiniteError
from genoscan.genome.memory import SequenceGenome
from genoscan.layers.foreign.families import read_foreign
from genoscan.layers.weights import write_model
from genoscan.tracks.columns import read_columns
from genoscan.tracks.score import SCORES

LETTERS = f"{bases(140, 1)}NN{bases(58, 2)}"
REGION = "chr1:41-160"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> genoscan.Model:
    return genoscan.load_model(tiny_model(tmp_path_factory.mktemp("models") / "tiny"), tile=32)


@pytest.fixture(scope="module")
def both_ways(tmp_path_factory: pytest.TempPathFactory) -> genoscan.Model:
    folder, config = tmp_path_factory.mktemp("caduceus"), caduceus.config()
    caduceus.write(folder / "foreign", config, caduceus.tensors(config))
    write_model(folder / "cad", *read_foreign(folder / "foreign"), "")
    return genoscan.load_model(folder / "cad", tile=32)


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    return write_fasta(tmp_path / "g.fa", {"chr1": LETTERS, "chr2": bases(90, 3)})


# The same as the command line


@pytest.mark.parametrize("which", ["tiny", "both_ways"])
@pytest.mark.parametrize("strand", ["+", "-", "both"])
@pytest.mark.parametrize("target", ["log-likelihood", "log-odds:chr1:150:C"])
def test_equals_the_command_line_to_the_bit(
    request: pytest.FixtureRequest, fasta: Path, which: str, strand: str, target: str
) -> None:
    model = request.getfixturevalue(which)
    out = fasta.with_name("x.npz")
    outputs = ["-o", out, "-o", out.with_suffix(".bw")]
    options = ["--strand", strand, "--target", target, "--tile", 32]
    done = command("attribute", fasta, "-r", REGION, "-m", model.path, *options, *outputs)
    assert done.code == 0, done.err
    found = genoscan.attribute((fasta, REGION), model, strand=strand, target=target)
    held = read_columns(out)
    assert isinstance(found, genoscan.Attribution)
    np.testing.assert_array_equal(found.gradient, held.gradient)
    np.testing.assert_array_equal(found.codes, held.codes)
    np.testing.assert_array_equal(found.scores, genoscan.read_track(out.with_suffix(".bw"), REGION))
    assert found.sequence == LETTERS[40:160]


def test_files_are_the_command_lines(tiny: genoscan.Model, fasta: Path) -> None:
    ours, theirs = (fasta.with_name(name) for name in ("ours.bw", "theirs.bw"))
    bed = fasta.with_name("r.bed")
    bed.write_text("chr2\t10\t60\nchr1\t20\t50\n")
    done = command(
        "attribute", fasta, "-R", bed, "-r", REGION, "-m", tiny.path, "--tile", 32, "--score", "observed", "-o", theirs
    )
    assert done.code == 0, done.err
    record = genoscan.attribute_regions(
        fasta, ours, regions=[REGION], bed=bed, model=tiny, score="observed", command=["a", "b"]
    )
    assert ours.read_bytes() == theirs.read_bytes()
    assert record["command"] == ["a", "b"]
    assert record["scored_bases"] == np.isfinite(genoscan.read_track(ours, "chr1")).sum() + 50


# Sequences in memory


def forms(letters: str) -> dict[str, tuple[Any, dict[str, str]]]:
    codes = np.array(["ACGTN".index(letter) for letter in letters], np.uint8)
    rows = np.eye(5)[codes][:, :4]
    return {
        "string": (letters, {}),
        "lower case": (letters.lower(), {}),
        "codes": (codes, {}),
        "signed codes": (codes.astype(np.int64), {}),
        "torch codes": (torch.from_numpy(codes), {}),
        "one-hot": (rows, {}),
        "one-hot integers": (rows.astype(np.int8), {}),
        "torch one-hot": (torch.from_numpy(rows), {"axes": "LC"}),
        "channels first": (torch.from_numpy(rows.T.copy()), {"axes": "CL"}),
    }


@pytest.mark.parametrize("form", forms("A"))
def test_every_form_of_a_sequence_is_the_same(tiny: genoscan.Model, form: str, fasta: Path) -> None:
    sequence, options = forms(LETTERS)[form]
    found = genoscan.attribute(sequence, tiny, **options)
    whole = genoscan.attribute((fasta, "chr1"), tiny)
    np.testing.assert_array_equal(found.gradient, whole.gradient)
    assert found.value == whole.value
    np.testing.assert_array_equal(genoscan.predict(sequence, tiny, **options), genoscan.predict((fasta, "chr1"), tiny))


def test_biopythons_sequences_are_read(tiny: genoscan.Model) -> None:
    from Bio.Seq import Seq

    found = genoscan.attribute(Seq(LETTERS), tiny)
    np.testing.assert_array_equal(found.scores, genoscan.attribute(LETTERS, tiny).scores)


def test_sequences_and_files_of_pyfaidx_are_read(tiny: genoscan.Model, fasta: Path) -> None:
    import pyfaidx

    with pyfaidx.Fasta(fasta) as file:
        length = len(file["chr1"])
        for sequence in (file["chr1"][:length], file["chr1"][:], (file, "chr1")):
            found = genoscan.attribute(sequence, tiny)
            np.testing.assert_array_equal(found.scores, genoscan.attribute((fasta, "chr1"), tiny).scores)


def test_lists_are_their_sequences(tiny: genoscan.Model, fasta: Path) -> None:
    many = [LETTERS, bases(90, 3), LETTERS[:50], (fasta, "chr2"), LETTERS]
    found = genoscan.attribute(many, tiny)
    assert isinstance(found, genoscan.Attributions)
    for one, sequence in zip(found, many, strict=True):
        alone = genoscan.attribute(sequence, tiny)
        pair = (torch.from_numpy(np.nan_to_num(each.scores)) for each in (one, alone))
        assert_near(*pair, torch.float32)
    positional = genoscan.attribute([LETTERS, LETTERS[10:]], tiny, target="logit:40:A")
    assert [one.target for one in positional] == ["logit:sequence_1:40:A", "logit:sequence_2:40:A"]
    rows = np.stack([np.eye(5)[["ACGTN".index(x) for x in part]][:, :4] for part in (LETTERS[:80], LETTERS[80:160])])
    assert len(genoscan.attribute(rows, tiny)) == 2


@pytest.mark.parametrize("function", [genoscan.attribute, genoscan.predict])
def test_regions_of_genomes_in_memory_are_read_apart(function: Callable[..., Any], tiny: genoscan.Model) -> None:
    """Regions of one sequence, also overlapping ones, and of sequences of the same name."""
    first, second = (
        SequenceGenome({"sequence_1": np.frombuffer(x, np.uint8) % 4}) for x in (b"C" * 99, LETTERS.encode())
    )
    regions = "sequence_1:1-50", "sequence_1:31-99"
    many = [LETTERS, *((genome, region) for genome in (first, second) for region in regions)]
    for found, sequence in zip(function(many, tiny), many, strict=True):
        alone = function(sequence, tiny)
        pair = (found, alone) if function is genoscan.predict else (found.gradient, alone.gradient)
        np.testing.assert_array_equal(*pair)


@pytest.mark.parametrize(
    ("sequence", "said"),
    [
        (5, "found int, expected a string"),
        (None, "found NoneType"),
        ({"a": 1}, "found dict"),
        (b"ACGT", "found bytes"),
        ("", "is empty"),
        ("ACGX", 'position 4 is "X"'),
        ([], "found an empty list"),
        (np.zeros((3, 5)), "an array of shape (3, 5)"),
        (np.zeros((4, 9)), 'or with axes="CL"'),
        (np.full((9, 4), 0.25), "row 0 is [0.25, 0.25, 0.25, 0.25], expected one 1"),
        (np.array([0, 1, 7]), "codes from 0 to 7"),
        (np.array([0.5, 1.0]), "an array of shape (2,)"),
        (("g.fa", 3), "g.fa"),
        ((3, "chr1"), "a pair that begins with int"),
    ],
)
def test_wrong_sequences_are_told_at_the_door(tiny: genoscan.Model, sequence: Any, said: str) -> None:
    for function in (genoscan.attribute, genoscan.predict):
        with pytest.raises(InputError, match=re.escape(said)):
            function(sequence, tiny)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"score": "best"}, "expected one of centred"),
        ({"strand": "x"}, "expected +, -, both or bed"),
        ({"target": "entropy"}, "expected log-likelihood"),
        ({"target": "logit:999:A"}, "999"),
        ({"batch": 0}, "expected at least 1"),
        ({"axes": "NCL"}, 'expected "LC"'),
        ({"masked": True}, "no mask token"),
    ],
)
def test_wrong_options_are_told(tiny: genoscan.Model, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        genoscan.attribute(np.eye(4)[[0, 1, 2, 3]], tiny, **options)


@pytest.mark.parametrize(
    "call",
    [
        lambda model, fasta, region: genoscan.attribute((fasta, region), model),
        lambda model, fasta, region: genoscan.predict((fasta, region), model),
        lambda model, fasta, region: genoscan.response((fasta, region), model, at=region.start + 1),
        lambda model, fasta, region: genoscan.mutate((fasta, region), model),
        lambda model, fasta, region: genoscan.map_dependencies((fasta, region), model),
        lambda model, fasta, region: genoscan.attribute_regions(
            fasta, [fasta.with_name("x.npz"), fasta.with_name("x.bw")], regions=[region], model=model
        ),
    ],
    ids=["attribute", "predict", "response", "mutate", "map_dependencies", "attribute_regions"],
)
def test_regions_past_the_end_are_told(
    tiny: genoscan.Model, fasta: Path, call: Callable[[genoscan.Model, Path, genoscan.Region], Any]
) -> None:
    """Also those given as objects, which no parser has compared with the genome."""
    with pytest.raises(InputError, match="is past the end of chr2, which has 90 bases"):
        call(tiny, fasta, genoscan.Region("chr2", 60, 110))
    assert not list(fasta.parent.glob("x.*"))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model: genoscan.response(LETTERS, model, at=-1), "expected a position, counted from 1"),
        (lambda model: genoscan.response(LETTERS, model, at=0), "expected 1 or more"),
        (lambda model: genoscan.mutate(LETTERS, model, masked=True), "masked: does not apply"),
        (lambda model: genoscan.mutate(LETTERS, model, first_order=True), "first_order: does not apply"),
        (lambda model: genoscan.mutate(LETTERS, model, background=5), "background: does not apply"),
    ],
)
def test_what_does_not_apply_is_told(tiny: genoscan.Model, call: Callable[[genoscan.Model], Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call(tiny)


@pytest.mark.parametrize("option", [{"tokens": "ACGT"}, {"pooling": "max"}])
def test_options_of_checkpoints_are_not_those_of_models(option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="bacteria is a model folder of genoscan"):
        genoscan.load_model("bacteria", **option)


def test_a_tolerance_needs_shared_windows(tiny: genoscan.Model, fasta: Path) -> None:
    with pytest.raises(InputError, match="tolerance: expected shared_end"):
        genoscan.score_variants(fasta, ["chr1:100:A>C"], tiny, tolerance=0.01)


@pytest.mark.parametrize("model", [5, torch.nn.Linear(2, 2)])
def test_what_is_no_model_is_told(model: Any) -> None:
    with pytest.raises(InputError, match="expected a Model, a name or a folder"):
        genoscan.attribute("ACGT", model)


def test_a_model_that_overflows_is_told(tiny: genoscan.Model) -> None:
    stack = deepcopy(tiny.stack)
    with torch.no_grad():
        stack.head.weight.mul_(1e38)
    with pytest.raises(NonFiniteError):
        genoscan.attribute("ACGTACGTAC", replace(tiny, network=stack), target="logit:9:A")


# Results


def test_results_in_other_forms(tiny: genoscan.Model, tmp_path: Path) -> None:
    found = genoscan.attribute(LETTERS, tiny)
    assert "\n" not in repr(found) and "200 bases" in repr(found)
    table = found.to_dataframe()
    assert list(table.columns) == [*("chrom", "position", "base", "score"), "d_A", "d_C", "d_G", "d_T"]
    assert table.position.tolist() == list(range(1, 201))
    assert "".join(table.base) == LETTERS
    assert table.score.isna().tolist() == [letter == "N" for letter in LETTERS]
    centred = found.to_tangermeme()
    assert centred.shape == (1, 4, 200) and np.isfinite(centred).all()
    assert np.abs(centred.sum(1)).max() < 1e-5 * np.abs(centred).max()
    for name, score in SCORES.items():
        np.testing.assert_array_equal(found.score_by(name), score(found.gradient, found.codes))
    assert found.to_bigwig(tmp_path / "x.bw") == tmp_path / "x.bw"
    np.testing.assert_array_equal(genoscan.read_track(tmp_path / "x.bw", "sequence:11-60"), found.scores[10:60])
    assert "<table" in found._repr_html_()
    many = genoscan.attribute([LETTERS[:50], LETTERS[50:100]], tiny)
    assert many.to_tangermeme().shape == (2, 4, 50)
    assert len(many.to_dataframe()) == 100
    many.to_bigwig(tmp_path / "y.bw")
    np.testing.assert_array_equal(genoscan.read_track(tmp_path / "y.bw", "sequence_2"), many[1].scores)
    with pytest.raises(InputError, match="50 to 60 bases"):
        genoscan.attribute([LETTERS[:50], LETTERS[:60]], tiny).to_tangermeme()


def test_a_figure_has_letters_as_high_as_their_scores(tiny: genoscan.Model) -> None:
    found = genoscan.attribute(LETTERS, tiny)
    traces = {trace.name: trace for trace in found.plot().data}
    for base in "ACGT":
        own = np.array([letter == base for letter in LETTERS])
        heights = np.array([y for y in traces[base].y if y is not None])
        assert np.isclose(heights.max(), max(found.scores[own].max(), 0), rtol=1e-5)
        assert np.isclose(heights.min(), min(found.scores[own].min(), 0), rtol=1e-5)
        centres = np.unique(np.round([x for x in traces[base].x if x is not None]))
        assert set(centres) == set(np.flatnonzero(own) + 1.0)


def test_tracks_are_read_from_bedgraph_too(tiny: genoscan.Model, fasta: Path) -> None:
    outputs = [fasta.with_name(name) for name in ("x.bw", "x.bedgraph", "x.bedgraph.gz")]
    genoscan.attribute_regions(fasta, outputs, regions=[REGION], model=tiny)
    first, *others = (genoscan.read_track(path, "chr1:31-170") for path in outputs)
    for other in others:
        np.testing.assert_array_equal(first, other)
    with pytest.raises(InputError, match="chr9"):
        genoscan.read_track(outputs[0], "chr9:1-5")


# Predictions, responses, proofs


@pytest.mark.parametrize("which", ["tiny", "both_ways"])
def test_predictions_are_the_logits_of_the_base(request: pytest.FixtureRequest, which: str) -> None:
    model = request.getfixturevalue(which)
    letters = LETTERS[:100]
    codes = torch.tensor([["ACGTN".index(letter) for letter in letters]])
    with torch.no_grad():
        outputs = model.whole(model.table()[codes])[0][:, list(model.config.base_columns)]
    offset = model.config.label_offset
    found = torch.from_numpy(genoscan.predict(letters, model))
    assert found[:offset].isnan().all()
    assert_near(found[offset:], outputs[: 100 - offset], torch.float32)
    turned = letters[::-1].translate(str.maketrans("ACGT", "TGCA"))
    reverse = genoscan.predict(turned, model, strand="-")[::-1, ::-1]
    np.testing.assert_array_equal(reverse, found.numpy())


@pytest.mark.parametrize(
    ("which", "logits", "strand"),
    [("tiny", True, "+"), ("tiny", False, "both"), ("both_ways", True, "both"), ("both_ways", False, "-")],
)
def test_predictions_are_the_command_lines(
    request: pytest.FixtureRequest, which: str, logits: bool, strand: str, fasta: Path
) -> None:
    """With the context of the model, and another one."""
    model, out = request.getfixturevalue(which), fasta.with_name("p.npz")
    asked = "predict", fasta, "-r", REGION, "-m", model.path, "--tile", 32, "--strand", strand, "-o", out
    for more, context in (((), None), (("--context", 7), 7)):
        done = command(*asked, *(["--logits"] if logits else []), *more)
        assert done.code == 0, done.err
        found = genoscan.predict((fasta, REGION), model, strand=strand, logits=logits, context=context)
        with np.load(out) as archive:
            np.testing.assert_array_equal(archive["predictions"], found)
        assert np.isfinite(found).all()


def test_predictions_of_a_list(tiny: genoscan.Model, fasta: Path) -> None:
    """Sequences of equal length share batches; regions of files are read with their context."""
    sequences = [LETTERS[:50], (fasta, REGION), LETTERS[20:70], LETTERS[:9]]
    for found, sequence in zip(genoscan.predict(sequences, tiny), sequences, strict=True):
        np.testing.assert_allclose(found, genoscan.predict(sequence, tiny), rtol=1e-5)


def test_a_response_is_the_command_lines(tiny: genoscan.Model, fasta: Path) -> None:
    out = fasta.with_name("x.bw")
    done = command("response", fasta, "--at", "chr1:60", "-r", REGION, "-m", tiny.path, "--tile", 32, "-o", out)
    assert done.code == 0, done.err
    found = genoscan.response((fasta, REGION), tiny, at=60)
    np.testing.assert_array_equal(found.values, genoscan.read_track(out, REGION))
    inside = genoscan.response(LETTERS, tiny, at=60, finite=True)
    assert not inside.values[:59].any() and inside.values[60:80].any()


def test_responses_need_no_memory_for_gradients(both_ways: genoscan.Model) -> None:
    """`response` has no options `--memory` and `--spill`: it stores two boundaries."""
    scant = replace(both_ways, method=genoscan.Layerwise(tile=32, memory=1))
    for finite in (False, True):
        found = (genoscan.response(LETTERS, model, at=60, finite=finite).values for model in (scant, both_ways))
        np.testing.assert_array_equal(*found)
    for function in (genoscan.attribute, genoscan.predict):
        with pytest.raises(InputError, match="need at least"):
            function(LETTERS, scant)


def test_settings_of_a_model_may_be_texts(tiny: genoscan.Model) -> None:
    assert genoscan.load_model(tiny.path, dtype="float64").dtype == torch.float64
    for wrong in ({"dtype": "float16"}, {"memory": "8GB"}, {"memory": -1}, {"device": "gpu"}, {"device": "cuda:99"}):
        with pytest.raises(InputError, match=f"{next(iter(wrong))} .*: "):
            genoscan.load_model(tiny.path, **wrong)
    with pytest.raises(InputError, match=r"strand bed: expected \+, - or both"):
        genoscan.predict(LETTERS, tiny, strand="bed")


def test_a_changed_model_is_verified_as_it_is(tiny: genoscan.Model) -> None:
    stack = deepcopy(tiny.stack)
    with torch.no_grad():
        stack.head.weight.mul_(2)
    changed = replace(tiny, network=stack)
    doubled = changed.rebuild(torch.float64, "reference")
    assert torch.equal(doubled.stack.head.weight, 2 * tiny.stack.head.weight.double())
    assert all(check.passed for check in genoscan.verify(LETTERS[:60], changed))


def test_a_config_without_its_format_is_still_native(tiny: genoscan.Model, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.path, tmp_path / "plain")
    config = json.loads((folder / "config.json").read_text())
    del config["format"]
    (folder / "config.json").write_text(json.dumps(config))
    assert genoscan.load_model(folder).sha256 == tiny.sha256


def test_verify_passes(tiny: genoscan.Model) -> None:
    checks = genoscan.verify(LETTERS[:100], tiny)
    assert len(checks) == 8 and all(check.passed for check in checks)


# Models from elsewhere


def mambapy_model() -> torch.nn.Module:
    lm = pytest.importorskip("mambapy.lm")
    mamba = pytest.importorskip("mambapy.mamba")
    torch.manual_seed(1)
    made = lm.LM(mamba.MambaConfig(d_model=16, n_layers=2), vocab_size=16)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if "A_log" not in name:
                weight.add_(0.1 * torch.randn_like(weight))
    return made.eval()


def transformers_mamba() -> torch.nn.Module:
    return transformers_model("mamba", hidden_size=16, num_hidden_layers=2, state_size=8)


@pytest.mark.parametrize("make", [mambapy_model, transformers_mamba])
def test_wrapped_modules_have_their_own_gradient(make: Callable[[], torch.nn.Module]) -> None:
    """Against torch's autograd through the module itself, from its embedding on."""
    module, letters = make(), bases(60, 5)
    tokens = ",".join(f"{base}={token}" for base, token in TOKENS.items())
    model = genoscan.wrap(module, tokens=tokens)
    ids = torch.tensor([[TOKENS[letter] for letter in letters]])
    (embedding,) = (m for m in module.modules() if isinstance(m, torch.nn.Embedding))
    seen: list[torch.Tensor] = []

    def one_hot(_module: Any, _given: Any, output: torch.Tensor) -> torch.Tensor:
        x = torch.nn.functional.one_hot(ids, 16).float().requires_grad_()
        seen.append(x)
        return x @ embedding.weight

    with embedding.register_forward_hook(one_hot):
        outputs = module(ids)
    logits = getattr(outputs, "logits", outputs)
    (truth,) = torch.autograd.grad(logits[0, 48, TOKENS["C"]], seen[0])
    columns = truth[0][:, [TOKENS[base] for base in "ACGT"]]
    found = genoscan.attribute(letters, model, target="logit:50:C")
    assert_near(torch.from_numpy(found.gradient), columns, torch.float32)
    # The model itself is checked; the files that it was converted from no longer exist.
    assert all(check.passed for check in genoscan.verify(letters, model))


def test_a_wrapped_module_has_captums_gradient() -> None:
    """Optional: captum is no dependency of the tests."""
    attr = pytest.importorskip("captum.attr", exc_type=ImportError)
    module, letters = transformers_mamba().double(), bases(60, 5)
    tokens = ",".join(f"{base}={token}" for base, token in TOKENS.items())
    model = genoscan.wrap(module, tokens=tokens, dtype=torch.float64)
    embedding = module.get_input_embeddings().weight  # type: ignore[operator]

    def logits(x: torch.Tensor) -> torch.Tensor:
        return module(inputs_embeds=x @ embedding).logits[:, 48]  # type: ignore[no-any-return]

    x = torch.nn.functional.one_hot(torch.tensor([[TOKENS[letter] for letter in letters]]), 16).double()
    truth = attr.Saliency(logits).attribute(x.requires_grad_(), target=TOKENS["C"], abs=False)
    found = genoscan.attribute(letters, model, target="logit:50:C")
    columns = truth[0][:, [TOKENS[base] for base in "ACGT"]]
    assert_near(torch.from_numpy(found.gradient), columns, bar=1e-6)


def test_a_wrapped_module_that_computes_something_else_is_refused() -> None:
    module = transformers_mamba()
    module.register_forward_hook(lambda _m, _i, out: type(out)(logits=2 * out.logits))
    tokens = ",".join(f"{base}={token}" for base, token in TOKENS.items())
    with pytest.raises(ModelError, match="computes another function"):
        genoscan.wrap(module, tokens=tokens)
    with pytest.raises(InputError, match="expected a language model of mambapy"):
        genoscan.wrap(torch.nn.Linear(2, 2))


def test_foreign_folders_are_loaded_by_path(tmp_path: Path) -> None:
    config = caduceus.config()
    folder = caduceus.write(tmp_path / "cad", config, caduceus.tensors(config))
    model = genoscan.load_model(folder, tile=16)
    assert model.name == "cad" and model.path == folder
    assert isinstance(model.method, genoscan.Layerwise)
    found = genoscan.attribute(bases(40, 1), folder)
    np.testing.assert_array_equal(found.codes, genoscan.attribute(bases(40, 1), model).codes)


# The package


def test_names_are_not_shadowed_by_modules() -> None:
    for name in genoscan.__all__:
        assert type(getattr(genoscan, name)).__name__ != "module", name
    assert dir(genoscan) == genoscan.__all__


def test_the_documented_names_are_those_that_there_are() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    named = set(re.findall(r"`genoscan\.(\w+)", page))
    assert named == set(genoscan.__all__)


def test_import_is_quick() -> None:
    script = "import time; t = time.perf_counter(); import genoscan; print(time.perf_counter() - t)"
    seconds = min(
        float(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    )
    assert seconds < 0.15


def test_the_examples_of_the_documentation_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    torch.manual_seed(1)
    sequences, effects, layer = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.S)
    held: dict[str, Any] = {}
    exec(compile(sequences, "docs/python.md", "exec"), held)
    assert held["one"].gradient.shape == (400, 4)
    assert held["many"].to_tangermeme().shape == (2, 4, 200)
    exec(compile(effects, "docs/python.md", "exec"), held)
    assert held["scores"].status == ["ok", "ok"]
    assert held["effects"].raw.shape == (40, 4) and held["found"].dense().shape == (40, 40)
    exec(compile(layer, "docs/python.md", "exec"), held)
    x = held["x"].clone().requires_grad_()
    outputs, _ = held["layer"](x, held["layer"].begin(1))
    (truth,) = torch.autograd.grad(outputs[0, 4900, 0], x)
    assert_near(held["gradient"], truth, torch.float32)


def test_a_bidirectional_network_given_to_the_causal_engine_is_told(both_ways: genoscan.Model) -> None:
    from genoscan.engine.inputs import OneHot

    inputs = OneHot(torch.zeros(1, 8, dtype=torch.uint8), both_ways.table())
    target = genoscan.LogitSum(torch.tensor([3]), torch.tensor([4]), torch.ones(1, 16))
    with pytest.raises(InputError, match="expected a causal layer"):
        next(genoscan.Adjoint().gradient(both_ways.stack, inputs, target))


def test_the_notebook_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    (cell,) = (c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "attribute(" in c)
    lines = [line for line in cell.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) <= 6
    exec(compile(cell, "README.md", "exec"), {})
    assert (tmp_path / "sensitivity.bw").exists()
