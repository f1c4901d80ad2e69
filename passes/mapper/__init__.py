"""The mapper: layers of a lowered network on arrays. `map_network` is the way in; the others are its steps.

options, plan, objective   what is asked for, what the steps hand on, how an objective is found
layers, kinds, partition, layout, lay_out   what goes on which arrays, cut into pieces, laid out as blocks
objectives/: latency, interval, energy, arrays   one record each: search, what it reached, its bound, its unit
pack, copies, bounds   what the objectives share
reads, place, traffic, stages, row_pipeline, schedule, limits   which reads exclude each other, where arrays lie, when
cost, components, segments   what an image costs; networks larger than the chip
"""
