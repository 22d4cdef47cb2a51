"""The strategies of this package, one module each; ``reasoning.base`` holds the protocol."""
