"""The parts of the benchmarks that can be wrong without anyone noticing: what is timed, compared and written down."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import (
    attribution,
    common,
    contrasts,
    decode,
    experiment,
    extract,
    latency,
    policy,
    readme,
    soak,
    sweep,
    watching,
    web,
)
from benchmarks.common import Options, Rate, rate, record, stolen_percent
from benchmarks.latency import Timing, timing
from benchmarks.peers.lines import Peer
from benchmarks.soak import Seen
from scripts.servers import free_port
from tests.inference.tiny import save

ROOT = Path(__file__).resolve().parent.parent
QUICK = Options(quick=True, model="default", dtype="bfloat16", repeats=1)
PROMPTS = [[1, 2, 3]] * 32


def json_line(printed: str) -> dict:
    return json.loads(printed.strip().splitlines()[-1])


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    return tmp_path


# ---- rates ----


def test_decoding_is_timed_from_the_first_token_to_the_last():
    assert rate(0.0, [[2.0, 2.5, 3.0, 3.5, 4.0]]) == Rate(decode=4 / 2.0, whole=5 / 4.0)


def test_decoding_of_several_streams_is_timed_while_all_of_them_write():
    early, late = [1.0, 2.0, 3.0, 4.0], [2.0, 3.0, 4.0, 5.0]
    assert rate(0.0, [early, late]) == Rate(decode=4 / 2.0, whole=8 / 5.0)


def test_streams_that_never_overlap_are_timed_from_end_to_end():
    assert rate(0.0, [[1.0, 2.0], [3.0, 5.0]]) == Rate(decode=3 / 4.0, whole=4 / 5.0)


# ---- what clients note ----


def test_a_frame_came_when_its_last_byte_did():
    long = b"x" * 300
    stream = b"\x81\x02hi" + b"\x81\x7e" + len(long).to_bytes(2, "big") + long + b"\x89\x01p" + b"\x81\x05cut"
    reads = [(1.0, stream[:5]), (2.0, stream[5:100]), (3.0, stream[100:])]
    found = list(web.frames_of(web.Timeline(reads)))
    assert found == [(1.0, web.TEXT, b"hi"), (3.0, web.TEXT, long), (3.0, web.PING, b"p")]


def test_a_chunk_of_an_answer_came_when_its_last_byte_did():
    head, body = b"HTTP/1.1 200 OK\r\n\r\n", b"3\r\none\r\n4\r\ntwo!\r\n0\r\n\r\n"
    reads = [(1.0, head + body[:6]), (2.0, body[6:14]), (3.0, body[14:])]
    assert list(web.chunks_of(web.Timeline(reads), len(head))) == [(1.0, b"one"), (3.0, b"two!")]


# ---- decode ----


def test_decode_asks_everyone_at_every_stream_count():
    keys = [c.key for c in decode.contests((1, 2, 8, 32), 48, 24, PROMPTS, layers=30)]
    ours = {f"ours_{n}_{case}" for n in (1, 2, 8, 32) for case in ("plain", "alike", "distinct")}
    peers = {f"{peer}_{n}" for peer in ("hf", "vllm") for n in (1, 2, 8, 32)}
    assert set(keys) == ours | peers | {"bridge_1", "ours_32_all_layers"}
    assert len(keys) == len(set(keys))


def test_distinct_rows_share_no_direction_layer_and_strength():
    edits = [decode.edits("distinct", row, 30)[0] for row in range(32)]
    assert len({seed for seed, _, _ in edits}) == len({strength for _, _, strength in edits}) == 32
    assert {layer for _, layer, _ in edits} == set(range(30))
    assert {tuple(decode.edits("alike", row, 30)) for row in range(32)} == {((0, 10, 6.0),)}
    assert [layer for _, layer, _ in decode.edits("all_layers", 3, 30)] == list(range(30))
    assert decode.edits("plain", 3, 30) == []


def rates(**found: list[float]) -> dict[str, list[Rate]]:
    return {key: [Rate(value, value / 2) for value in values] for key, values in found.items()}


MEASURED = rates(
    ours_1_plain=[30, 30], ours_1_alike=[30, 30], ours_1_distinct=[30, 60], hf_1=[20, 40], vllm_1=[20, 30],
    ours_2_plain=[50, 60], ours_2_alike=[40, 80], ours_2_distinct=[38, 76], ours_2_all_layers=[45, 54],
    hf_2=[30, 50], vllm_2=[60, 80], bridge_1=[10, 12],
)  # fmt: skip


def test_ratios_are_taken_within_each_repeat():
    found = decode.figures(MEASURED)
    assert found["ratio_vllm_1"] == pytest.approx((30 / 20 + 60 / 30) / 2)
    assert found["distinct_over_alike_2"] == 0.95
    assert found["all_layers_over_plain_2"] == 0.9
    assert (found["ours_2_plain"], found["whole_ours_2_plain"]) == (55, 27.5)


@pytest.mark.parametrize(("distinct", "holds"), [([80, 100], True), ([40, 50], False)])
def test_decode_holds_only_when_every_ratio_does(distinct, holds):
    measured = {**MEASURED, **rates(ours_2_distinct=distinct, ours_2_all_layers=[50, 60])}
    assert decode.holds(decode.figures(measured)) is holds


def test_without_vllm_nothing_is_said_of_it(results, capsys):
    measured = {key: found for key, found in MEASURED.items() if not key.startswith("vllm")}
    decode.report(measured, {"ours": {}}, QUICK, tokens=8, streams=(1, 2))
    printed = capsys.readouterr().out
    assert "vllm is left out" in printed
    assert not any("vllm" in key for key in json_line(printed))
    assert list(results.iterdir()) == []  # --quick is not kept


# ---- sweep, extract, latency ----


def test_the_sweep_has_every_point_once():
    found = sweep.points(30, strengths=8, at=5, prompts=8)
    assert len(set(found)) == len(found) == 320
    assert all(0 <= layer < 30 for _, layer, _ in found)


def test_the_sampled_points_are_scaled_to_all_of_them(results, capsys):
    sweep.report(QUICK, 320, 32, batch=[20.0], single=[1.0, 2.0])
    found = json_line(capsys.readouterr().out)
    assert (found["one_after_another_seconds"], found["speedup"], found["sampled"]) == (480.0, 24.0, 2)
    assert found["holds"]


def test_an_experiment_has_a_thousand_points_and_each_once():
    doses = experiment.strengths(experiment.STRENGTHS)
    found = experiment.points([10, 11, 12], doses, experiment.PROMPTS)
    assert len(set(found)) == len(found) == 1000
    assert sum(strength == 0 for strength, _, _ in found) == experiment.PROMPTS


def test_answers_that_ended_early_are_not_counted_for_us(results, capsys):
    whole = {"points": 1000, "answers": 1000, "tokens": 4000, "seconds": 20.0}
    experiment.report(QUICK, 1000, whole, single=[0.2, 0.4])
    found = json_line(capsys.readouterr().out)
    assert (found["one_after_another_seconds"], found["speedup"], found["holds"]) == (150.0, 7.5, True)
    with pytest.raises(AssertionError):
        experiment.report(QUICK, 1000, whole | {"answers": 999}, single=[0.2])


def test_candidates_are_timed_as_neighbours_and_their_texts_counted(results, capsys):
    policy.report(QUICK, 16, batch=[1.0, 2.0], single=[3.0, 5.0], whole=[1.1, 2.1], same=[4, 3])
    found = json_line(capsys.readouterr().out)
    assert (found["speedup"], found["same_texts"], found["texts"], found["holds"]) == (2.75, 7, 8, True)
    policy.report(QUICK, 16, batch=[2.0], single=[3.0], whole=[2.1], same=[4])
    assert not json_line(capsys.readouterr().out)["holds"]


class WordTokenizer:
    """Words for tokens."""

    def __call__(self, text, **_):
        return {"offset_mapping": [match.span() for match in re.finditer(r"\s*\S+", text)]}


def test_free_answers_end_where_they_are_read():
    found = contrasts.answers(200).pairs
    assert len(set(found)) == 200
    assert all(side == side.strip() and side for _, *sides in found for side in sides)


def test_questions_differ_in_the_letter_alone_and_either_letter_is_right_as_often():
    found = contrasts.questions(WordTokenizer(), 200)
    assert (found.method, found.token) == ("caa", -2)
    assert len({prompt for prompt, *_ in found.pairs}) == 200
    assert [positive for _, positive, _ in found.pairs].count("(A)") == 100
    assert {(positive, negative) for _, positive, negative in found.pairs} == {("(A)", "(B)"), ("(B)", "(A)")}
    row = next(contrasts.rows("calm"))
    for number, right in ((0, "(B)"), (1, "(A)")):
        prompt, positive, _ = contrasts.question(WordTokenizer(), number, row)
        assert positive == right
        assert f"{right} {row['positive']}" in prompt


def test_truncations_are_a_token_longer_each_time_and_alike_on_both_sides():
    assert list(contrasts.cut(WordTokenizer(), "One two three four five six seven. Eight.")) == ["One", "One two"]
    found = contrasts.truncations(WordTokenizer(), 200).pairs
    assert len(found) == 200
    for _, positive, negative in found:
        assert positive.rpartition("about.\n\n")[2] == negative.rpartition("about.\n\n")[2] != ""
        assert positive != negative


def test_extraction_is_compared_within_each_repeat_layer_by_layer_and_form_by_form(results, capsys):
    documented = {"ours": [1.0, 2.0], "repeng": [5.0, 12.0], "repeng_best": [2.0, 3.0]}
    beside = {"ours": [1.0, 1.0], "repeng": [3.0, 3.0], "repeng_best": [1.4, 1.4]}
    cosine = extract.least_cosine({"0": [1.0, 0.0], "1": [1.0, 1.0]}, {"0": [2.0, 0.0], "1": [1.0, 0.0]})
    assert cosine == pytest.approx(0.5**0.5)
    nothing = contrasts.Contrast([])
    first = extract.Found(extract.Kind("truncations", "", nothing, ("repeng",)), {"repeng": 8}, documented)
    second = extract.Found(extract.Kind("answers", "", nothing, ("repeng",), "answers_"), {"repeng": 4}, beside)
    extract.report(QUICK, 200, [first, second])
    found = json_line(capsys.readouterr().out)
    assert (found["speedup_repeng"], found["speedup_repeng_best"]) == (5.5, 1.75)
    assert (found["answers_speedup_repeng"], found["answers_speedup_repeng_best"]) == (3.0, 1.4)
    assert (found["truncations_repeng_best_batch"], found["answers_repeng_best_batch"]) == (8, 4)
    assert (found["ours_seconds"], found["answers_ours_seconds"], found["cosine"]) == (1.5, 1.0, 1.0)
    assert (found["holds"], found["missed"]) == (True, ["answers_speedup_repeng_best"])
    assert "Free answers, which share little: 1 s, repeng 3.0 and 1.4 times" in readme.extract(found)
    extract.report(QUICK, 200, [replace(first, cosine=cosine), second])
    found = json_line(capsys.readouterr().out)
    assert (found["holds"], found["missed"][0]) == (False, "cosine")


def test_time_between_tokens_is_that_of_whole_answers():
    found = timing([0.1, 0.3], [[1.0, 1.1, 1.2], [1.0, 1.2, 1.6]])
    assert found.first == pytest.approx(200)
    assert found.between == pytest.approx((100 + 300) / 2)


def test_what_the_web_adds_is_the_worst_of_both_loads(results, capsys, monkeypatch):
    engine, web = Timing(100, 20, 25), Timing(130, 21, 40)
    found = {"engine_1": [engine], "web_1": [web], "engine_32": [engine], "web_32": [Timing(180, 23, 60)]}
    found |= {"http_1": [engine], "http_32": [engine], "engine_in_turn": [engine], "http_in_turn": [engine]}
    found["web_in_turn"] = [Timing(112, 21, 30)]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    latency.report(QUICK, (1, 32), 64, found)
    line = json_line(capsys.readouterr().out)
    assert (line["web_first_token_added_ms_1"], line["web_first_token_added_ms"]) == (30, 80)
    assert (line["http_first_token_added_ms"], line["http_over_engine_between_tokens_32"]) == (0, 1)
    assert line["web_over_engine_between_tokens_32"] == 1.15
    assert line["web_first_token_added_ms_in_turn"] == 12
    assert not line["holds"]
    assert line["benchmark"] == "latency"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    latency.report(QUICK, (1, 32), 64, found)
    assert json_line(capsys.readouterr().out)["benchmark"] == "latency_apart"


def test_watching_is_compared_within_each_turn_and_judged_by_its_worst_case(results, capsys):
    turns = rates(
        plain=[100, 50], residual=[100, 40], sparse=[80, 50], corrected=[80, 40], set=[100, 50], topk=[50, 25]
    )
    watching.report(QUICK, 8, 48, turns)
    found = json_line(capsys.readouterr().out)
    assert (found["residual_times"], found["corrected_times"], found["topk_times"]) == (1.125, 1.25, 2.0)
    assert (found["times"], found["holds"]) == (1.25, True)
    watching.report(QUICK, 8, 48, turns | rates(sparse=[80, 25]))
    assert not json_line(capsys.readouterr().out)["holds"]


# ---- what is written down ----


def test_a_result_names_the_machine_and_is_kept_unless_told_otherwise(results, capsys):
    record("some", {"figure": 1.5}, keep=False)
    assert list(results.iterdir()) == []
    record("some", {"figure": 1.5})
    kept = json.loads((results / "some.json").read_text())
    assert kept == json_line(capsys.readouterr().out)
    assert {"cpu", "cores", "torch", "threads", "benchmark"} <= set(kept)
    assert 0 <= kept["stolen_percent"] <= 100


def test_stolen_time_is_a_share_of_what_was_wanted(monkeypatch):
    monkeypatch.setattr("benchmarks.common.processor_times", lambda: (130, 1400))
    assert stolen_percent((100, 1000)) == 7.5
    monkeypatch.setattr("benchmarks.common.processor_times", lambda: (0, 0))
    assert stolen_percent((0, 0)) == 0


def test_readme_marks_what_does_not_hold():
    assert readme.line("fast", lambda f: "3 s", {"holds": True}) == "| fast | 3 s |"
    assert "not met" in readme.line("fast", lambda f: "9 s", {"holds": False})


def test_every_benchmark_has_its_line_in_readme_and_its_turn_in_make_bench():
    turn = (ROOT / "Makefile").read_text().split("for name in ", 1)[1].split(";", 1)[0].split()
    apart = {"latency_apart", "soak", "soak_redis", "vllm_engine"}  # a second way, long, or only with vLLM
    assert {*turn} | apart == set(readme.ROWS)
    assert all((ROOT / "benchmarks" / f"{name}.py").exists() for name in (*turn, "soak", "vllm_engine"))


# ---- soak ----


def seen(*seqs: int) -> Seen:
    return Seen(array("l", seqs), array("l", [100 + seq for seq in seqs]))


def test_tokens_that_came_are_held_against_those_that_were_written():
    written = {"fine": [(1, 101), (2, 102)], "holed": [(1, 101), (2, 102), (3, 103)], "other": [(1, 999)], "unseen": []}
    came = {"fine": seen(1, 2), "holed": seen(1, 3, 3), "other": seen(1), "gone": seen(4)}
    assert soak.compare(came, written) == {
        "runs": 5, "tokens_written": 6, "tokens_received": 7, "lost": 2, "doubled": 1, "foreign": 2,
    }  # fmt: skip


def test_memory_is_compared_after_it_has_warmed_up():
    samples = [(0.0, 10.0), (60.0, 100.0), (420.0, 101.0), (780.0, 102.0), (1140.0, 103.0)]
    found = soak.memory(samples, warm=60.0)
    assert (found["memory_first_third_mb"], found["memory_last_third_mb"]) == (100.0, 103.0)
    assert found["memory_growth"] == 0.03
    assert found["memory_growth_mb_per_hour"] == pytest.approx(10.0)


@pytest.mark.parametrize(("fault", "holds"), [({}, True), ({"lost": 1}, False), ({"doubled": 1}, False)])
def test_a_soak_holds_only_without_a_fault(results, capsys, fault, holds):
    counts = {"runs": 1, "tokens_written": 9, "tokens_received": 9, "lost": 0, "doubled": 0, "foreign": 0} | fault
    found = soak.Found(pings=[0.1], opened=[0.2], seconds=3.0)
    soak.report(soak.QUICK, found, [(1.0, 100.0), (2.0, 101.0), (3.0, 101.0)], counts, cpu=1.5)
    line = json_line(capsys.readouterr().out)
    assert (line["holds"], line["web_cores"], line["tokens_per_second"]) == (holds, 0.5, 3.0)
    assert list(results.iterdir()) == []


@pytest.mark.timeout(200)
def test_a_quick_soak_runs_from_end_to_end(tmp_path):
    env = {**os.environ, "STEERBOARD_DATA": str(tmp_path / "data"), "PORT": str(free_port())}
    command = [sys.executable, "-m", "benchmarks.soak", "--quick", "--minutes", "0.1"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    found = json_line(done.stdout)
    assert found["tokens_written"] == found["tokens_received"] > 0
    assert (found["lost"], found["doubled"], found["foreign"], found["retold"], found["idle_lost"]) == (0, 0, 0, 0, 0)


def test_prompts_of_indirect_objects_differ_in_one_name_and_ask_for_each_other():
    found = list(attribution.pairs())
    assert len(found) >= 20
    assert len({pair["clean"] for pair in found}) == len(found)
    for pair in found:
        (target,), (against,) = pair["targets"], pair["against"]
        apart = [(a, b) for a, b in zip(pair["clean"].split(), pair["corrupted"].split(), strict=True) if a != b]
        assert apart == [(against.strip(), target.strip())]


def test_components_are_drawn_from_where_the_prompts_differ():
    sites = {"mlp_out": [[0.0, 1.0, 2.0]] * 4, "z": [[[0.0] * 3] * 3] * 4}
    chosen = attribution.draw(sites, first=1, each=5, seed=0)
    assert [c.site for c in chosen] == ["mlp_out"] * 5 + ["z"] * 5
    assert all(c.position >= 1 and (c.head is None) == (c.site == "mlp_out") for c in chosen)
    assert len({*chosen}) == 10
    assert chosen == attribution.draw(sites, first=1, each=5, seed=0)
    assert attribution.count(sites["z"]) == 36


def test_effects_are_compared_as_shares_of_each_pairs_difference():
    def pair(scale):
        points = {"one gradient": [scale * v for v in (1, 2, 4)], "actual": [scale * v for v in (1, 2, 3)]}
        return {"clean": scale, "corrupted": -scale, "points": dict.fromkeys(attribution.SITES, points)}

    found = attribution.summary([pair(1.0), pair(100.0)])["z"]["one gradient"]
    assert (found["n"], found["spearman"]) == (6, 1.0)
    assert found["pearson"] == pytest.approx(0.981981, abs=1e-5)


# ---- contestants ----


def test_a_stopped_peer_answers_a_question_that_fills_the_pipe():
    peer = Peer("tests.echo_peer", name="echo")
    try:
        assert peer.facts() == {"name": "echo"}
        assert peer.ask(text="x" * 500_000, divisor=2) == {"length": 500_000, "again": 0.5}
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            peer.ask(text="", divisor=0)
    finally:
        peer.close()


def quick(name, folder):
    env = {**os.environ, "STEERBOARD_DATA": str(folder / "data")}
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--model", str(save("llama", folder / "tiny"))]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    return json_line(done.stdout)


@pytest.mark.timeout(200)
def test_a_quick_sweep_runs_from_end_to_end(tmp_path):
    found = quick("sweep", tmp_path)
    assert (found["benchmark"], found["completions"], found["tokens"]) == ("sweep", 8, 8)


@pytest.mark.timeout(200)
def test_a_quick_experiment_runs_from_end_to_end(tmp_path):
    found = quick("experiment", tmp_path)
    assert (found["benchmark"], found["points"], found["sampled"]) == ("experiment", 60, 2)
    assert 0 < found["tokens_written"] <= 60 * found["tokens"]
    assert found["speedup"] > 0


@pytest.mark.timeout(200)
def test_quick_constraints_run_from_end_to_end(tmp_path):
    found = quick("constraints", tmp_path)
    assert (found["benchmark"], found["rows"], found["tokens"]) == ("constraints", 3, 8)
    assert found["schema_4_times"] > 0 and found["enum_us"] > 0


@pytest.mark.timeout(200)
def test_quick_watching_runs_from_end_to_end(tmp_path):
    found = quick("watching", tmp_path)
    assert (found["benchmark"], found["rows"], found["tokens"]) == ("watching", 2, 8)
    assert found["topk_times"] > 0


@pytest.mark.timeout(200)
def test_a_quick_policy_runs_from_end_to_end(tmp_path):
    found = quick("policy", tmp_path)
    assert (found["benchmark"], found["candidates"], found["repeats"], found["texts"]) == ("policy", 4, 1, 4)
    assert found["batch_seconds"] > 0
