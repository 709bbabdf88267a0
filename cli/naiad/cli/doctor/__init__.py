"""`naiad doctor`: what this machine has for Naiad, and what to do about what it lacks."""

from naiad.cli.doctor.command import doctor as doctor
