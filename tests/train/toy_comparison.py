"""A comparison of tiny students, as configuration files."""

from .toy_line import CORPUS, STUDENT

LINE = (
    'run = "runs/common"\n'
    + CORPUS
    + """
[teacher]
config = "teacher.toml"
[vocabulary]
method = "prune"
size = 30
min_char_count = 1
[shards]
max_length = 16
processes = 1
directory = "runs/shards"
"""
    + STUDENT
    + """
[distil]
alignment = "match"
steps = 2
tokens_per_batch = 200
"""
)
TEACHER = """
run = "runs/teacher"
base = "line.toml"
[teacher]
config = ""
[vocabulary]
method = "train"
size = 60
[shards]
directory = ""
[distil]
alignment = "none"
"""
COMPARISON = """
line = "line.toml"
run = "runs/compare"
results = "results.json"
table = "README.md"
plot = "kept.png"
[tuning]
epochs = 1
[[students]]
name = "teacher"
line = "teacher.toml"
[[students]]
name = "match"
seeds = [1, 2]
set = { distil = { kl = 1.0 } }
[[students]]
name = "not trained"
set = { distil = { steps = 0 } }
tasks = ["food"]
words = 2
soft = true
[[students]]
name = "match, soft"
like = "match"
seeds = [1]
tasks = ["food"]
soft = true
[[tasks]]
name = "food"
heading = "food acc"
train = "food.jsonl"
dev = "food.jsonl"
license = "CC0"
score = "accuracy"
[[tasks]]
name = "mood"
train = "food.jsonl"
dev = "food.jsonl"
license = "CC0"
epochs = 1
freeze_encoder = false
score = "macro_f1"
"""
