"""``models``: lists and downloads the weights of the embedded models."""

from __future__ import annotations

from typing import Annotated

import typer

from llmcompiler.cli.options import JsonOption

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Embedded models: list, download, find their files.

    Example: llmcompiler models pull
    """,
)


@app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List the embedded models, and which of them are downloaded.

    Example: llmcompiler models list
    """
    from llmcompiler.cli.output import print_json
    from llmcompiler.llm.weights import DEFAULT, WEIGHTS, is_pulled, path_of

    if as_json:
        models = [
            {
                "name": name,
                "bytes": weights.size,
                "here": is_pulled(name),
                "default": name == DEFAULT,
                "path": str(path_of(name)),
            }
            for name, weights in WEIGHTS.items()
        ]
        print_json({"models": models})
        return
    for name, weights in WEIGHTS.items():
        state = "here" if is_pulled(name) else "not pulled"
        default = "  (default)" if name == DEFAULT else ""
        typer.echo(f"{name:20} {weights.size / 1e6:7,.0f} MB  {state}{default}")


@app.command()
def pull(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A name that `list` shows; the default model where not given."
        ),
    ] = None,
) -> None:
    """Download a model's weights and verify them; an interrupted download continues.

    Example: llmcompiler models pull qwen2.5-coder-0.5b
    """
    from llmcompiler.cli.progress import download_progress
    from llmcompiler.llm import weights
    from llmcompiler.llm.embedded import check_installed
    from llmcompiler.llm.native.location import is_native_installed

    weights.find_weights(name or weights.DEFAULT)
    if not is_native_installed():
        check_installed()
    with download_progress() as progress:
        path = weights.pull_weights(name or weights.DEFAULT, progress)
    typer.echo(path)


@app.command()
def path(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `list` shows.")],
) -> None:
    """Print the path of a model's weights; exit code 1 if they have not been pulled.

    Example: llmcompiler models path qwen2.5-coder-1.5b
    """
    from llmcompiler.llm import weights

    typer.echo(weights.path_of(name))
    if not weights.is_pulled(name):
        typer.echo(f"not pulled yet: llmcompiler models pull {name}", err=True)
        raise typer.Exit(1)
