"""The parts of a causal LM, or of the language model in a composite one, found in the module tree, not by names.

blocks: the list of modules as long as the config says (the largest one, if there are several);
norm: the last norm beside that list; head: what `get_output_embeddings` returns;
sublayers of a block: the child that is called attention, and all other children with matrices (FFN).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from shortlm.errors import ModelError, shown
from shortlm.model.language import is_composite, text_config

MOST_BLOCKS = 2000  # no model has more; a module of each is built
# Modules whose role the names don't tell: (class name of the block, child) -> role. None needed so far.
EXCEPTIONS: dict[tuple[str, str], str] = {}
COUNTS = {"longcat_flash": "num_layers"}  # its num_hidden_layers counts attentions, of which a block has two


@dataclass(frozen=True)
class Anatomy:
    """Where the parts are. `blocks_path` is the module path of the list, e.g. model.layers."""

    blocks_path: str
    blocks: list[nn.Module]
    norm: nn.Module | None
    head: Any  # a linear layer nearly always
    attention: list[list[str]]
    ffn: list[list[str]]


def find_anatomy(model: Any) -> Anatomy:
    """The parts of `model`. Raises ModelError, naming the class, if they can't be told apart."""
    path, blocks = _find_blocks(model)
    parent = model.get_submodule(path.rpartition(".")[0])
    head = find_head(model, path)
    if head is None:
        raise ModelError(f"{type(model).__name__}: has no language-model head; a causal LM is needed")
    _refuse_encoder(model, blocks)
    _refuse_shared_weights(model, blocks)
    sublayers = [_sublayers(block) for block in blocks]
    return Anatomy(path, blocks, _find_norm(parent, path), head, [s[0] for s in sublayers], [s[1] for s in sublayers])


def block_count(config: object) -> int:
    """The number of blocks of the language model. Raises ModelError if the config doesn't say."""
    try:
        count = getattr(text := text_config(config), count_field(text), None)
    except NotImplementedError:  # prophetnet
        count = None
    name = getattr(config, "model_type", type(config).__name__)
    if isinstance(count, int) and not 0 < count <= MOST_BLOCKS:
        raise ModelError(f"{name}: its config says {shown(count)} blocks; 1 to {MOST_BLOCKS:,} can be worked with")
    if not isinstance(count, int):
        raise ModelError(
            f"{name}: its config has no num_hidden_layers, so the blocks of its language model are unknown"
        )
    return count


def count_field(config: Any) -> str:
    """The field of a language model's config that says how many blocks it has."""
    return COUNTS.get(config.model_type) or config.attribute_map.get("num_hidden_layers", "num_hidden_layers")


def _find_blocks(model: Any) -> tuple[str, list[nn.Module]]:
    count = block_count(model.config)
    lists = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise ModelError(f"{type(model).__name__}: no list of {count} blocks found; this architecture can't be cut")
    found = [item for item in lists if _is_language(model, item[0])] or lists
    path, blocks = max(found, key=lambda item: sum(p.numel() for p in item[1].parameters()))
    return path, list(blocks)


def _is_language(model: Any, path: str) -> bool:
    """Whether the module that holds this list is made by the config of the language model; a tower has its own."""
    holder = getattr(model.get_submodule(path.rpartition(".")[0]), "config", None)
    return type(holder) is type(text_config(model.config))


def find_head(model: Any, blocks_path: str) -> Any:
    """The lm_head of the model, or of the causal LM inside it that holds the blocks; None if there is none."""
    parts = blocks_path.split(".")
    holders = [model, *(model.get_submodule(".".join(parts[:i])) for i in range(1, len(parts)))]
    found = (holder.get_output_embeddings() for holder in holders if hasattr(holder, "get_output_embeddings"))
    return next((head for head in found if head is not None), None)


def _refuse_encoder(model: Any, blocks: list[nn.Module]) -> None:
    """BERT's kin are built as causal LMs whatever their config says. It is the modules that know: a config's
    is_decoder may mean nothing (GPT-NeoX's is false).
    """
    if any(getattr(module, "is_decoder", True) is False for module in blocks[0].modules()):
        name = type(model).__name__
        raise ModelError(f"{name}: its blocks look at later tokens too (is_decoder is false); a causal LM is needed")


def _refuse_shared_weights(model: Any, blocks: list[nn.Module]) -> None:
    seen: set[int] = set()
    for i, block in enumerate(blocks):
        own = {id(p) for p in block.parameters()}
        if own & seen:
            raise ModelError(f"{type(model).__name__}: block {i} shares weights with an earlier one; it can't be cut")
        seen |= own


def _find_norm(parent: nn.Module, blocks_path: str) -> nn.Module | None:
    """The last norm that stands beside the blocks; a norm of the embeddings is registered before them."""
    names = [name for name, _ in parent.named_children()]
    after = names[names.index(blocks_path.rpartition(".")[2]) + 1 :]
    norms = [parent.get_submodule(name) for name in after if is_norm(parent.get_submodule(name))]
    before = [m for n, m in parent.named_children() if n not in after and is_norm(m) and "final" in n]
    found = norms or before  # opt registers its final norm before the list
    return found[-1] if found else None


def is_norm(module: nn.Module) -> bool:
    """Whether a module is called a norm."""
    return "norm" in type(module).__name__.lower()


def _sublayers(block: nn.Module) -> tuple[list[str], list[str]]:
    attention, ffn = [], []
    for name, child in block.named_children():
        role = EXCEPTIONS.get((type(block).__name__, name)) or _role(name, child)
        if role == "attention":
            attention.append(name)
        elif role == "ffn":
            ffn.append(name)
    return attention, ffn


def _role(name: str, child: nn.Module) -> str | None:
    label = f"{name} {type(child).__name__}".lower()
    if is_norm(child) or not any(True for _ in child.parameters()):
        return None  # a norm, an activation, a dropout
    if any(word in label for word in ("attention", "attn", "mixer", "mamba")):
        return "attention"
    return "ffn" if any(p.dim() >= 2 for p in child.parameters()) else None


def of_other_towers(model: Any, blocks_path: str) -> set[str]:
    """The parameters of a composite model that text alone doesn't pass: those of its other towers and projectors."""
    if not is_composite(model.config):
        return set()
    language = blocks_path.rpartition(".")[0] + "."
    ends = [m for m in (model.get_input_embeddings(), find_head(model, blocks_path)) if m is not None]
    own = {id(p) for m in ends for p in m.parameters()}
    every = model.named_parameters(remove_duplicate=False)
    return {name for name, p in every if not name.startswith(language) and id(p) not in own}


def block_parameters(anatomy: Anatomy) -> list[int]:
    """Parameters of each block."""
    return [sum(p.numel() for p in block.parameters()) for block in anatomy.blocks]


def sublayer_parameters(blocks: list[nn.Module], names: list[list[str]]) -> list[int]:
    """Parameters of the named children of each block; 0 where there are none. Norms beside them are not counted."""
    children = [[block.get_submodule(n) for n in found] for block, found in zip(blocks, names, strict=True)]
    return [sum(p.numel() for child in found for p in child.parameters()) for found in children]


def scored_weights(block: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that magnitude and taylor look at: all but biases (in a Llama: its *proj* and *norm* weights)."""
    return {n: p for n, p in block.named_parameters() if "bias" not in n.rpartition(".")[2]}
