"""Samples that heed something given: a part of the image, two other samples, a noisy version."""
