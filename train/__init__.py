"""Distil a Russian BERT teacher into small-vocabulary students (needs torch)."""
