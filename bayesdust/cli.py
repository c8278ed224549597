"""The command line: arguments in, exit code out. Each command is a few lines of the Python API."""

import logging
import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated, Any

STARTED = time.perf_counter() - time.process_time()  # of the program, importing JAX included

# XLA reads these once, before its first use: one thread a chain, none inside a matrix product
if "train" not in sys.argv[1:2]:  # flows are one large matrix product after another
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import typer  # noqa: E402

from bayesdust.errors import BayesdustError  # noqa: E402

OK, INTERNAL, BAD_INPUT, FAILED, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    help="Dark matter from the motions of stars, with uncertainties that can be believed.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(rich_markup_mode=None)
app.add_typer(models_app, name="models")


def _path(text: Any) -> Path:
    """A path that a user gave; an empty one would be the working folder."""
    if not str(text).strip():
        raise typer.BadParameter("it is empty, and should name where to write")
    return Path(text)


Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the results.", parser=_path)
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what DIR holds.")]
Seed = Annotated[
    int, typer.Option(metavar="S", help="Seed of every random number.", min=0, max=2**63 - 1)
]
Chains = Annotated[int | None, typer.Option(metavar="N", help="Number of chains (nuts: 4).", min=1)]
Warmup = Annotated[
    int | None, typer.Option(metavar="N", help="Warm-up transitions a chain (nuts: 1000).", min=100)
]
Draws = Annotated[
    int | None,
    typer.Option(metavar="N", help="Draws kept a chain (nuts: 1000, vi: 4000).", min=100),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="OURS=THEIRS", help="A column's name, as v_los=HRV; repeatable."
    ),
]
Units = Annotated[
    list[str] | None,
    typer.Option("--unit", metavar="OURS=UNIT", help="A column's unit, as v_los=m/s; repeatable."),
]
Photometry = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Table of positions to fit the light profile to."),
]
PhotometryColumns = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=THEIRS", help="As --column, of the photometric table."),
]
PhotometryUnits = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=UNIT", help="As --unit, of the photometric table."),
]
METHOD = "nuts; vi-flow (or vi): variational inference with a flow; vi-normal: with a normal."


def main() -> None:
    """Run the command line and exit with its code; see docs/output.md for the codes."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s")
    try:
        code = app(prog_name="bayesdust", standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED  # which Typer may also return by itself
    except BayesdustError as error:
        code = _say(f"error: {_spelt(str(error))}", BAD_INPUT)
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # click's usage errors
            code = _say(f"error: {_usage(error)}", BAD_INPUT)
        else:
            logging.exception("internal error: please report it with the lines below")
            code = INTERNAL
    if code == INTERRUPTED:
        _say("interrupted: repeat the command to go on from what is done", INTERRUPTED)
    sys.exit(code)


@app.callback(invoke_without_command=True)
def bayesdust(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> int:
    if version:
        from bayesdust import __version__

        typer.echo(f"bayesdust {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    return OK


@app.command()
def demo(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="dwarf, or mw for the Milky Way.")
    ] = "dwarf",
    out: Out = Path("runs/demo"),
    overwrite: Overwrite = False,
    seed: Seed = 0,
) -> int:
    """Fit a mock galaxy whose truth is known.

    dwarf: 1,000 stars in a cuspy halo, drawn exactly and fitted like any others: a minute. mw: 30,000
    stars of a dusty Milky Way: two minutes.
    """
    from bayesdust.demo import milky_way_request, request

    if what not in ("dwarf", "mw"):
        raise BayesdustError(f"There is no demo of {what!r}: choose dwarf or mw.")
    imported = time.perf_counter()
    return _run((request if what == "dwarf" else milky_way_request)(seed), out, overwrite, imported)


@app.command()
def fit(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Name of a shipped model, or path of a .py file.")
    ],
    stars: Annotated[
        Path,
        typer.Argument(
            metavar="STARS",
            help="Table of stars (ECSV, FITS, Parquet, CSV, VizieR's TSV) with ra, dec or x, y; "
            "v_los; v_los_err; perhaps p_member and pmra, pmdec with errors. Milky Way: as for train. "
            "local_rho_gnfw: a table of r, rho_dm and rho_dm_err, or the folder of a fit of the Milky Way.",
        ),
    ],
    out: Out,
    galaxy: Annotated[
        str | None,
        typer.Option(
            metavar="GALAXY",
            help="Dwarf galaxies: name, FILE.toml, or FILE.csv:NAME (Local Volume Database).",
        ),
    ] = None,
    points: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Milky Way: table of places x, y, z of interest."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="COL", help="Milky Way: star weights, a column, or 1/COL."),
    ] = None,
    radius: Annotated[
        float | None, typer.Option(metavar="KPC", help="Milky Way: of the survey.")
    ] = None,
    flows: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Milky Way, likelihood=flow: an earlier run whose flows are reused."
        ),
    ] = None,
    method: Annotated[str, typer.Option(metavar="METHOD", help=METHOD)] = "nuts",
    chains: Chains = None,
    warmup: Warmup = None,
    draws: Draws = None,
    seed: Seed = 0,
    photometry: Photometry = None,
    photometry_column: PhotometryColumns = None,
    photometry_unit: PhotometryUnits = None,
    column: Columns = None,
    unit: Units = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="An option that MODEL takes (see the top of its file); repeatable.",
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> int:
    """Fit MODEL to STARS: the posterior of rho(r) and J, or of the Milky Way's force and dark matter.

    The results, report.html first of all, are written to DIR. The same command goes on with a run
    that was stopped. Exit codes: 0 done, 1 internal error, 2 bad input, 3 the diagnostics failed,
    130 interrupted.
    """
    from bayesdust.inference.programs import load
    from bayesdust.runs import Request

    imported = time.perf_counter()
    program = load(model)
    columns, units = _pairs("--column", column), _pairs("--unit", unit)
    options = _options("--option", option)
    sizes = {"num_chains": chains, "num_warmup": warmup, "num_draws": draws, "seed": seed}
    settings: dict[str, Any] = {key: value for key, value in sizes.items() if value is not None}
    light = _light(photometry, photometry_column, photometry_unit)
    of_dwarfs = {"--galaxy": galaxy, "--photometry": photometry}
    of_stars = {"--points": points, "--weights": weights, "--radius": radius, "--flows": flows}
    if flows is not None:
        settings["flows"] = str(flows)
    table: Any
    places = None
    if program.kind == "milky_way":
        _refuse(program.kind, of_dwarfs)
        table, places = _milky_way(stars, columns, units, weights, radius, points)
    elif program.kind == "milky_way_profile":
        _refuse(program.kind, of_dwarfs | of_stars)
        table = _profile(stars, columns, units)
    else:
        _refuse(program.kind, of_stars)
        table = _dwarf(stars, galaxy, columns, units, light)
    request = Request(program, table, method, options, settings, points=places)
    return _run(request, out, overwrite, imported)


def _refuse(kind: str, given: dict[str, Any]) -> None:
    """No option of the other kind of model is given."""
    for name, value in given.items():
        if value is not None:
            raise BayesdustError(f"{name} has no meaning for a model of kind {kind}: leave it out.")


def _light(
    photometry: Path | None, columns: list[str] | None, units: list[str] | None
) -> dict[str, Any]:
    """What `read_stars` is told of the photometric table."""
    return {
        "photometry": photometry,
        "photometry_columns": _pairs("--photometry-column", columns),
        "photometry_units": _pairs("--photometry-unit", units),
    }


def _dwarf(
    stars: Path, galaxy: str | None, columns: dict, units: dict, light: dict[str, Any]
) -> Any:
    from bayesdust.catalogs.dwarf import read_stars

    if galaxy is None:
        raise typer.BadParameter("Missing option '--galaxy'")
    if light.get("photometry") is None and any(light.values()):
        raise BayesdustError("--photometry-column and --photometry-unit go with --photometry FILE.")
    return read_stars(stars, galaxy, columns, units, **light)


def _milky_way(
    stars: Path,
    columns: dict,
    units: dict,
    weights: str | None,
    radius: float | None,
    points: Path | None,
) -> tuple[Any, Any]:
    from bayesdust.catalogs.cartesian import read_milky_way, read_places

    table = read_milky_way(stars, columns, units, weights=weights, radius=radius)
    if table.cuts is not None:
        logging.warning("%s", table.cuts)
    return table, None if points is None else read_places(points)


def _profile(source: Path, columns: dict, units: dict) -> Any:
    """A measured profile, from a table or from the run that measured it."""
    from bayesdust.catalogs.profile import read_profile
    from bayesdust.inference.profile_draws import profile_of
    from bayesdust.runs import load

    folder = source.parent if source.name == "posterior.nc" else source
    if not folder.is_dir():
        return read_profile(source, columns, units)
    if columns or units:
        raise BayesdustError(
            "--column and --unit are for tables, and a run was given: leave them out."
        )
    return profile_of(load(folder)[0], folder)


@app.command()
def calibrate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Of a dwarf galaxy: name, or path of a .py file.")
    ],
    stars: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STARS]", help="Whose places and errors are taken; by default 300 of the demo."
        ),
    ] = None,
    out: Out = Path("runs/calibration"),
    galaxy: Annotated[
        str | None, typer.Option(metavar="GALAXY", help="Of STARS, as for fit.")
    ] = None,
    replicas: Annotated[
        int, typer.Option(metavar="N", help="Fits to stars drawn anew.", min=20)
    ] = 200,
    drawn_by: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The model that draws the stars, if another one."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option that MODEL takes; repeatable."),
    ] = None,
    drawn_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="The same for the model that draws, if it is not to have those of --option.",
        ),
    ] = None,
    warmup: Annotated[int, typer.Option(metavar="N", help="Of each fit.", min=100)] = 500,
    draws: Annotated[int, typer.Option(metavar="N", help="Of each fit.", min=100)] = 1000,
    photometry: Photometry = None,
    photometry_column: PhotometryColumns = None,
    photometry_unit: PhotometryUnits = None,
    column: Columns = None,
    unit: Units = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> int:
    """Do MODEL's posteriors mean what they say? Fits it to stars whose truth it has drawn itself.

    report.html, calibration.ecsv and replicas.ecsv are written to DIR; the same command goes on with a
    run that was stopped, or with a finished one to more replicas. Exit codes as of `fit`; 3 means that the
    posteriors are miscalibrated, or that the fits are too short to tell.
    """
    from dataclasses import replace

    from bayesdust.calibration_run import run
    from bayesdust.demo import request
    from bayesdust.inference.calibration import Trial
    from bayesdust.progress import Progress

    _keep_compiled()
    table: Any
    if stars is None:
        of_stars = {
            "--galaxy": galaxy,
            "--photometry": photometry,
            "--column": column,
            "--unit": unit,
        }
        _refuse("without STARS", of_stars)
        table = replace(request(n=300).stars, source="the demo's catalogue")
    else:
        light = _light(photometry, photometry_column, photometry_unit)
        table = _dwarf(stars, galaxy, _pairs("--column", column), _pairs("--unit", unit), light)
    options = _options("--option", option)
    other = _options("--drawn-option", drawn_option)
    trial = Trial(
        model, table, options, drawn_by, other if drawn_option else None, warmup, draws, seed=seed
    )
    command = ["bayesdust", *sys.argv[1:]]
    with Progress() as show:
        found = run(trial, replicas, out, overwrite=overwrite, on_progress=show, command=command)
    typer.echo(f"{out / 'report.html'}: {found.verdict}")
    for sentence in (*found.failures, *found.doubts):
        typer.echo(f"  {sentence}", err=True)
    return OK if found.passed else FAILED


@app.command()
def evidence(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Of a dwarf galaxy: name, or path of a .py file.")
    ],
    stars: Annotated[Path, typer.Argument(metavar="STARS", help="Table of stars, as for fit.")],
    galaxy: Annotated[
        str | None, typer.Option(metavar="GALAXY", help="Of STARS, as for fit.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="An option that MODEL takes, as gamma=0; repeatable."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder for evidence.ecsv and run.json.", parser=_path),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A finished folder: show ln K too, of this against that one."
        ),
    ] = None,
    runs: Annotated[int, typer.Option(metavar="N", help="Independent runs.", min=4)] = 4,
    particles: Annotated[int, typer.Option(metavar="N", help="Of each run.", min=100)] = 1000,
    seed: Seed = 0,
    photometry: Photometry = None,
    photometry_column: PhotometryColumns = None,
    photometry_unit: PhotometryUnits = None,
    column: Columns = None,
    unit: Units = None,
    overwrite: Overwrite = False,
) -> int:
    """ln Z of MODEL on STARS, its marginal likelihood: what compares models of the same stars.

    The difference of two is ln K, the logarithm of the Bayes factor: of a core and a cusp with --option
    gamma=0 and gamma=1 of dsph_gnfw. With --out the same command goes on with one that was stopped. Exit
    codes as of `fit`; 3 means that the runs do not agree.
    """
    from bayesdust import evidence_run
    from bayesdust.inference.evidence import Plan, check_kind
    from bayesdust.inference.programs import load
    from bayesdust.progress import Progress

    _keep_compiled()
    program = load(model)
    check_kind(program)  # before the table of another kind of stars is found fault with
    light = _light(photometry, photometry_column, photometry_unit)
    table = _dwarf(stars, galaxy, _pairs("--column", column), _pairs("--unit", unit), light)
    for warning in table.warnings:
        logging.warning("warning: %s", warning)
    chosen, plan = _options("--option", option), Plan(runs, particles, seed)
    request = evidence_run.Request(program, table, chosen, plan)
    other = None if against is None else evidence_run.load(against)
    command = ["bayesdust", *sys.argv[1:]]
    with Progress() as show:
        found = evidence_run.run(
            request, out, overwrite=overwrite, on_progress=show, command=command
        )
    typer.echo(str(found))
    if other is not None:
        typer.echo(f"{found.against(other)} against {against}")
    for sentence in found.warnings:
        typer.echo(f"  {sentence}", err=True)
    return FAILED if found.warnings else OK


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a finished run.")],
) -> int:
    """Write report.html and summary.ecsv again from a finished run."""
    from bayesdust.runs import rewrite_report

    return _verdict(rewrite_report(folder), folder)


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR DIR ...", help="Folders of finished fits.")
    ],
) -> int:
    """Which of several fits to the same stars foresees a star left out? By PSIS-LOO.

    Exit codes as of `fit`; 3 means that a run did not pass, or that a Pareto k is too large.
    """
    from bayesdust.model_comparison import compare as compare_fits
    from bayesdust.runs import load_several

    found = compare_fits(load_several(folders))
    typer.echo(found)
    return FAILED if found.doubts else OK


@app.command()
def train(
    stars: Annotated[
        Path,
        typer.Argument(
            metavar="STARS",
            help="Gaia columns, or x, y, z [kpc] and vx, vy, vz [km/s] (Galactocentric).",
        ),
    ],
    out: Out,
    members: Annotated[int, typer.Option(metavar="K", help="Flows in the ensemble.", min=1)] = 1,
    seed: Seed = 0,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes (30).", min=1)] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Members see copies resampled within the errors.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(metavar="COL", help="Star weights: a column, or 1/COL.")
    ] = None,
    radius: Annotated[
        float | None, typer.Option(metavar="KPC", help="Of the survey (Cartesian tables).")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="A column's name; repeatable."),
    ] = None,
    unit: Annotated[
        list[str] | None, typer.Option(metavar="OURS=UNIT", help="A column's unit; repeatable.")
    ] = None,
    overwrite: Overwrite = False,
) -> int:
    """Learn f(x, v) of Milky Way stars: an ensemble of normalizing flows.

    flows.eqx, run.json and quality.html are written to DIR; the same command goes on with a run that
    was stopped. Exit codes as of `fit`; 3 means that the flows fail their quality tests.
    """
    from bayesdust.catalogs.cartesian import read_milky_way
    from bayesdust.flows.training import Schedule
    from bayesdust.progress import Progress
    from bayesdust.train_run import Request, run

    _keep_compiled()
    columns, units = _pairs("--column", column), _pairs("--unit", unit)
    table = read_milky_way(stars, columns, units, weights=weights, radius=radius)
    for warning in table.warnings:
        logging.warning("warning: %s", warning)
    if table.cuts is not None:
        logging.warning("%s", table.cuts)
    schedule = Schedule(seed=seed) if epochs is None else Schedule(seed=seed, epochs=epochs)
    request = Request(table, members, schedule, errors)
    command = ["bayesdust", *sys.argv[1:]]
    with Progress() as show:
        quality = run(request, out, overwrite=overwrite, on_progress=show, command=command)
    typer.echo(f"{out / 'quality.html'}: {'passed' if not quality.failures else 'FAILED'}")
    for sentence in quality.failures:
        typer.echo(f"  {sentence}", err=True)
    return FAILED if quality.failures else OK


@app.command()
def galaxies() -> int:
    """List the galaxies whose facts are built in."""
    from bayesdust.catalogs.galaxies import built_in

    typer.echo(f"{'name':<18}{'distance [kpc]':>15}{'R_half [arcmin]':>17}{'v_sys [km/s]':>14}")
    for galaxy in built_in():
        numbers = (galaxy.distance, galaxy.rhalf, galaxy.v_sys)
        cells = ("-" if value is None else f"{value:.1f}" for value in numbers)
        typer.echo("{:<18}{:>15}{:>17}{:>14}".format(galaxy.name, *cells))
    return OK


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Galaxy, such as fornax.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="File to write (ECSV).", parser=_path)],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")] = False,
) -> int:
    """Get a galaxy's published catalogue of stars from VizieR."""
    from bayesdust.catalogs.fetch import fetch as get

    typer.echo(get(name, out, overwrite=overwrite))
    return OK


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context) -> int:
    """List the models, or copy one to edit."""
    from bayesdust.inference.programs import describe, shipped

    if context.invoked_subcommand is None:
        for name, path in shipped().items():
            typer.echo(f"{name:<16}{describe(path)}")
    return OK


@models_app.command("copy")
def models_copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a shipped model.")],
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="New file, or a folder to put it in.")
    ] = Path("."),
) -> int:
    """Copy a model to edit; prints the path of the copy."""
    from bayesdust.inference.programs import copy

    typer.echo(copy(name, target))
    return OK


def _run(request: Any, out: Path, overwrite: bool, imported: float) -> int:
    """Run and show how far it is; the verdict is the exit code."""
    from bayesdust.progress import Progress
    from bayesdust.runs import run

    _keep_compiled()
    for warning in request.stars.warnings:
        logging.warning("warning: %s", warning)
    spent = {"import": imported - STARTED, "reading": time.perf_counter() - imported}
    command = ["bayesdust", *sys.argv[1:]]
    with Progress() as show:
        verdict = run(
            request, out, overwrite=overwrite, on_progress=show, spent=spent, command=command
        )
    return _verdict(verdict, out)


def _keep_compiled() -> None:
    """Have XLA keep what it compiles in the user's cache, unless the user has chosen a place."""
    import jax

    if jax.config.jax_compilation_cache_dir is not None:
        return
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bayesdust" / "xla"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written: it goes slower, and that is all
        return
    jax.config.update("jax_compilation_cache_dir", str(cache))


def _verdict(verdict: Any, out: Path) -> int:
    typer.echo(f"{out / 'report.html'}: diagnostics {'passed' if verdict.passed else 'FAILED'}")
    for check in verdict.failures:
        typer.echo(f"  {check.sentence}", err=True)
    for warning in verdict.warnings:
        typer.echo(f"warning: {warning}", err=True)
    return OK if verdict.passed else FAILED


def _pairs(name: str, items: list[str] | None) -> dict[str, str]:
    """{"a": "b"} from ["a=b"], the values of the option called `name`."""
    pairs: dict[str, str] = {}
    for item in items or []:
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise BayesdustError(f"{name} {item!r} should read KEY=VALUE.")
        if key in pairs:
            raise BayesdustError(f"{name} {key} is given twice: give it once.")
        pairs[key] = value
    return pairs


def _options(name: str, items: list[str] | None) -> dict[str, bool | float | str]:
    """A model's options from the values of the option called `name`."""
    return {key: _value(text) for key, text in _pairs(name, items).items()}


def _value(text: str) -> bool | float | str:
    """A flag, a number, or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _spelt(message: str) -> str:
    """A message that advises a keyword of the Python API, advising an option instead."""

    def options(match: re.Match) -> str:
        pairs = re.findall(r"'([^']*)': '([^']*)'", match[2])
        name = match[1].replace("_", "-")
        return " ".join(f"--{name} {shlex.quote(f'{key}={value}')}" for key, value in pairs)

    message = re.sub(r"setting '(?:num_)?(\w+)'", r"option --\1", message)
    message = re.sub(r"((?:photometry_)?(?:unit|column))s=\{([^{}]*)\}", options, message)
    message = re.sub(r"weights='([^']*)'", r"--weights \1", message)
    message = re.sub(r": (unit|column)s names ", r": --\1 names ", message)
    return re.sub(r": photometry_(unit|column)s names ", r": --photometry-\1 names ", message)


def _usage(error: Any) -> str:
    """A usage error in one line, with where to read more."""
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{text} (see {context.command_path if context else 'bayesdust'} --help)."


def _say(message: str, code: int) -> int:
    typer.echo(message, err=True)
    return code


if __name__ == "__main__":
    main()
