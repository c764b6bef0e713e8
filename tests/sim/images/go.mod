module gpuwaste/tests/sim/images

go 1.26.0
