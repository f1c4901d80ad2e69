"""A network on a chip: its state, its products, its calibration."""
