"""`import shortlm` makes transformers know our own model type (model/own_type.py), whichever of the two comes first.

Neither torch nor transformers is imported for it: where transformers' module of configs is not there yet, the type is
registered as soon as that has been imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

OWN_TYPE = "shortlm"  # the model_type in config.json
CONFIGS = "transformers.models.auto.configuration_auto"


def register() -> None:
    """Make transformers know the type, now or as soon as it is imported."""
    if CONFIGS in sys.modules:
        _add_to(sys.modules[CONFIGS])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds one module, as others find it, and has the type registered once it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, with something to be done at the end; None for all other modules."""
        if fullname != CONFIGS:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _add_to(module)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def _add_to(configs: ModuleType) -> None:
    from transformers.configuration_utils import PreTrainedConfig  # which that module has imported

    class ShortConfig(PreTrainedConfig):
        """What AutoConfig finds for our type; the config that it makes is of a class made for the base architecture."""

        model_type = OWN_TYPE

        @classmethod
        def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
            """A config of the class that belongs to `base_model_type`. Raises ValueError if there is none."""
            from shortlm.model.own_type import read_config

            return read_config(config_dict, **kwargs)

    configs.CONFIG_MAPPING.register(OWN_TYPE, ShortConfig, exist_ok=True)
