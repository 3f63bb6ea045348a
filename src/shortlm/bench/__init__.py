"""Measure speed and memory: latency, throughput, time to the first token, peaks, limits."""

from shortlm.bench.benching import bench

__all__ = ["bench"]
