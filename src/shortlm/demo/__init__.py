"""A web page on which a model and its shorter versions write side by side."""

from shortlm.demo.serving import serve

__all__ = ["serve"]
