"""Cross-entropy over a large vocabulary without its logits in memory."""

from typing import Any

import torch
from torch import Tensor


def linear_cross_entropy(hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of linear(hidden [M, D], weight [V, D], bias [V]) against labels [M].

    Equal to losses.masked_lm of the product, value and gradients; the [M, V] logits never exist as
    a whole. Products follow autocast, sums are float32. No places give 0.
    """
    if not len(labels):
        return hidden.float().sum() * 0.0
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, labels)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Makes the gradients in the forward pass, one slice of classes at a time.

    Two passes over the slices (the sum of exponents, then the shares) cost one more product than
    keeping the logits, and save moving them through memory several times.
    """

    CLASSES = 1024  # of a slice: about what fits into the cache of a core
    GPU_CLASSES = 32_768  # few large products; the logits of 10,000 places are 1.3 GB then

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor) -> Tensor:
        kind = hidden.dtype
        if torch.is_autocast_enabled(hidden.device.type):
            kind = torch.get_autocast_dtype(hidden.device.type)
        h, w = hidden.to(kind), weight.to(kind)
        on_cpu = hidden.device.type == "cpu"
        size = _LinearCrossEntropy.CLASSES if on_cpu else _LinearCrossEntropy.GPU_CLASSES
        slices = [slice(start, start + size) for start in range(0, len(weight), size)]
        rows = torch.arange(len(labels), device=hidden.device)
        hidden_grad = torch.zeros(h.shape, device=h.device)
        weight_grad, bias_grad = torch.empty_like(weight), torch.empty_like(bias)
        with torch.autocast(hidden.device.type, enabled=False):
            right = (h * w[labels]).sum(1, dtype=torch.float32) + bias[labels]
            log_total = torch.full_like(right, -torch.inf)
            for place in slices:
                logits = (h @ w[place].t()).float().add_(bias[place])
                log_total = torch.logaddexp(log_total, logits.logsumexp(1))
            for place in slices:
                shares = (h @ w[place].t()).float().add_(bias[place])
                shares.sub_(log_total[:, None]).exp_()
                inside = (labels >= place.start) & (labels < place.stop)
                shares[rows[inside], labels[inside] - place.start] -= 1.0
                bias_grad[place] = shares.sum(0)
                small = shares.to(kind)
                hidden_grad += (small @ w[place]).float()
                weight_grad[place] = (small.t() @ h).to(weight.dtype)
        ctx.save_for_backward(hidden_grad.to(hidden.dtype), weight_grad, bias_grad)
        ctx.count = len(labels)
        return (log_total - right).mean()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        scale = gradients[0] / ctx.count
        hidden, weight, bias = ctx.saved_tensors
        return hidden * scale.to(hidden.dtype), weight * scale, bias * scale, None
