"""What a device does, made from its description (`Cell`): `device_of(cell)` in `device` is the one door.

device         the door: traits, write, plan, pulse, read, age, wear
traits         what is a device's own, drawn once a chip
write_verify   closed-loop writes by the error that is left; write_law: what that is (plain NumPy)
pulse_train    closed-loop writes as a loop of pulses and reads
pulse_laws     how far a pulse moves a device; pulses: blind pulses; pulse_plan: which ones a change takes
reads          reads with their noise
age            what time does
wear           stuck, worn and leaking devices

One rule about bounds. Targets lie in the window, G_min to G_max. The error a chip file states is the error left as
measured, with whatever saturation there was in it: a write ends there, also beyond the window, and for a G_min of 0
also below 0 (a difference to a reference, not a negative resistor); nothing is clipped that would shift the mean or
narrow the spread. Where the file states `[cell] limits_uS = [low, high]`, no act (write-verify or blind pulse) takes a
device beyond: it is clipped there, and `cimc chips NAME --explain` prints the mean and sd that result. Without
limits_uS, blind pulses, which are open loop, stop at the window.
"""
