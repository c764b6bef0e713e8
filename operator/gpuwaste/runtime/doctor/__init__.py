"""What `gpuwaste doctor` looks at; every check gives findings, each with a fix."""
