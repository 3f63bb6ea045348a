"""Measure speed and memory: latency, throughput, time to the first token, peaks, limits."""

from shortlm.bench.benching import bench, check_bench
from shortlm.bench.memory import bytes_of_cache

__all__ = ["bench", "bytes_of_cache", "check_bench"]
