"""What a run is shown as: pages, tables and the files they are written to."""
