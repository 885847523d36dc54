"""Predictions in the layouts that benchmarks score."""
