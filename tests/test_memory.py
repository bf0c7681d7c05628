"""The memory of a long run: bounded, and flat however many texts there are."""

import subprocess
import sys

import pytest

# A process of its own: peaks of others, such as torch, must not count.
RUN = """
import itertools, random
from rubert_lite import load

chance = random.Random(7)
words = "мама переводчица и железнодорожный кот вечером купила новый дом ёж 2026 OK".split()

def text():
    return " ".join(chance.choices(words, k=min(300, int(chance.lognormvariate(2.5, 0.9)) + 1)))

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(l for l in lines if l.startswith("VmHWM:")).split()[1]) / 1000

texts = (text() for _ in itertools.count())
model = load("distil-16k")
for count in (20_000, 80_000):
    rows = sum(len(part) for part in model.iter_encode(itertools.islice(texts, count)))
    print(rows, peak())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_hundred_thousand_texts_stay_within_250_megabytes():
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    (first, early), (second, late) = (line.split() for line in done.stdout.splitlines())
    assert (first, second) == ("20000", "80000")
    assert float(late) < 250
    assert float(late) < 1.1 * float(early), "memory grows with the number of texts"
