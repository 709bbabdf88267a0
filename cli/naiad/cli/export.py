"""`naiad export`: a recipe becomes a verified version in the model repository."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from naiad.cli._console import err, out, print_json
from naiad.cli._precision import precision_notes, precision_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from naiad.export import Repository, Version


def export(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe file, the name of a recipe that comes with Naiad, or a model file: .onnx, .pt2, .pt."
        ),
    ],
    repository: Annotated[
        str,
        typer.Option("--repository", "-r", help="The model repository to publish in: a path, or s3://bucket/prefix."),
    ] = "model_repository",
    name: Annotated[str | None, typer.Option(help="The model's name; by default the recipe's.")] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(min=0, help="The largest batch the server may form; 0 for no batch dimension.")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            help="fp32 keeps the model's own types; fp16, bf16, int8, int8-dynamic, int8-static and int4 are published "
            "if they pass and are faster; auto tries all and keeps the fastest that passes."
        ),
    ] = "fp32",
    allow_slower: Annotated[
        bool, typer.Option("--allow-slower", help="Publish a named precision that is not faster, for its size.")
    ] = False,
    opset: Annotated[int | None, typer.Option(help="The ONNX opset; by default what suits the target.")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="RELEASE", help="The Triton release that will serve it; 26.07 by default.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", metavar="NAME=VALUE", help="An option of its build()."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="A field of config.pbtxt by dotted name.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="An .npz file of real inputs, arrays by input name; goes before the recipe's.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights for what build() returns: .safetensors, or what torch.save wrote."),
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="Unpickle whatever a file asks for, which runs code of its author.")
    ] = False,
    exporter: Annotated[
        str, typer.Option(help="dynamo, legacy (TorchScript), or auto: legacy where dynamo cannot read the model.")
    ] = "auto",
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[OUTPUT:]rtol=…,atol=…,cosine=…",
            help="How far ONNX Runtime may be from PyTorch; by default as the precision allows.",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="recipe:NAME", help="A metric of the recipe's evaluate(), that may not suffer."),
    ] = None,
    max_drop: Annotated[
        str | None,
        typer.Option(help="How far the metric may fall: 0.5% of PyTorch's value, or a number. 1% if not given."),
    ] = None,
    max_rise: Annotated[
        str | None, typer.Option(help="How far it may rise, for a metric that is better when lower.")
    ] = None,
    accelerator: Annotated[
        str,
        typer.Option(help="cpu; cuda or tensorrt for servers with a GPU; aoti: a model.pt2 for this processor or GPU."),
    ] = "cpu",
    device: Annotated[
        str,
        typer.Option(help="Where it is compiled, verified and timed: cpu, cuda, or auto, which takes a GPU it is for."),
    ] = "auto",
    cores: Annotated[
        int | None, typer.Option(min=1, help="Cores of the machine that will serve; by default as many as here.")
    ] = None,
    promote: Annotated[bool, typer.Option(help="Serve the new version, and only it.")] = True,
    sign_key: Annotated[
        Path | None,
        typer.Option(envvar="NAIAD_SIGN_KEY", help="A private key that signs it, see naiad models keygen."),
    ] = None,
    require_key: Annotated[
        Path | None,
        typer.Option(envvar="NAIAD_REQUIRE_KEY", help="A public key: serve nothing that it has not signed."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="A file for the page about this export, also when nothing is published.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Export a model, check it against PyTorch, and publish it as the next version.

    Nothing is published unless ONNX Runtime answers as PyTorch does at batches 1, 2, 3, 7 and the largest.

    Examples:
        naiad export digits

        naiad export export/recipes/digits.py --max-batch-size 32 --no-promote

        naiad export digits -r s3://bucket/models

        naiad export digits -o seed=1 --set dynamic_batching.max_queue_delay_microseconds=500

        naiad export digits --cores 16 --accelerator tensorrt --target 26.07

        naiad export digits --accelerator aoti --device cuda --precision bf16

        naiad export embeddings --precision auto

        naiad export my_recipe.py --checkpoint weights.safetensors

        naiad export sentences --set tokens.instance_group.0.count=2

        naiad export model.onnx --samples samples.npz

        naiad export digits --sign-key release.pem

        naiad export digits --precision int8 --metric recipe:accuracy --max-drop 0.5%

        naiad export digits --tolerance cosine=0.999 --tolerance probabilities:atol=0.01 --report report.html
    """
    from naiad.export import Repository, export_recipe, load_recipe, parse_setting, parse_tolerance

    repo = Repository(repository, sign_key=sign_key, require_signature=require_key)
    with err.status("load the recipe") as status, _hint_at_report(report):
        version = export_recipe(
            load_recipe(recipe),
            repository=repo,
            options=dict(parse_setting(item) for item in option or ()),
            name=name,
            max_batch_size=max_batch_size,
            precision=precision,
            allow_slower=allow_slower,
            settings=dict(parse_setting(item) for item in settings or ()),
            tolerance=parse_tolerance(tolerance or ()),
            metric=metric,
            max_drop=max_drop,
            max_rise=max_rise,
            opset=opset,
            target=target,
            samples=samples,
            checkpoint=checkpoint,
            trust_pickle=trust_pickle,
            exporter=exporter,
            accelerator=accelerator,
            device=device,
            cores=cores,
            promote=promote,
            on_step=lambda step: status.update(f"{step} …"),
            report=report,
        )
    if as_json:
        print_json(_as_dict(version, repo))
    else:
        _show(version, repo, report)


@contextlib.contextmanager
def _hint_at_report(report: Path | None) -> Iterator[None]:
    from naiad.export import PrecisionRefused, VerificationFailed

    try:
        yield
    except (PrecisionRefused, VerificationFailed) as exc:
        where = f"see {report}" if report else "add --report report.html to the same command"
        exc.add_note(f"for what was measured, {where}")
        raise


def _as_dict(version: Version, repo: Repository) -> dict[str, Any]:
    return {
        "model": version.model,
        "version": version.number,
        "path": version.location,
        "served": repo.served(version.model),
        "report": version.report.to_dict() if version.report else None,
    }


def _show(version: Version, repo: Repository, report: Path | None) -> None:
    served = repo.served(version.model)
    table = Table(show_header=False, title=f"{version.model} version {version.number}", title_justify="left")
    table.add_row("path", Text(version.location))
    table.add_row("served", ", ".join(map(str, served)))
    for label, text in _rows(version):
        table.add_row(label, Text(text))
    out.print(table)
    if version.report is not None and version.report.precision:
        out.print(precision_table(version.report.precision), *precision_notes(version.report.precision), sep="\n")
    out.print(f"report: {report or f'{version.location}/export-report.html'}", markup=False, soft_wrap=True)
    if version.number not in served:
        out.print(
            f"not served yet: naiad models promote {version.model} {version.number} -r {repo.location}", markup=False
        )


def _rows(version: Version) -> Iterator[tuple[str, str]]:
    report = version.report
    assert report is not None
    yield "size", f"{report.size_bytes / 1e6:.2f} MB"
    if report.graph:
        graph = report.graph
        made = f"{graph.num_nodes} nodes, {graph.num_parameters:,} weights, opset {graph.opset}"
        yield "graph", f"{made}; made by {'a copy' if graph.exporter == 'copy' else f'the {graph.exporter} exporter'}"
    for parity in report.parity:
        error = f"largest error {parity.max_abs_error:.2g} ({parity.max_rel_error:.2g} of the largest value)"
        yield f"parity of {parity.output}", error
    batches = f"batches {', '.join(map(str, report.batches))}" if report.batches else "the samples' sizes"
    yield "verified at", f"{batches}; {report.num_cases} comparisons"
    if report.verified_on:
        yield "verified on", report.verified_on
    for latency in report.latency:
        yield (
            f"latency of batch {latency.batch}" if latency.batch else "latency",
            f"{latency.median_ms:.3g} ms on {report.timed_on or 'one thread'}",
        )
    for choice in report.choices:
        yield choice.field, f"{choice.value} ({choice.reason})"
    for phrase in report.not_measured:
        yield "not measured", phrase
    for finding in report.findings:
        yield finding.check, finding.message
