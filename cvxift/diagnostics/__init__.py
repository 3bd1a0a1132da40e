"""Whether the implicit function theorem applies at a point, in the user's own words."""

from cvxift.diagnostics.call_check import Recorder
from cvxift.diagnostics.diagnosis import diagnose
from cvxift.diagnostics.findings import Check, Finding, Verdict
from cvxift.diagnostics.report import BatchReport, Report

__all__ = ["BatchReport", "Check", "Finding", "Recorder", "Report", "Verdict", "diagnose"]
