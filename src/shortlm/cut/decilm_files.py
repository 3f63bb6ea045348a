"""What stands beside the weights of a nemotron-nas checkpoint: its config.json, and a few lines of code that read it.

vLLM and SGLang have the model's code, but want the entries of `block_configs` as attributes; so the class of the config
comes with the checkpoint and needs --trust-remote-code there, as in NVIDIA's own checkpoints.
"""

from __future__ import annotations

from pathlib import Path

CODE_FILE, CONFIG_CLASS = "configuration_decilm.py", "configuration_decilm.DeciLMConfig"
CODE = '''"""The config of a nemotron-nas checkpoint for engines that read `block_configs` as attributes (vLLM)."""

from transformers import PretrainedConfig


class Entry(dict):
    """A mapping whose keys are attributes too."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error


class DeciLMConfig(PretrainedConfig):
    model_type = "nemotron-nas"

    def __init__(self, block_configs=(), **kwargs):
        self.block_configs = [Entry({k: Entry(v) for k, v in block.items()}) for block in block_configs]
        super().__init__(**kwargs)
'''


def write_foreign(folder: Path, config_json: str) -> None:
    """Put the config in the place of the one by which the weights were checked, and the code beside it."""
    (folder / "config.json").write_text(config_json, encoding="utf-8")
    (folder / CODE_FILE).write_text(CODE, encoding="utf-8")
