"""`serve`: one model file on its own, for a developer's laptop, served as a device serves it."""

from pathlib import Path
from typing import Annotated

import typer

from edgewise.cli.failures import CommandError


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("serve")(serve)


def serve(
    *,
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model file (.onnx, .xml or .tflite), or a folder with one.", show_default=False)
    ],
    port: Annotated[int, typer.Option("--port", "-p", metavar="PORT", min=0, max=65535, help="0 takes any free one.")] = 8000,
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="Where to listen.")] = "127.0.0.1",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What clients call the model; the file's name unless given.", show_default=False)
    ] = "",
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime", metavar="NAME", help="onnxruntime, openvino or litert; what the file is for unless given.", show_default=False
        ),
    ] = "",
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", min=0, max=64, help="Threads of one inference; 0 decides by itself.")
    ] = 0,
    anyone: Annotated[
        bool, typer.Option("--without-authentication", help="Listen where others can connect: whoever reaches the port may use the model.")
    ] = False,
) -> None:
    """Serve a model on this machine, as a device would.

    It speaks the Open Inference Protocol V2 (REST, with binary tensors). Nothing is signed, nothing is reported. Ctrl-C answers what is
    under way and stops.
    """
    from edgewise.cli import serving

    path = Path(model).expanduser()
    if not path.exists():
        raise CommandError("there is no such file", model)
    if path.is_file() and path.suffix not in {".onnx", ".xml", ".tflite"}:
        raise CommandError("this is no model file", model, "models are .onnx, .xml (OpenVINO) or .tflite files")
    if not anyone and not serving.is_loopback(host):
        raise CommandError(
            f"{host} can be reached from elsewhere, and there is no authentication",
            hint="say --without-authentication if that is meant; on devices, workloads are reached over loopback",
        )
    called = name or serving.name_of(path)
    if not serving.is_name(called):
        raise CommandError(f"{called!r} is no name for a model", hint="give --name: letters, digits, '.', '_' and '-', 63 at most")
    serving.run(serving.Asked(path=path.absolute(), host=host, port=port, name=called, runtime=runtime, threads=threads))
