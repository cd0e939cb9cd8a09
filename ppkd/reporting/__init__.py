"""``ppkd report``: one page about runs with and without a teacher. One file a section."""

from ppkd.reporting.write import write_report

__all__ = ["write_report"]
