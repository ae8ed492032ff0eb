"""lm-eval itself, through its local-completions, on a base model and on a steered preset."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from inference.models.loader import LoadedModel
from tests.openai.server import ROOT, Server
from tests.openai.test_scores import calm, in_process, model, questions  # noqa: F401  (a fixture)

TASK = Path(__file__).with_name("lm_eval")
LM_EVAL = Path(os.environ.get("LM_EVAL", ROOT / ".venv-peers" / "lm-eval" / "bin" / "lm_eval"))
needs_lm_eval = pytest.mark.skipif(not LM_EVAL.exists(), reason="lm-eval is not installed (make clients)")


def evaluate(server: Server, name: str, folder: Path) -> list[list[tuple[float, bool]]]:
    """Per question, per choice: log-likelihood and whether it is greedy, as lm-eval read them."""
    tasks = folder / "tasks"
    shutil.copytree(TASK, tasks)
    task = (tasks / "choices.yaml").read_text().replace("CHOICES", str(TASK / "choices.jsonl"))
    (tasks / "choices.yaml").write_text(task)
    options = {
        "model": name,
        "base_url": f"{server.url}/v1/completions",
        "tokenizer": str(server.model),
        "tokenizer_backend": "huggingface",
        "max_retries": "1",
        "max_length": "256",
    }
    arguments = {
        "--model": "local-completions",
        "--model_args": ",".join(f"{option}={value}" for option, value in options.items()),
        "--tasks": "steerboard_choices",
        "--include_path": str(tasks),
        "--batch_size": "4",
        "--output_path": str(folder / "out"),
    }
    done = subprocess.run(
        [str(LM_EVAL), *(word for pair in arguments.items() for word in pair), "--log_samples"],
        cwd=folder,
        env=os.environ | {"OPENAI_API_KEY": server.key(), "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (samples,) = (folder / "out").rglob("samples_*.jsonl")
    rows = sorted(map(json.loads, samples.read_text().splitlines()), key=lambda row: int(row["doc_id"]))
    return [[(float(value), str(greedy) == "True") for ((value, greedy),) in row["resps"]] for row in rows]


@needs_lm_eval
@pytest.mark.parametrize("name", ["Tiny-Llama", "tiny-llama::calm@1.0"])
def test_lm_evals_scores_equal_those_in_process(
    name: str,
    server: Server,
    model: LoadedModel,  # noqa: F811
    tmp_path: Path,
) -> None:
    found = evaluate(server, name, tmp_path)
    add = calm(model) if "::" in name else None
    for question, scores in zip(questions(), found, strict=True):
        context = model.tokenizer(question["question"])["input_ids"]
        for choice, (score, greedy) in zip(question["choices"], scores, strict=True):
            whole = model.tokenizer(f"{question['question']} {choice}")["input_ids"]
            expected = in_process(model, whole[: len(context)], whole[len(context) :], add=add)
            assert (score, greedy) == (pytest.approx(expected[0], abs=1e-4), expected[1])
