import numpy as np
import pytest
import torch

from export.quantize import dequantize_blocks, quantize_blocks
from train.rows import four_bit_rows, rounded, row_table
from train.student import Shape, build, encoder, encoder_states


def tiny():
    return build(Shape(vocab_size=30, layers=1, hidden_size=16, heads=2, ffn_size=32, dropout=0.0))


@pytest.mark.parametrize("width", [256, 264, 22])
def test_rounded_rows_are_exported_as_they_are(width):
    torch.manual_seed(0)
    rows = torch.randn(50, width) * torch.logspace(-3, 2, 50)[:, None]
    rows[3] = 0
    rows[4] *= 1e-9  # below float16
    found = rounded(rows)
    assert torch.equal(rounded(found), found)
    assert np.array_equal(dequantize_blocks(*quantize_blocks(found.numpy())), found.numpy())
    kept = torch.nn.functional.cosine_similarity(rows[5:], found[5:])
    assert kept.min() > 0.98 and not torch.equal(rows, found)


def test_gradients_pass_the_rounding_and_the_end_is_rounded():
    student = tiny()
    table = encoder(student).embeddings.word_embeddings.weight
    with torch.no_grad():
        table.normal_()
    before = table.detach().clone()
    ids, mask = torch.tensor([[2, 5, 6, 3]]), torch.ones(1, 4, dtype=torch.bool)
    plain = encoder_states(student, ids, mask)[0]
    with four_bit_rows(row_table(student)):
        read = encoder_states(student, ids, mask)[0]
        read.square().sum().backward()
        assert torch.equal(table, before)
    assert not torch.equal(read, plain)
    assert table.grad[5].abs().sum() > 0 and table.grad[7].abs().sum() == 0
    assert torch.equal(table, rounded(before))
    assert torch.equal(encoder_states(student, ids, mask)[0], read)


def test_a_failure_leaves_the_weights_alone():
    student = tiny()
    before = encoder(student).embeddings.word_embeddings.weight.detach().clone()
    with pytest.raises(KeyError), four_bit_rows(row_table(student)):
        raise KeyError
    assert torch.equal(encoder(student).embeddings.word_embeddings.weight, before)
    assert not encoder(student).embeddings.word_embeddings._forward_hooks
