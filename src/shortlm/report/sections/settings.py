"""Every setting, folded away."""

from __future__ import annotations

from shortlm.report.section import Section

TEMPLATE = """
<details>
<summary>Every setting, as YAML</summary>
<pre>{{ settings }}</pre>
</details>
"""

SECTION = Section(
    "settings", "Settings", lambda evidence: evidence.settings, lambda evidence: {"settings": evidence.settings},
    TEMPLATE,
)  # fmt: skip
