"""``python -m llmcompiler``: the command line, for where the script is not on the path."""

from llmcompiler.cli import main

if __name__ == "__main__":
    main()
