"""Devices from measurements: `cimc devices fit`. Plain NumPy and SciPy.

pulse_trains   measured trains, and the single steps in them
pulses         a law of pulses and its spreads, with confidence; the law by held-out devices
sides          one direction of the pulses: a shape, step and bounds a device, noise
shapes         the shapes of the mean step that are tried
law_keys       a fitted shape in the keys of a device file
drift          exponents of power-law drift
"""
