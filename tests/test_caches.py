"""The KV cache under whatever name transformers has for it."""

from __future__ import annotations

import pytest
from transformers.modeling_outputs import CausalLMOutputWithPast

from shortlm.model import cache_name, cache_of, open_model


class New:
    def forward(self, input_ids, cache=None, past_key_values=None):
        """As since 5.24, with the old name still there."""


class Old:
    def forward(self, input_ids, cache_params=None):
        """As Mamba before."""


class Unknown:
    def forward(self, **everything):
        """Of a checkpoint's own code."""


@pytest.mark.parametrize(("kind", "name"), [(New, "cache"), (Old, "cache_params"), (Unknown, "past_key_values")])
def test_the_argument_is_the_newest_name_that_the_forward_has(kind, name):
    assert cache_name(kind()) == name


def test_the_output_of_this_transformers_holds_one():
    opened = open_model("embedded")
    ids = opened.tokenizer("Once", return_tensors="pt").input_ids
    output = opened.model(input_ids=ids, use_cache=True)
    assert len(cache_of(output).layers) == 12 and output[cache_name(opened.model)] is cache_of(output)


def test_without_a_cache_there_is_none():
    assert cache_of(CausalLMOutputWithPast(logits=None)) is None and cache_of(None) is None
    assert cache_of({"past_key_values": None, "cache_params": 3}) == 3
