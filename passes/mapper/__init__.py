"""The mapper: layers of a lowered network on arrays. `map_network` is the way in; the others are its steps.

layers, partition, layout, mapped   what goes on arrays, cut into pieces, laid out as blocks
choose: interval, latency, energy, pack, copies   layouts for an objective, each with its bound
reads, place, traffic, stages, row_pipeline, schedule, limits   which reads exclude each other, where arrays lie, when
cost, components, segments   what an image costs; networks larger than the chip
"""
