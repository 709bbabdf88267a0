"""`export-report.html`: one page for each version, for somebody who was not there."""
