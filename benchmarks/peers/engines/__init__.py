"""One module for each engine; see ``benchmarks.peers.worker.Engine``. A module imports only what its engine needs."""
