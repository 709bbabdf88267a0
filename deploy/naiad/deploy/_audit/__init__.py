"""The checks of an audit: first facts are gathered (`survey`), then plain functions judge them (`judge_*`)."""
