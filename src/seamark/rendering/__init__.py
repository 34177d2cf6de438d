"""What a study says, for people and machines: report.html, findings.json and card.md."""

from seamark.rendering.documents import Report, describe_data, findings_json, verdict_in_words, write_card, write_findings, write_report

__all__ = ["Report", "describe_data", "findings_json", "verdict_in_words", "write_card", "write_findings", "write_report"]
