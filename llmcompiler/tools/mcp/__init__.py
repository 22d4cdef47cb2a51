"""Tools of servers that speak the Model Context Protocol; see ``docs/mcp.md``."""
