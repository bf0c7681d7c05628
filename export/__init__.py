"""Turn a student checkpoint into a checked model package (needs torch and onnx)."""
