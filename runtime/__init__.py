"""Physics and execution: cells, converters, crossbar products, training, programming and deployment."""
