"""Files of other programs, byte by byte: what is read, what is refused, what comes back."""

from __future__ import annotations

import contextlib
import json
import pickle
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from inference.errors import InvalidRequest
from inference.interchange import FORMATS, directions_of, is_ours, read, request_for, write
from inference.store import dump
from inference.types import SteeringVector
from tests.steering.vector_files import make_vector

VECTOR = make_vector()
ROW = [0.1, -2.0, 3.5]


def refused(data: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        read(data)
    assert refusal.value.message.endswith((".", "vector.safetensors"))
    return refusal.value


def values(vector: SteeringVector) -> dict[int, np.ndarray]:
    return {d.site.layer: d.values for d in vector.directions}


# ---- round trips ----


def test_our_own_file_is_known_and_read_without_the_package() -> None:
    data = dump(VECTOR)
    assert is_ours(data) and not is_ours(save({"layer.1": np.ones(3, np.float32)}))
    again = directions_of(data)
    assert dump(again) == data


@pytest.mark.parametrize("format", ["gguf", "mechanex", "svec"])
def test_a_round_trip_keeps_every_direction_exactly(format: str) -> None:
    kind = FORMATS[format]
    layers = [1, 2] if kind.site == "resid_post" else [0, 1, 2]
    written = write(VECTOR, format, layers, hint="llama")
    loose = read(written.data)
    placed = loose.placed()
    assert list(placed.directions) == layers and loose.format == format
    assert all(np.array_equal(placed.directions[n], values(VECTOR)[n]) for n in layers)
    shift = 0 if format == "gguf" else 1
    assert written.layers == {n: n + shift for n in layers} and placed.theirs == written.layers
    assert f"layer {2 + shift} is resid_post of layer 2" in written.notes[-1]
    assert loose.model_hint == ("" if format == "mechanex" else "llama")


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3).filter(any))
def test_any_float32_survives_any_format(row: list[float]) -> None:
    from dataclasses import replace

    from inference.types import Direction, Site

    exact = np.array(row, np.float32)
    if not exact.any():
        return
    vector = replace(VECTOR, directions=(Direction(Site(2), exact),))
    for format in ("gguf", "mechanex", "svec"):
        assert np.array_equal(read(write(vector, format).data).placed().directions[2], exact)


def test_without_a_choice_only_the_recommended_layer_is_written() -> None:
    assert read(write(VECTOR, "gguf").data).directions.keys() == {2}
    assert read(write(VECTOR, "mechanex").data).directions.keys() == {3}


def test_all_layers_are_those_that_the_format_can_say_and_the_rest_is_named() -> None:
    written = write(VECTOR, "gguf", ())
    assert written.layers == {1: 1, 2: 2, 3: 3} and "Layer 0 cannot be said" in written.notes[-1]
    shorter = write(VECTOR, "svec", (), n_layers=4)
    assert shorter.layers == {0: 1, 1: 2, 2: 3} and "Layer 3 cannot be said" in shorter.notes[-1]


@pytest.mark.parametrize(("format", "layer"), [("gguf", 0), ("mechanex", 3), ("svec", 3)])
def test_a_layer_that_a_format_cannot_say_is_refused(format: str, layer: int) -> None:
    with pytest.raises(InvalidRequest, match="cannot be said") as refusal:
        write(VECTOR, format, [layer], n_layers=4)
    assert refusal.value.code == "layer_not_in_format"


@pytest.mark.parametrize("format", ["pickle", "plain", "safetensors", "repeng"])
def test_what_is_not_written_is_refused(format: str) -> None:
    with pytest.raises(InvalidRequest, match="Use one of gguf, mechanex, svec"):
        write(VECTOR, format)


# ---- against the packages' own readers and writers ----


def test_the_gguf_package_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "v.gguf"
    path.write_bytes(write(VECTOR, "gguf", [1, 3], hint="llama").data)
    reader = gguf.GGUFReader(path)
    texts = {name: field.contents() for name, field in reader.fields.items()}
    assert texts["general.architecture"] == "controlvector"
    assert (texts["controlvector.model_hint"], texts["controlvector.layer_count"]) == ("llama", 2)
    assert texts["steerboard.id"] == VECTOR.id
    found = {t.name: t.data for t in reader.tensors}
    assert found.keys() == {"direction.1", "direction.3"}
    assert np.array_equal(found["direction.3"], values(VECTOR)[3])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_we_read_what_the_gguf_package_writes(dtype: type, tmp_path: Path) -> None:
    path = tmp_path / "v.gguf"
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", "qwen2")
    writer.add_uint32("controlvector.layer_count", 1)
    writer.add_array("some.list", ["a", "b"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_float32("some.number", 0.5)
    writer.add_tensor("direction.7", np.array(ROW, dtype))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    loose = read(path.read_bytes())
    assert (loose.model_hint, loose.site, loose.directions.keys()) == ("qwen2", "resid_post", {7})
    assert np.array_equal(loose.directions[7], np.array(ROW, dtype).astype(np.float32))
    assert bool(loose.notes) == (dtype is np.float64)


# ---- where layers are ----


def test_mechanex_adds_before_the_block_and_measures_behind_it() -> None:
    loose = read(json.dumps({"8": ROW, "9": ROW}).encode())
    assert loose.placed().theirs == {7: 8, 8: 9}
    assert loose.placed("resid_post").theirs == {8: 8, 9: 9}


def test_a_hook_name_overrules_the_format() -> None:
    assert read(json.dumps({"blocks.8.hook_resid_post": ROW}).encode()).placed().theirs == {8: 8}
    assert read(save({"blocks.8.hook_resid_pre": np.ones(3, np.float32)})).placed().theirs == {7: 8}


def test_layers_before_block_0_are_lost_only_by_consent() -> None:
    loose = read(json.dumps({"0": ROW, "5": ROW}).encode())
    with pytest.raises(InvalidRequest, match="before block 0"):
        request_for(loose, id="x")
    job = request_for(loose, id="x", leave_out=True)
    assert job.layers == (4,) and job.source["left_out"] == [0]
    with pytest.raises(InvalidRequest, match="embeddings"):
        read(json.dumps({"0": ROW}).encode()).placed()


@pytest.mark.parametrize(
    "name", ["layer.5", "layers.5", "layer_5", "direction.5", "model.layers.5", "transformer.h.5", "5"]
)
def test_tensors_of_others_need_their_site_told(name: str) -> None:
    loose = read(save({name: np.ones((1, 3), np.float32)}, metadata={"model": "llama"}))
    with pytest.raises(InvalidRequest) as refusal:
        loose.placed()
    assert refusal.value.code == "site_needed" and loose.model_hint == "llama"
    assert loose.placed("resid_post").theirs == {5: 5} and loose.placed("resid_pre").theirs == {4: 5}


def test_bfloat16_is_read() -> None:
    from safetensors.torch import save as save_torch

    row = torch.tensor(ROW, dtype=torch.bfloat16)
    assert np.array_equal(read(save_torch({"layer.1": row})).directions[1], row.float().numpy())


@pytest.mark.parametrize(
    ("given", "code"),
    [({}, "layer_needed"), ({"layer": 9}, "layer_not_in_vector"), ({"layer": 1, "strength": 0.0}, "strength")],
)
def test_what_the_file_does_not_say_is_asked_for(given: dict, code: str) -> None:
    loose = read(write(VECTOR, "gguf", ()).data)
    with pytest.raises(InvalidRequest) as refusal:
        request_for(loose, id="x", **given)
    assert refusal.value.code == code


# ---- hostile files ----


def gguf_start(version: int = 3, tensors: int = 0, facts: int = 0) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, facts)


def raw_safetensors(header: str, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + body


def entry(shape: list[int], start: int, stop: int, dtype: str = "F32") -> str:
    return json.dumps({"dtype": dtype, "shape": shape, "data_offsets": [start, stop]})


BODY = np.ones(4, "<f4").tobytes()
HOSTILE = {
    "empty": (b"", "unknown_format"),
    "text": (b"hello", "unknown_format"),
    "zip of torch": (b"PK\x03\x04" + b"\0" * 40, "pickle_refused"),
    "pickle": (pickle.dumps({"1": [1.0]}), "pickle_refused"),
    "old torch": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickle_refused"),
    "model in gguf": (write(VECTOR, "gguf").data.replace(b"controlvector", b"llamallamalla"), "not_a_vector"),
    "gguf cut": (write(VECTOR, "gguf").data[:-40], "bad_gguf"),
    "gguf of one byte more than magic": (b"GGUF\x03", "bad_gguf"),
    "gguf version 1": (gguf_start(1), "bad_gguf"),
    "gguf big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "bad_gguf"),
    "gguf with endless tensors": (gguf_start(tensors=2**63), "bad_gguf"),
    "gguf with endless facts": (gguf_start(facts=2**63), "bad_gguf"),
    "gguf with endless text": (gguf_start(facts=1) + struct.pack("<Q", 2**62), "bad_gguf"),
    "gguf with endless list": (
        gguf_start(facts=1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 10, 2**61), "bad_gguf",
    ),
    "gguf with endless texts": (
        gguf_start(facts=1) + struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 8, 2**61), "bad_gguf",
    ),
    "gguf quantised": (write(VECTOR, "gguf").data.replace(
        struct.pack("<IQIQ", 1, 8, 0, 0), struct.pack("<IQIQ", 1, 8, 2, 0)), "bad_dtype"),
    "gguf beyond its end": (write(VECTOR, "gguf").data.replace(
        struct.pack("<IQIQ", 1, 8, 0, 0), struct.pack("<IQIQ", 1, 2**60, 0, 0)), "bad_gguf"),
    "gguf layer 1.5": (write(VECTOR, "gguf").data.replace(b"direction.2", b"direction.x"), "bad_layer"),
    "header longer than the file": (struct.pack("<Q", 2**40) + b"{}", "unknown_format"),
    "header too long": (raw_safetensors("{" + " " * (5 * 2**20) + "}"), "not_safetensors"),
    "header of duplicates": (raw_safetensors('{"layer.1": 1, "layer.1": 2}'), "duplicate_layer"),
    "header of nonsense": (raw_safetensors('{"layer.1": 7}'), "not_safetensors"),
    "tensor beyond the end": (raw_safetensors('{"layer.1":' + entry([9], 0, 36) + "}", BODY), "not_safetensors"),
    "tensor of negative place": (raw_safetensors('{"layer.1":' + entry([4], -16, 0) + "}", BODY), "not_safetensors"),
    "tensor of a wrong size": (raw_safetensors('{"layer.1":' + entry([3], 0, 16) + "}", BODY), "not_safetensors"),
    "tensors that overlap": (
        raw_safetensors('{"layer.1":' + entry([4], 0, 16) + ',"layer.2":' + entry([2], 8, 16) + "}", BODY),
        "not_safetensors",
    ),
    "bytes after the tensors": (raw_safetensors('{"layer.1":' + entry([2], 0, 8) + "}", BODY), "not_safetensors"),
    "whole numbers": (raw_safetensors('{"layer.1":' + entry([4], 0, 16, "I32") + "}", BODY), "bad_dtype"),
    "no layers told": (save({"steering": np.ones(3, np.float32)}), "layers_not_told"),
    "an mlp": (save({"model.layers.5.mlp.down_proj": np.ones(3, np.float32)}), "layers_not_told"),
    "one layer twice": (save({"layer.5": np.ones(3, np.float32), "5": np.ones(3, np.float32)}), "duplicate_layer"),
    "a matrix": (save({"layer.5": np.ones((2, 3), np.float32)}), "wrong_size"),
    "no tensors": (save({}), "no_directions"),
    "NaN": (save({"layer.5": np.array([1, np.nan], np.float32)}), "not_finite"),
    "infinite": (save({"layer.5": np.array([1, np.inf], np.float32)}), "not_finite"),
    "too large for float32": (b'{"5": [1e300, 1.0]}', "not_finite"),
    "zero": (b'{"5": [0.0, 0.0]}', "zero_vector"),
    "unequal": (b'{"5": [1.0, 0.0], "6": [1.0]}', "wrong_size"),
    "mixed sites": (b'{"blocks.5.hook_resid_post": [1.0], "6": [1.0]}', "mixed_sites"),
    "json of NaN": (b'{"5": [NaN]}', "bad_json"),
    "json of duplicates": (b'{"5": [1.0], "5": [2.0]}', "duplicate_layer"),
    "the same layer twice": (b'{"blocks.5.hook_resid_pre": [1.0], "5": [2.0]}', "duplicate_layer"),
    "layer 1.5": (b'{"1.5": [1.0]}', "bad_layer"),
    "layer 05": (b'{"05": [1.0]}', "bad_layer"),
    "layer -1": (b'{"-1": [1.0]}', "bad_layer"),
    "layer in Arabic digits": ('{"٣": [1.0]}'.encode(), "bad_layer"),
    "a layer of text": (b'{"5": "abc"}', "not_numbers"),
    "a layer of truths": (b'{"5": [true, false]}', "not_numbers"),
    "a layer of lists": (b'{"5": [[1.0, 2.0]]}', "not_numbers"),
    "a huge whole number": (b'{"5": [1' + b"0" * 400 + b"]}", "not_numbers"),
    "a whole number past Python's limit": (b'{"5": [1' + b"0" * 5000 + b"]}", "bad_json"),
    "no layers": (b"{}", "no_directions"),
    "bottomless": (b'{"5":' + b"[" * 100_000, "bad_json"),
    "not closed": (b'{"5": [1.0', "bad_json"),
    "no UTF-8": (b'{"\xff": [1.0]}', "bad_json"),
    "svec with more": (b'{"directions": {"5": [1.0]}, "run": "rm"}', "not_a_vector"),
    "svec of lists": (b'{"directions": [[1.0]], "model_type": "llama"}', "not_a_vector"),
    "svec of a negative layer": (b'{"directions": {"-5": [1.0]}}', "bad_layer"),
    "1001 layers": (json.dumps({str(n): [1.0] for n in range(1001)}).encode(), "too_many_layers"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_file_is_refused_with_a_cure(name: str) -> None:
    data, code = HOSTILE[name]
    assert refused(data).code == code


def test_a_file_beyond_any_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.interchange.reading.MAX_BYTES", 100)
    assert refused(b"{" + b" " * 100 + b"}").code == "vector_too_large"


@given(st.binary(max_size=400), st.integers(0, 3))
def test_no_bytes_break_the_readers(noise: bytes, kind: int) -> None:
    """Anything but an InvalidRequest, or directions that hold, is a bug."""
    starts = [b"", gguf_start(facts=2), raw_safetensors('{"layer.1":')[:8], b'{"directions":']
    try:
        loose = read(starts[kind] + noise)
    except InvalidRequest:
        return
    assert all(np.isfinite(v).all() and v.any() for v in loose.directions.values())


@given(st.data())
def test_no_flipped_byte_breaks_the_readers(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from([write(VECTOR, "gguf", ()).data, save({"layer.2": np.ones(5, np.float32)})]))
    at, value = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidRequest):
        assert read(good[:at] + bytes([value]) + good[at + 1 :]).directions


def test_the_command_that_converts_a_pickle_does(tmp_path: Path) -> None:
    """As it stands in the refusal, on the machine of whoever trusts the file."""
    import shlex
    import subprocess
    import sys

    torch.save({7: torch.tensor([ROW])}, tmp_path / "vector.pt")
    command = shlex.split(refused((tmp_path / "vector.pt").read_bytes()).message.partition("tensors: ")[2])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, capture_output=True)
    loose = read((tmp_path / "vector.safetensors").read_bytes())
    assert np.array_equal(loose.placed("resid_post").directions[7], np.array(ROW, np.float32))


def test_facts_of_strangers_are_kept_as_plain_json() -> None:
    text = (
        '{"model_type": "a\\u0000b\\ud800", "directions": {"5": [1.0]}, "explained_variances": {"5": 1e999, "6": 0.5}}'
    )
    loose = read(text.encode())
    assert loose.model_hint == "a b " and loose.facts == {"explained_variances": {"6": 0.5}}
