"""Looking into images and containers: what is in them, and what makes deltas large."""
