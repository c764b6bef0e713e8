"""The usage messages, generated from `proto/gpuwaste/v1/usage.proto`; imports nothing but protobuf."""
