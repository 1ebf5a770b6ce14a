"""The gRPC door: the vectors of an index by `VectorService`, health checks and reflection, on the ports of REST."""
