"""How a call is made: the loop around its attempts. What it decides is in ``_routing``."""
