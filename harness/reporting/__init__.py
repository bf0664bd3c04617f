"""What people read of a search or a training: tables in a terminal, and a report that can be sent."""
