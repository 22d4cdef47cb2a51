"""The strategies of this package, a file each; the protocol is in ``reasoning.base``."""
