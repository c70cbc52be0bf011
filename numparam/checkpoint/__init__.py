"""Checkpoints: parameters in safetensors files, saved, loaded and joined by an index."""
