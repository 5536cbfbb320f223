"""A stage is three things with one name: a pure function in the core, one here that reads, calls it and writes, and an
entry in dvc.yaml."""
