"""Write the golden vectors of a released model: python -m tests.make_golden NAME CHECKPOINT

Run it when a model is released, and only then: the file is what later versions are held to.
"""

import json
import sys
from pathlib import Path

import numpy as np

from export.cases import make_cases
from export.parity import reference
from export.sample import TEXTS
from rubert_lite import load

FIRST = 8  # floats of each vector


def main() -> None:
    """Compute both sides and write tests/golden/NAME.json."""
    name, checkpoint = sys.argv[1], Path(sys.argv[2])
    model = load(name)
    manifest = model.package.manifest
    cases = make_cases(
        checkpoint / "tokenizer.json",
        TEXTS,
        vocab_size=manifest.vocab_size,
        max_length=manifest.max_length,
        types=1,
    )[: len(TEXTS)]
    pooled, _ = reference(checkpoint, cases)
    vectors = {"torch": pooled / np.linalg.norm(pooled, axis=1, keepdims=True)}
    vectors |= {v: load(name, variant=v).encode(list(TEXTS)) for v in manifest.variants}
    golden = {
        "tokenizer_sha256": manifest.tokenizer_sha256,
        "texts": list(TEXTS),
        **{k: np.round(v[:, :FIRST].astype(float), 6).tolist() for k, v in vectors.items()},
    }
    path = Path(__file__).parent / "golden" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(path, len(TEXTS), "texts", file=sys.stderr)


if __name__ == "__main__":
    main()
