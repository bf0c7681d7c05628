"""What a server adds to `encode`: one client, one text of about 20 pieces at a time, in turns.

    python loadtest/overhead.py [--package distil-16k]

The server has one core, this process another. Each text is encoded here and then asked for over a
kept connection, so that both see the same texts at the same time.
"""

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

from texts import make_texts
from tokenizers import Tokenizer
from tqdm import tqdm

from rubert_lite import load
from rubert_lite.locate import locate

_PHASES = ("tokenization", "queue", "inference", "total")
_PIECES = range(18, 23)


def start(package: str, core: int, folder: Path) -> "tuple[subprocess.Popen[bytes], int]":
    """Start a server on a core; return it and its port."""
    file = folder / "port"
    words = [sys.executable, "-m", "serve", package, "--port", "0", "--lanes", "1"]
    words += ["--log-level", "warning", "--drain-seconds", "0", "--port-file", str(file)]
    server = subprocess.Popen(words, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    while not (file.exists() and file.read_text()):
        if server.poll() is not None:
            raise SystemExit("the server ended")
        time.sleep(0.05)
    return server, int(file.read_text())


def ask(client: http.client.HTTPConnection, text: str) -> dict[str, float]:
    """Ask for one vector; return milliseconds as the client and as the server sees them."""
    body = json.dumps({"input": text, "encoding_format": "base64"}).encode()
    began = time.perf_counter()
    client.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
    answer = client.getresponse()
    data = answer.read()
    taken = 1000 * (time.perf_counter() - began)
    if answer.status != 200:
        raise SystemExit(f"status {answer.status}: {data.decode()}")
    return {"client": taken} | {p: float(answer.headers[f"x-{p}-time"]) for p in _PHASES}


def main() -> int:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--package", default="distil-16k")
    parser.add_argument("--texts", type=int, default=500)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    tokenizer = Tokenizer.from_file(str(locate(arguments.package) / "tokenizer.json"))
    fitting = (t for t in make_texts(3) if len(tokenizer.encode(t).ids) in _PIECES)
    texts = list(islice(fitting, arguments.texts))
    with tempfile.TemporaryDirectory() as folder:
        server, port = start(arguments.package, cores[0], Path(folder))
        try:
            os.sched_setaffinity(0, {cores[-1]})
            model = load(arguments.package, lanes=1)
            client = http.client.HTTPConnection("127.0.0.1", port)
            for text in texts[:50]:  # warms both up
                model.encode([text]), ask(client, text)
            encode, asked = [], []
            for text in tqdm(texts, unit="text", disable=None):
                began = time.perf_counter()
                model.encode([text])
                encode.append(1000 * (time.perf_counter() - began))
                asked.append(ask(client, text))
        finally:
            server.terminate()
            server.wait()
    medians = {name: statistics.median(a[name] for a in asked) for name in asked[0]}
    alone = statistics.median(encode)
    print(f"{len(texts)} texts of {_PIECES[0]}-{_PIECES[-1]} pieces, cores {cores}, medians in ms")
    asked_for = medians["client"]
    print(f"encode {alone:.3f}; over HTTP {asked_for:.3f}: {asked_for - alone:.3f} more")
    print("in the server: " + ", ".join(f"{p} {medians[p]:.3f}" for p in _PHASES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
