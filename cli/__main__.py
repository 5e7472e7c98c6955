"""`maskwright up | import | export | import-model | check | train | waggle | resume | predict | models | token | self-test`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from annotations.doctor.check import check_dataset
from annotations.exporting import Outlines, export_coco, export_index_masks
from cli.follow import figures_of, follow
from cli.importing import import_source, read_choices, sentences
from cli.predict import predict_all
from cli.recommended import recommended
from cli.self_test import self_test
from cli.services import run_services
from cli.tokens import app as tokens_app
from cli.waggle import start_waggle
from contracts.errors import Invalid, Problem
from contracts.job import JobRequest
from contracts.queue import Priority
from contracts.waggle import CONFIG_FILE, ImageType
from contracts.weights import WeightsType
from docker_sdk_api.app import create_launcher
from docker_sdk_api.artefacts import import_model
from docker_sdk_api.jobs import Jobs
from docker_sdk_api.models import Models
from docker_sdk_api.retention import Retention, Rules
from docker_sdk_api.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
console = Console(stderr=True)

app.add_typer(tokens_app, name="token")


@app.command()
def up() -> None:
    """Start the services and print the address of the page. Ctrl-C stops everything."""
    run_services()


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(help="A folder or an archive with labelled pictures.")],
    to: Annotated[str, typer.Option(help="The dataset's name.")],
    format: Annotated[str | None, typer.Option(help="Found out where not given: see docs/formats.md.")] = None,
    classes: Annotated[str, typer.Option(help="Class names in the order of their ids, such as background,crack,hole.")] = "",
    colour: Annotated[list[str] | None, typer.Option(help="A class colour, such as '#ff0000=crack'. Repeatable.")] = None,
    white: Annotated[Literal["foreground", "ignore"] | None, typer.Option(help="What 255 means in black-and-white masks.")] = None,
) -> None:
    """Bring labelled pictures of any known format into the datasets folder: all of them, or nothing and the reason."""
    found = import_source(source.resolve(), to, format, read_choices(classes, colour or [], white), console)
    print("\n".join(sentences(found, to)))


@app.command()
def export(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder, or a dataset's name.")],
    to: Annotated[Path, typer.Option(help="The folder that is made.")],
    format: Annotated[Literal["index_masks", "coco"], typer.Option(help="What is written.")] = "index_masks",
    outlines: Annotated[Outlines, typer.Option(help="How COCO tells where a class is.")] = "polygons",
) -> None:
    """Write a dataset for another tool: index masks or COCO, all of it or nothing. What is imported again is the same."""
    folder = _dataset_folder(dataset)
    if format == "coco":
        export_coco(folder, to, outlines)
    else:
        export_index_masks(folder, to)
    print(f"{folder.name} is in {to}")


@app.command("import-model")
def import_model_(
    source: Annotated[Path, typer.Argument(help="A model's zip or folder, of Maskwright or of the GluonCV training GUI.")],
    name: Annotated[str, typer.Option(help="Another name than its own.")] = "",
) -> None:
    """Bring a model in and publish it: docs/old-clients.md. Exit code 0 only if it was."""
    jobs = _jobs()
    model, ready = import_model(jobs, source.resolve(), name)
    status = (jobs.view(model) if ready else follow(jobs, model, console)).status
    finished = status.state == "finished"
    print(f"{model}: the model is there" if finished else f"{model}: no model. {status.cause} {status.cure}".strip())
    raise typer.Exit(0 if finished else 1)


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A dataset folder.")], as_json: Annotated[bool, typer.Option("--json")] = False
) -> None:
    """Say everything that is wrong with a dataset, file by file. Exit code 1 where it cannot be trained on."""
    report = check_dataset(folder.resolve())
    if as_json:
        print(report.model_dump_json(indent=2))
    else:
        for finding in report.findings:
            console.print(
                f"[bold]{finding.file}[/]: {finding.what} {finding.cure}",
                style="red" if finding.severity == "error" else "yellow",
                highlight=False,
            )
        print(f"{report.dataset}: {report.pictures} sound pictures, {len(report.classes)} classes, {len(report.errors)} errors")
    raise typer.Exit(1 if report.errors else 0)


@app.command()
def train(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder, or a dataset's name.")],
    engine: Annotated[str, typer.Option(help="pytorch, gluon or majority.")] = "pytorch",
    network: Annotated[str, typer.Option()] = "",
    backbone: Annotated[str, typer.Option()] = "",
    epochs: Annotated[int | None, typer.Option()] = None,
    name: Annotated[str, typer.Option(help="The job's name. Proposed from the dataset's where not given.")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", help="A setting, such as --set learning_rate=0.001. Repeatable.")] = None,
    validation_share: Annotated[float, typer.Option(help="Share of the pictures kept aside to score the model.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    weights: Annotated[WeightsType, typer.Option(help="What the network starts from: see docs/weights.md.")] = "from_scratch",
    weights_from: Annotated[str, typer.Option(help="Which classifier, or which earlier model, the weights are taken from.")] = "",
    gpu: Annotated[list[int] | None, typer.Option(help="A GPU's id. Repeatable. None: the CPU.")] = None,
    processes: Annotated[int, typer.Option(min=1, max=256, help="Processes that learn together on the CPU: docs/parallel.md.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, max=256, help="Machines of a Ray cluster that learn together: docs/cluster.md.")] = 1,
    memory_limit: Annotated[int | None, typer.Option(min=16, help="Megabytes that it may take, in a container.")] = None,
    cpus: Annotated[float | None, typer.Option(min=0.01, help="Processor cores that it may keep busy.")] = None,
    priority: Annotated[Priority, typer.Option(help="For the queue: docs/queue.md. Started here, a job never waits.")] = "normal",
    suited: Annotated[bool, typer.Option("--recommended", help="Settings that suit dataset and machine; --set goes over them.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Train a model. Exit code 0 only if one was published."""
    jobs, folder = _jobs(), _dataset_folder(dataset)
    values = _settings(settings or [])
    if epochs is not None:
        values["epochs"] = epochs
    if suited:
        row, found = recommended(jobs, folder, (engine, network, backbone), validation_share, gpu or [], console)
        network, backbone, values = row.network, row.backbone, {**found, **values}
    network, backbone = network or DEFAULT_NETWORKS.get(engine, ("", ""))[0], backbone or DEFAULT_NETWORKS.get(engine, ("", ""))[1]
    request = JobRequest(
        name=name or _propose(folder.name, network),
        dataset=folder.name,
        engine=engine,
        network=network,
        backbone=backbone,
        gpus=gpu or [],
        processes=processes,
        memory_limit=memory_limit,
        cpus=cpus,
        priority=priority,
        nodes=nodes,
        validation_share=validation_share,
        seed=seed,
        weights=weights,
        weights_from=weights_from,
        hyperparameters=values,
    )
    jobs.start(request, folder)
    _follow_to_the_end(jobs, request.name, as_json)


@app.command()
def resume(
    name: Annotated[str, typer.Argument(help="A job that failed or was stopped.")],
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Let a job go on after its last whole epoch. Exit code 0 only if a model was published."""
    jobs = _jobs()
    jobs.resume(name)
    _follow_to_the_end(jobs, name, as_json)


@app.command()
def waggle(
    folder: Annotated[Path, typer.Argument(help="A folder of the Waggle FCN plugin: images/, labels/, class_names.list, config.list.")],
    image_type: Annotated[ImageType, typer.Option("--image_type", "--image-type", help="What the labels hold.")],
    config: Annotated[str, typer.Option(help="The folder's settings.")] = CONFIG_FILE,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    gpu: Annotated[list[int] | None, typer.Option(help="A GPU's id. None: the CPU.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON.")] = False,
) -> None:
    """Train as the Waggle FCN plugin does, into MODEL-<output_dir>/ of the folder: see docs/waggle.md. A run that broke off goes on."""
    jobs = _jobs()
    name = start_waggle(jobs, folder.resolve(), config, image_type, seed, gpu or [], console)
    _follow_to_the_end(jobs, name, as_json)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A model's name, its folder, or its downloaded zip; with --url its name there.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, folders of them, or archives.")],
    out: Annotated[Path | None, typer.Option(help="Where index masks go: a PNG for one picture, else a folder.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="Where pictures with their masks over them go: likewise.")] = None,
    url: Annotated[str | None, typer.Option(help="Ask a running inference API, such as http://127.0.0.1:4343.")] = None,
) -> None:
    """Ask a model what it sees in pictures. Exit code 1 where one could not be answered."""
    if out is None and overlay is None:
        raise Invalid("There is nothing to write.", "Give --out masks, --overlay overlays or both: folders, or files for one picture.")
    failed = False
    for looked in predict_all(model, pictures, out, overlay, url, console):
        if looked.problem is not None:
            failed = True
            console.print(f"{looked.problem.cause} {looked.problem.cure}", style="red", highlight=False)
        else:
            print(f"{looked.name}: " + ", ".join(f"{name} {share:.2%}" for name, share in looked.shares.items()))
    raise typer.Exit(1 if failed else 0)


@app.command("self-test")
def self_test_(
    engine: Annotated[str, typer.Option(help="pytorch, gluon or majority. The first that can run here where not given.")] = "",
    keep: Annotated[bool, typer.Option(help="Leave the job and its model.")] = False,
) -> None:
    """Train a tiny model from end to end and ask it for a mask. Exit code 0 only if every step went well."""
    raise typer.Exit(0 if self_test(_jobs(), engine, keep, console) else 1)


@app.command()
def models() -> None:
    """List the published models, newest first."""
    table = Table("model", "network", "mIoU", "classes", "dataset", "published")
    for model in Models(_jobs()).all():
        score = "n/a" if model.scores.mean_iou is None else f"{model.scores.mean_iou:.3f}"
        row = (
            model.name,
            f"{model.network}/{model.backbone}",
            score,
            ", ".join(model.classes),
            model.dataset,
            f"{model.created:%Y-%m-%d %H:%M}",
        )
        table.add_row(*row)
    Console().print(table)


@app.command()
def tidy(
    failed_days: Annotated[float, typer.Option(help="Jobs that failed or were stopped and have no model, older than so many days.")] = 0,
    checkpoints_days: Annotated[float, typer.Option(help="What finished jobs keep to go on from, older than so many days.")] = 0,
    yes: Annotated[bool, typer.Option(help="Let go of it. Without this it is only shown.")] = False,
) -> None:
    """Show what old jobs keep that may go, and let go of it."""
    retention, rules = Retention(_jobs()), Rules(failed_days=failed_days, checkpoints_days=checkpoints_days)
    found = retention.apply(rules) if yes else retention.preview(rules)
    for row in found.rows:
        console.print(f"{row.job}: {row.what}, {row.bytes / 1e6:.1f} MB", highlight=False)
    print(f"{found.bytes / 1e6:.1f} MB {'are gone' if yes else 'would go: add --yes'}.")


DEFAULT_NETWORKS = {"pytorch": ("unet", "resnet18"), "gluon": ("fastscnn", "fastscnn"), "majority": ("majority", "none")}


def _follow_to_the_end(jobs: Jobs, name: str, as_json: bool) -> None:
    view = follow(jobs, name, console)
    figures = figures_of(view)
    print(json.dumps(figures) if as_json else _sentence(figures, view.status.cause, view.status.cure))
    raise typer.Exit(0 if view.status.state == "finished" else 1)


def _jobs() -> Jobs:
    settings = Settings()
    settings.checkpoints.mkdir(parents=True, exist_ok=True)
    return Jobs(settings, create_launcher(settings))


def _dataset_folder(dataset: Path) -> Path:
    """A folder as it was given; where there is none, the dataset of this name."""
    named = Settings().datasets / dataset
    return (named if not dataset.exists() and len(dataset.parts) == 1 and named.is_dir() else dataset).resolve()


def _settings(pairs: list[str]) -> dict[str, Any]:
    """key=value pairs; values as JSON where they are, else as text."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise Invalid(f"--set {pair} has no “=”.", "Write it as --set learning_rate=0.001.")
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values


def _propose(dataset: str, network: str) -> str:
    """The first free name made of dataset and network."""
    checkpoints = Settings().checkpoints
    number = 1
    while (checkpoints / f"{dataset}-{network}-{number}").exists():
        number += 1
    return f"{dataset}-{network}-{number}"


def _sentence(figures: dict[str, Any], cause: str, cure: str) -> str:
    if figures["model"] is None:
        return f"{figures['job']}: no model. {cause} {cure}".strip()
    per_class = ", ".join(f"{name} {'n/a' if iou is None else f'{iou:.3f}'}" for name, iou in figures["iou_per_class"].items())
    return f"{figures['model']}: mIoU {figures['mean_iou']:.3f} ({per_class}) after {figures['epochs']} epochs, {figures['seconds']:.0f} s"


def main() -> None:
    try:
        app(standalone_mode=True)
    except Problem as problem:
        console.print(f"{problem.cause} {problem.cure}", style="red", highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
