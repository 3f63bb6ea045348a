"""Heal: train a shortened model so that it gets its quality back."""

from shortlm.heal.healing import heal

__all__ = ["heal"]
