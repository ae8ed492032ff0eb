from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from inference.engine import Engine
from inference.errors import InvalidRequest
from inference.models.loader import load
from inference.models.plain import open_view
from inference.saes.sources import Sources
from inference.saes.training import checkpoint, corpora, rounds
from inference.saes.training import job as training_job
from inference.saes.training.chats import questions
from inference.saes.training.job import FINISH, train_sae
from inference.saes.training.measure import measure
from inference.saes.training.trainer import Training
from inference.saes.training.windows import read_windows
from inference.store import VectorStore
from inference.types import CheckPairs, GenerationRequest, Message, Pair, Progress, Result, SamplingParams, TrainSae
from tests.inference import tiny
from tests.inference.conftest import CACHE, wait_until_ready
from tests.inference.driver import Listener

TEXTS = tuple(" ".join(f"{i}{j} {tiny.SENTENCES[(i + j) % 4]}" for j in range(6)) for i in range(30))
JOB = TrainSae("job", layer=1, texts=TEXTS, width=64, sparsity=8, steps=60, batch=64, context=32, learning_rate=0.003)


@pytest.fixture(scope="module")
def model(tiny_folder):
    return load(str(tiny_folder("llama")), cache_dir=CACHE, dtype="float32", device="cpu")


def trained(model, home: Path, **settings) -> Result:
    *said, result = [e for e in train_sae(model, replace(JOB, **settings), home) if e is not None]
    assert all(isinstance(event, Progress) for event in said)
    assert isinstance(result, Result)
    return result


def refused(model, home: Path, **settings) -> str:
    with pytest.raises(InvalidRequest) as caught:
        trained(model, home, **settings)
    return caught.value.code


def losses(facts) -> list[float]:
    return [loss for _, loss, *_ in facts["curve"]]


@pytest.mark.parametrize(
    ("architecture", "saved_as", "sparsity"),
    [
        ("batchtopk", "JumpReLUSAE", 8),
        ("topk", "TopKSAE", 8),
        ("matryoshka_batchtopk", "JumpReLUSAE", 8),
        ("standard", "StandardSAE", 0),
        ("gated", "GatedSAE", 0),
        ("jumprelu", "JumpReLUSAE", 0),
    ],
)
def test_training_lowers_the_loss_and_plain_sae_lens_loads_the_result(
    model, tmp_path, architecture, saved_as, sparsity
):
    from sae_lens import SAE

    result = trained(model, tmp_path / "saes", architecture=architecture, sparsity=sparsity)
    facts = result.payload["facts"]
    first, last = losses(facts)[:6], losses(facts)[-6:]
    assert sum(last) < 0.9 * sum(first)

    folder = tmp_path / "saes" / result.payload["source"]
    sae = SAE.load_from_disk(folder)
    assert type(sae).__name__ == saved_as
    assert sae.dtype == torch.bfloat16
    assert sae.cfg.metadata.hook_name == "blocks.1.hook_resid_post"
    assert json.loads((folder / "facts.json").read_text()) == facts
    assert {p.suffix for p in folder.iterdir()} == {".json", ".safetensors"}


def test_the_figures_are_those_of_the_saved_sae_on_text_that_was_held_out(model, tmp_path):
    from sae_lens import SAE

    result = trained(model, tmp_path / "saes")
    facts = result.payload["facts"]
    *_, windows = read_windows(model, JOB)
    limit = 8.0 * facts["residual_norm"]  # about where sinks begin; the tiny model has none
    sae = SAE.load_from_disk(tmp_path / "saes" / result.payload["source"], dtype="float32")
    rows = []
    for window in windows.held_out:
        hidden = model.pass_through(torch.tensor([window]), last=1)[1][0]
        rows.append(hidden[[token not in model.special_ids for token in window]])
    hidden = torch.cat(rows)
    assert float(hidden.norm(dim=-1).max()) < limit
    with torch.no_grad():
        latents, out = sae.encode(hidden), sae(hidden)
    variance = (hidden - hidden.mean(0)).square().sum()
    assert facts["explained_variance"] == pytest.approx(float(1 - (hidden - out).square().sum() / variance), abs=2e-3)
    assert facts["l0"] == pytest.approx(float((latents > 0).sum(-1).float().mean()), abs=0.1)
    assert facts["tokens"] == len(hidden)


def test_whole_texts_are_held_out_and_none_is_there_twice(model):
    texts = tuple(f"{i} " * 60 for i in range(100, 130))
    *_, windows = read_windows(model, replace(JOB, texts=texts + texts))
    assert windows.texts == 30
    assert not set(windows.held_out) & set(windows.training)
    assert 1 <= len({window[:8] for window in windows.held_out}) < len({window[:8] for window in windows.training})


def test_what_is_spliced_in_is_worth_what_it_changes(model):
    """An SAE that gives back what it gets loses nothing; one that gives zeros recovers nothing."""
    *_, windows = read_windows(model, JOB)
    view, mean = open_view(model), torch.zeros(32)

    class Identity:
        def encode(self, x):
            return x.abs()

        def decode(self, latents):
            return self.kept

        def __call__(self, x):
            return x

    class Zeros(Identity):
        def __call__(self, x):
            return 0 * x

    for sae, recovered in ((Identity(), "clean"), (Zeros(), "zero")):
        sae.kept = 0.0
        said = measure(view, sae, windows.held_out, 1, model.special_ids, float("inf"), mean)
        assert said["losses"]["spliced"] == pytest.approx(said["losses"][recovered], abs=1e-6)
        assert said["losses"]["mean"] == pytest.approx(said["losses"]["zero"], abs=1e-6)
    window = windows.held_out[0]
    with torch.no_grad():
        logits = model.hf(torch.tensor([window])).logits[0, :-1].float()
    by_hand = float(torch.nn.functional.cross_entropy(logits, torch.tensor(window[1:])))
    alone = measure(view, sae, [window], 1, model.special_ids, float("inf"), mean)
    assert alone["losses"]["clean"] == pytest.approx(by_hand, abs=1e-3)


KILLED = """
    import json, sys, torch
    from pathlib import Path
    from inference.models.loader import load
    from inference.saes.training import job as training_job
    from inference.types import TrainSae

    torch.set_num_threads(1)
    training_job.CHECKPOINT_SECONDS, training_job.STEPS_ASIDE, training_job.SAY_SECONDS = 0.0, 0.0, 0.0
    model = load(sys.argv[1], cache_dir=Path(sys.argv[2]), dtype="float32", device="cpu")
    request = TrainSae.from_wire(json.loads(Path(sys.argv[3]).read_text()))
    for event in training_job.train_sae(model, request, Path(sys.argv[4])):
        if event is not None:
            print(event.done, flush=True)
"""


def test_a_training_that_was_killed_goes_on_as_if_nothing_had_happened(model, tiny_folder, tmp_path):
    """kill -9 in the middle of the second pass over the data; what follows is what would have followed."""
    request = tmp_path / "request.json"
    request.write_text(json.dumps(JOB.to_wire()))
    script = textwrap.dedent(KILLED)
    home = tmp_path / "killed" / "saes"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tiny_folder("llama")), str(CACHE), str(request), str(home)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert process.stdout
    for line in process.stdout:
        if int(line) >= 33:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait(timeout=60)
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    assert not home.exists() or not any(home.iterdir())

    (folder,) = (home.parent / "sae-training" / "unfinished").iterdir()
    assert all(
        file.suffix in (".json", ".safetensors") for point in checkpoint.found(folder) for file in point.iterdir()
    )
    facts = trained(model, home, id="another").payload["facts"]
    assert facts["trained"]["resumed"]
    assert facts["trained"]["steps"] == JOB.steps
    whole = trained(model, tmp_path / "whole" / "saes").payload["facts"]
    assert not whole["trained"]["resumed"]
    assert [step for step, *_ in facts["curve"]] == list(range(1, JOB.steps + 1))
    assert facts["curve"] == whole["curve"]
    weights = Path("saes") / facts["source"] / "sae_weights.safetensors"
    ours, theirs = load_file(home.parent / weights), load_file(tmp_path / "whole" / weights)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_broken_checkpoint_gives_way_to_the_one_before(model, tmp_path, monkeypatch):
    monkeypatch.setattr(training_job, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training_job, "STEPS_ASIDE", 0.0)
    steps = train_sae(model, JOB, tmp_path / "saes")
    folder = tmp_path / "sae-training" / "unfinished"
    for _ in steps:
        if folder.exists() and len([p for f in folder.iterdir() for p in checkpoint.found(f)]) == checkpoint.KEPT:
            break
    steps.close()
    older, newest = checkpoint.found(next(folder.iterdir()))
    (newest / checkpoint.TENSORS).write_bytes(b"cut off")
    said = next(e for e in train_sae(model, JOB, tmp_path / "saes") if e is not None and e.facts["resumed"])
    assert said.facts["resumed"] == int(older.name.split("-")[1])


def test_asked_to_finish_it_keeps_what_there_is_and_can_be_gone_on_with(model, tmp_path, monkeypatch):
    monkeypatch.setattr(training_job, "STEPS_ASIDE", 0.0)
    monkeypatch.setattr(training_job, "SAY_SECONDS", 0.0)
    steps = train_sae(model, JOB, tmp_path / "saes")
    event = next(steps)
    while event is None or event.done < 20:
        event = next(steps)
    event = steps.send(FINISH)
    while not isinstance(event, Result):
        event = next(steps)
    facts = event.payload["facts"]
    assert facts["trained"]["stopped_early"]
    assert 20 <= facts["trained"]["steps"] < JOB.steps
    whole = trained(model, tmp_path / "saes").payload["facts"]  # in its own place, since the request is the same
    assert whole["trained"]["resumed"]
    assert whole["trained"]["steps"] == JOB.steps
    assert not any((tmp_path / "sae-training" / "unfinished").iterdir())  # nothing is left lying about
    assert not any((tmp_path / "sae-training" / "activations").iterdir())


def test_more_steps_go_on_from_fewer_and_end_with_a_learning_rate_of_their_own(model, tmp_path, monkeypatch):
    monkeypatch.setattr(training_job, "STEPS_ASIDE", 0.0)
    monkeypatch.setattr(training_job, "SAY_SECONDS", 0.0)
    monkeypatch.setattr(training_job, "CHECKPOINT_SECONDS", 0.0)
    steps = train_sae(model, JOB, tmp_path / "saes")
    while (event := next(steps)) is None or event.done < 20:
        pass
    steps.close()
    fewer = Training(model, replace(JOB, steps=30))
    assert checkpoint.load_newest(next((tmp_path / "sae-training" / "unfinished").iterdir()), fewer)
    assert fewer.steps_done >= 19
    whole = Training(model, replace(JOB, steps=30))
    for _ in range(fewer.steps_done):
        whole.trainer.lr_scheduler.step()
    rates = [t.trainer.optimizer.param_groups[0]["lr"] for t in (fewer, whole)]
    assert rates[0] == pytest.approx(rates[1])
    facts = trained(model, tmp_path / "saes", steps=30).payload["facts"]
    assert facts["trained"]["resumed"]
    assert facts["trained"]["steps"] == 30


def test_batches_hold_every_row_once_an_epoch_and_depend_on_the_place_alone():
    rows = torch.arange(100.0)[:, None]
    first = list(rounds.batches(rows, rounds.Place(), 0, 10, seed=3))
    assert sorted(torch.cat([b for _, b in first]).flatten().tolist()) == list(range(100))
    again = list(rounds.batches(rows, rounds.Place(batch=4), 0, 10, seed=3))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first[4:], again, strict=True))
    other = next(iter(rounds.batches(rows, rounds.Place(epoch=1), 0, 10, seed=3)))[1]
    assert not torch.equal(other, first[0][1])
    assert sorted(rounds.order(7, 2, seed=3)) == list(range(7))


@pytest.mark.parametrize("speed", [None, ()], ids=["sharing", "padded"])
def test_what_is_trained_on_is_the_residual_of_ordinary_tokens(tiny_folder, speed):
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype="float64", device="cpu", speed=speed)
    *_, windows = read_windows(model, JOB)
    some = windows.training[:5]
    *_, rows = rounds.Rows(model, 2).read(some)
    expected = []
    for window in some:
        hidden = model.pass_through(torch.tensor([window]), last=2)[2][0]
        expected.append(hidden[[token not in model.special_ids for token in window]])
    torch.testing.assert_close(rows, torch.cat(expected))
    assert all(window[0] == model.tokenizer.bos_token_id for window in some) == bool(
        model.encode_prompt("a")[0] == model.tokenizer.bos_token_id
    )


def test_attention_sinks_are_left_out():
    fake = SimpleNamespace(special_ids=frozenset())
    reading = rounds.Rows(fake, 0)
    rows = torch.ones(9, 4)
    rows[3] *= 100
    assert len(reading._without_sinks(rows)) == 8
    assert reading.sink_limit == pytest.approx(16)


def test_text_that_cannot_be_trained_on_is_refused_with_a_way_out(model, tmp_path):
    home = tmp_path / "saes"
    assert refused(model, home, texts=()) == "no_text"
    assert refused(model, home, texts=("too short",)) == "too_little_text"
    assert refused(model, home, texts=TEXTS[:2], batch=4096) == "too_little_text"
    assert refused(model, home, layer=4) == "layer_out_of_range"
    assert refused(model, home, sparsity=65) == "bad_sparsity"
    assert refused(model, home, width=60, architecture="matryoshka_batchtopk") == "bad_width"
    assert refused(model, home, width=2**20) == "bad_width"
    assert refused(model, home, steps=0) == "bad_steps"
    assert refused(model, home, name="../elsewhere") == "bad_name"
    trained(model, home, name="mine", steps=2)
    assert refused(model, home, name="mine", steps=3) == "source_exists"


def test_a_loss_that_is_no_number_ends_the_training_with_a_sentence(model, tmp_path, monkeypatch):
    step = training_job.Training.step
    monkeypatch.setattr(
        training_job.Training,
        "step",
        lambda self, batch: step(self, batch * float("inf") if self.steps_done else batch),
    )
    assert refused(model, tmp_path / "saes") == "diverged"


def test_streams_and_short_jobs_go_on_beside_a_training(tiny_folder, tmp_path):
    model = load(str(tiny_folder("llama")), cache_dir=CACHE, dtype="float32", device="cpu")
    home = tmp_path / "saes"
    engine = Engine(lambda: model, VectorStore(tmp_path / "vectors"), name="llama", sources=Sources([home], store=home))
    try:
        wait_until_ready(engine)
        training, short, row = Listener(), Listener(), Listener()
        engine.start_job(replace(JOB, steps=100_000), training.inbox.put)
        while not (isinstance(said := training.take(), Progress) and said.done):
            pass
        engine.start_job(CheckPairs("short", (Pair("a", "b"),)), short.inbox.put)
        engine.start(
            engine.prepare(
                GenerationRequest("row", prompt="Tabby", sampling=SamplingParams(max_tokens=20, ignore_eos=True))
            ),
            row.inbox.put,
        )
        assert short.wait().result
        assert len(row.wait().tokens) == 20
        engine.finish(JOB.id)
        payload = training.wait().result.payload
        assert payload["facts"]["trained"]["stopped_early"]
        (info,) = engine.sources.infos(model)
        assert info.id == payload["source"] == "1-batchtopk-64"
        assert not info.problem
        assert info.facts["explained_variance"] == payload["facts"]["explained_variance"]
    finally:
        engine.close()


def test_chats_go_through_the_template(model, tmp_path):
    chats = tuple((Message("user", f"What is {i}?"), Message("assistant", TEXTS[i % 30])) for i in range(30))
    result = trained(model, tmp_path / "saes", texts=(), conversations=chats, steps=5)
    assert result.payload["facts"]["data"]["texts"] == 30


def test_questions_are_the_same_for_a_seed_and_all_different():
    assert questions(500, 1) == questions(500, 1) != questions(500, 2)
    assert len(set(questions(1000, 1))) == 1000


def test_the_brown_corpus_is_read_as_people_write():
    tagged = "``/`` It/pps is/bez n't/* late/jj ''/'' ,/, he/pps said/vbd ./.\n\n\n(/( Really/rb ?/. ?/. )/)\n"
    assert corpora.brown(tagged) == '"It isn\'t late", he said.\n\n(Really?)'
