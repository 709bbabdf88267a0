"""The parity gate: a graph must answer as its model does."""
