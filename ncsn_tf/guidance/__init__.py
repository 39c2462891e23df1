"""Samples that use something given: known pixels, two other samples, or a noisy image."""
