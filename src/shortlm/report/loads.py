"""What loads a checkpoint of shortlm, by its form; as tried, with the versions, in docs/interop.md."""

from __future__ import annotations

from shortlm.artifacts import Manifest

PLAIN = "transformers, vLLM, llama.cpp"
LOADS = {
    "plain": PLAIN,
    "zeroed": PLAIN,
    "nemotron-nas": "vLLM (trusting remote code)",
    "shortlm": "transformers after import shortlm",
    "quantised": "transformers, vLLM",
    "quantised shortlm": "transformers after import shortlm",
}


def loads_in(manifest: Manifest | None) -> str:
    """By all of its steps; without a manifest nothing is known of the form."""
    if manifest is None:
        return ""
    forms = [getattr(step, "form", "plain") for step in manifest.steps]
    form = next((form for form in reversed(forms) if form != "plain"), "plain")
    if any(step.kind == "quantize" for step in manifest.steps):
        form = "quantised shortlm" if form == "shortlm" else "quantised"
    return LOADS[form]
