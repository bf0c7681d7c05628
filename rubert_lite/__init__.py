"""Small Russian BERT students (runtime)."""

__version__ = "0.1.0"
