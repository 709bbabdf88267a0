"""What sends: schedules, the loop that drives a connection, and the process around it."""
