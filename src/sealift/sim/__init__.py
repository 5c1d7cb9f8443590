"""The whole system in one process, with faults and attackers."""
