"""Pure rules: no clock, chance, disk, network or process."""
