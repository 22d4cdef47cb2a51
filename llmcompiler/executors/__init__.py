"""Where tool calls run: on this process's event loop and threads, or elsewhere."""
