"""What a device does, made from its description (`Cell`): `device_of(cell)` in `device` is the one door.

device         the door: write, plan, pulse, read
write_verify   closed-loop writes
write_law      what a write leaves, from the chip's figures alone (plain NumPy)
pulses         pulse laws, and which pulses a change of weights takes
reads          reads with their noise

One rule about bounds. Targets lie in the window, G_min to G_max. The error a chip file states is the error left as
measured, with whatever saturation there was in it: a write ends there, also beyond the window, and for a G_min of 0
also below 0 (a difference to a reference, not a negative resistor); nothing is clipped that would shift the mean or
narrow the spread. Where the file states `[cell] limits_uS = [low, high]`, no act (write-verify or blind pulse) takes a
device beyond: it is clipped there, and `cimc chips NAME --explain` prints the mean and sd that result. Without
limits_uS, blind pulses, which are open loop, stop at the window.
"""
