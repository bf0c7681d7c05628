"""HTTP over a model: the OpenAI, text-embeddings-inference and Open Inference protocols."""
