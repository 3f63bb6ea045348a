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
    "settings", "Settings", lambda evidence: evidence.settings.strip(),
    lambda evidence: {"settings": evidence.settings.strip()}, TEMPLATE,
)  # fmt: skip
