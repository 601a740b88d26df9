"""Weights in blocks of 32 that share a scale, as GGUF files hold them: never blown up to one number each."""
