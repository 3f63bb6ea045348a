"""Measure speed and memory: latency, throughput, time to the first token, peaks, limits."""

from shortlm.bench.benching import bench, check_bench

__all__ = ["bench", "check_bench"]
