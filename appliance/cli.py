"""The commands `mdc-appliance` and `mdc`: arguments, exit codes and error messages, nothing else.

What a command needs is imported when it is called, so that help, completion and a reader's start stay quick.
"""

import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from appliance.errors import CannotRun, MdcError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
TRACEBACK_VARIABLE = "MDC_TRACEBACK"

_SETTINGS = {"help_option_names": ["-h", "--help"]}

appliance_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich", context_settings=_SETTINGS)
mdc_app = typer.Typer(
    name="mdc",
    help="Look into rings and journals of the market data appliance, or play a local exchange.\n\n"
    "Every verb has examples: [bold]mdc VERB --help[/]. "
    "Exit status: 0 good, 1 a check failed, 2 usage or configuration, 3 could not run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=_SETTINGS,
)


def appliance_main() -> None:
    """The console command mdc-appliance."""
    appliance_app(prog_name="mdc-appliance")


def main() -> None:
    """The console command mdc."""
    mdc_app(prog_name="mdc")


def _show_version(wanted: bool) -> None:
    if wanted:
        try:
            version = metadata.version("mdc-appliance")
        except metadata.PackageNotFoundError:
            version = "of a source tree that is not installed"
        typer.echo(f"mdc {version}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")]
Rings = Annotated[
    Path,
    typer.Option(
        "--rings",
        metavar="DIR",
        envvar="MDC_RINGS",
        help="A ring directory, e.g. /run/mdc/binance, or a journal directory, also one copied from another machine.",
    ),
]
RingDirectory = Annotated[
    Path,
    typer.Option("--rings", metavar="DIR", envvar="MDC_RINGS", help="A ring directory, e.g. /run/mdc/binance; a journal has no counters."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def _positive(seconds: float | None) -> float | None:
    if seconds is not None and not 0 < seconds < math.inf:
        raise typer.BadParameter(f"{seconds:g} is not a number of seconds above 0")
    return seconds


def _rate(rate: str | None) -> str | None:
    if rate is not None and rate != "max" and not re.fullmatch(r"[1-9]\d*", rate):
        raise typer.BadParameter(f'{rate!r} is neither a whole number of trades per second above 0 nor "max"')
    return rate


@appliance_app.command()
def run_appliance(
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The configuration, e.g. configs/binance.toml.")],
    check: Annotated[bool, typer.Option("--check", help="Only check the configuration and this machine; change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --check: print the report as JSON.")] = False,
    duration: Annotated[
        float | None, typer.Option("--duration", metavar="SECONDS", callback=_positive, help="Drain and stop after so many seconds.")
    ] = None,
    version: Version = False,
) -> None:
    """Collect every trade of one exchange into rings in memory and a journal on disk.

    Stops on SIGTERM or Ctrl-C, after all that was received is on disk. While the exchange is away it waits and tries again.

    Each key of the configuration can be set by a variable, e.g. MDC_EXCHANGE__WS_URL, or by such a line in a file .env beside it.

    Exit status: 0 good, 1 --check found a failure, 2 usage, configuration, or refused by the exchange for good, 3 could not run.

    [bold]Examples[/]

    mdc-appliance --config configs/demo.toml --duration 20

    mdc-appliance --config configs/binance.toml --check

    MDC_FEED__LEGS=3 mdc-appliance --config configs/binance.toml
    """
    if as_json and not check:
        raise typer.BadParameter("it goes with --check only", param_hint="'--json'")

    def work() -> int:
        # Python forgets a Ctrl-C that comes in the midst of an import. Nothing is open yet; the collector has its own way to end.
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        from appliance import config as configuration

        settings = configuration.load(config)
        if check:
            from appliance import preflight

            checks = preflight.examine(settings)
            print(preflight.as_json(checks) if as_json else f"configuration {config}: good\n{preflight.as_text(checks)}")
            return preflight.exit_code(checks)
        from appliance import collector

        return collector.run(settings, duration)

    # A service cannot be asked to fail again: its traceback goes to the journal at once.
    _leave(work, with_traceback=not check)


@mdc_app.callback()
def mdc(version: Version = False) -> None:
    """Options before the verb."""


@mdc_app.command()
def tail(
    rings: Rings,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="PATTERN", help="Only instruments like this shell pattern, e.g. 'BTC*'. May be repeated."),
    ] = None,
    poll_ms: Annotated[int, typer.Option("--poll-ms", min=1, max=60_000, help="Look for new records this often.")] = 50,
    start: Annotated[
        str, typer.Option("--from", metavar="now|oldest|TIME", help="Where to begin; TIME e.g. 2025-11-08T20:12 (UTC).")
    ] = "now",
    once: Annotated[bool, typer.Option("--once", help="End at the end of the data instead of following it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each record's JSON on a line, gap and status records too.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show gap and status records among the trades.")] = False,
) -> None:
    """Print trades as they come.

    [bold]Examples[/]

    mdc tail --rings /run/mdc/binance --filter 'BTC*'

    mdc tail --rings /var/lib/mdc/binance --from oldest --once --json | wc -l
    """

    def work() -> int:
        from appliance.tools import tail as verb

        return verb.run(rings=rings, filters=filters or [], poll_ms=poll_ms, start=start, once=once, as_json=as_json, verbose=verbose)

    _leave(work)


@mdc_app.command()
def stats(
    rings: RingDirectory,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show them again and again, until Ctrl-C.")] = False,
) -> None:
    """Show each ring's counters: what was committed, flushed, lost and repaired, and how long it took.

    [bold]Examples[/]

    mdc stats --rings /run/mdc/binance --watch

    mdc stats --rings /run/mdc/binance --json
    """

    def work() -> int:
        from appliance.tools import stats as verb

        return verb.run(rings=rings, as_json=as_json, watch=watch)

    _leave(work)


@mdc_app.command()
def verify(rings: Rings, as_json: AsJson = False) -> None:
    """Check every record of rings and journal: checksum, sequence, trade ids without an unrecorded hole, ring against journal.

    Exit status 1 when something is wrong. A hole that has its gap record is shown, and is no failure.

    [bold]Examples[/]

    mdc verify --rings /run/mdc/binance

    mdc verify --rings /mnt/backup/binance --json
    """

    def work() -> int:
        from appliance.tools import verify as verb

        return verb.run(rings=rings, as_json=as_json)

    _leave(work)


@mdc_app.command()
def coverage(
    rings: Rings,
    start: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Trades from this time on, by the exchange's clock (UTC).")
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Trades before this time.")] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", dir_okay=False, help="Write the certificate to this file.")] = None,
    check: Annotated[
        Path | None,
        typer.Option("--check", metavar="CERT", exists=True, dir_okay=False, help="Check that the directory is as this certificate says."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say whether the tape is whole: which trade ids are held, how each came, and what is missing, since when and why.

    Exit status 1 when an id is missing, or a part of the time was not recorded. Ids that the exchange has proven never to have been
    traded are not missing.

    [bold]Examples[/]

    mdc coverage --rings /run/mdc/binance

    mdc coverage --rings /var/lib/mdc/binance --from 2025-11-08 --to 2025-11-09 --out 2025-11-08.json

    mdc coverage --rings /mnt/backup/binance --check 2025-11-08.json
    """
    if check is not None and (start, end, out) != (None, None, None):
        raise typer.BadParameter("the certificate has its own span; --from, --to and --out do not go with it", param_hint="'--check'")

    def work() -> int:
        from appliance.tools import coverage as verb

        return verb.run(rings=rings, start=start, end=end, out=out, check=check, as_json=as_json)

    _leave(work)


@mdc_app.command()
def audit(
    rings: Rings,
    exchange: Annotated[str, typer.Option("--exchange", metavar="NAME", help="Whose trades they are: binance or deribit.")],
    rest_url: Annotated[
        str | None,
        typer.Option(
            "--rest-url", metavar="URL", envvar="MDC_EXCHANGE__REST_URL", help="Ask here instead of at the exchange's own address."
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE", exists=True, dir_okay=False, help="A private authority's certificates, PEM."),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", metavar="N", min=1, help="How many times to pick an instrument and a time.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", help="Go on for ever, with a line after each round of so many samples.")] = False,
    share: Annotated[
        float, typer.Option("--share", metavar="PERCENT", min=0.1, max=50, help="How much of the exchange's request budget to use.")
    ] = 5.0,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="The same seed picks the same samples of the same data.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare samples of what is held with what the exchange says over REST, and publish the rate of errors.

    Exit status 1 when a trade is missing or differs. A trade whose gap is on record counts as missing too.

    [bold]Examples[/]

    mdc audit --exchange binance --rings /run/mdc/binance

    mdc audit --exchange deribit --rings /var/lib/mdc/deribit --samples 500 --json

    mdc audit --exchange binance --rings /run/mdc/binance --follow --share 1
    """

    def work() -> int:
        from appliance.tools import audit as verb

        return verb.run(
            rings=rings, exchange=exchange, rest_url=rest_url, ca_file=ca_file, samples=samples, follow=follow, share=share / 100,
            seed=seed, as_json=as_json,
        )  # fmt: skip

    _leave(work)


@mdc_app.command()
def replay(
    raw: Annotated[
        Path,
        typer.Option("--raw", metavar="DIR", envvar="MDC_RINGS", help="A journal directory, its raw/, or a ring directory."),
    ],
    start: Annotated[
        str, typer.Option("--from", metavar="oldest|TIME", help="Frames received from then on, e.g. 2025-11-08T20:12 (UTC).")
    ] = "oldest",
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Frames received before.")] = None,
    decode: Annotated[bool, typer.Option("--decode", help="Decode them anew and print the trades.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Decode them anew and compare the trades with the journal.")] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="PATTERN", help="With --decode or --compare: only instruments like this. May be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print frames as they were received, with leg and time, from what [bold]raw_hours[/] has kept.

    Exit status 1 when --compare finds a difference: a field, or a trade that only one side has though the other should.

    [bold]Examples[/]

    mdc replay --raw /var/lib/mdc/binance --from 20:10 --to 20:15 --json

    mdc replay --raw /var/lib/mdc/binance --decode --filter 'BTC*' --json

    mdc replay --raw /var/lib/mdc/binance --compare
    """
    if decode and compare:
        raise typer.BadParameter("one of --decode and --compare", param_hint="'--compare'")
    if filters and not (decode or compare):
        raise typer.BadParameter("a frame is not taken apart without --decode or --compare", param_hint="'--filter'")

    def work() -> int:
        from appliance.tools import replay as verb

        return verb.run(raw=raw, start=start, end=end, filters=filters or [], decode=decode, compare=compare, as_json=as_json)

    _leave(work)


@mdc_app.command()
def sim(
    exchange: Annotated[str, typer.Option("--exchange", metavar="NAME", help="Whose dialect to speak: binance or deribit.")] = "binance",
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Listen on this address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Listen on this port; 0 takes a free one.")] = 0,
    capture: Annotated[
        Path | None,
        typer.Option("--capture", metavar="FILE", exists=True, dir_okay=False, help="Send these recorded frames to every connection."),
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(
            "--rate", metavar="N|max", callback=_rate, help="Trades per second over all symbols: 1000. Of a recording, frames: max."
        ),
    ] = None,
    count: Annotated[int | None, typer.Option("--count", min=1, help="End the stream after so many trades.")] = None,
    symbols: Annotated[int, typer.Option("--symbols", min=1, max=100_000, help="Made-up symbols to trade.")] = 500,
    exchange_info: Annotated[
        Path | None,
        typer.Option(
            "--exchange-info", metavar="FILE", exists=True, dir_okay=False, help="Answer discovery with this body, and trade its symbols."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same seed makes the same trades.")] = 1,
    tls: Annotated[
        bool, typer.Option("--tls", help="https and wss, by a throw-away authority whose certificate is named at the start.")
    ] = False,
    fault: Annotated[
        list[str] | None, typer.Option("--fault", metavar="SPEC", help="Misbehave like this. May be repeated; `help` lists them.")
    ] = None,
    start_after: Annotated[
        int, typer.Option("--start-after", metavar="N", min=1, help="Send nothing before so many connections are subscribed.")
    ] = 1,
) -> None:
    """Play an exchange on this machine: REST and websocket on one port, made-up or recorded trades.

    When it is ready it prints one line of JSON with its addresses. Ends on SIGTERM or Ctrl-C.

    [bold]Examples[/]

    mdc sim --port 9001 --symbols 500 --rate 3000

    mdc sim --symbols 400 --rate max --count 10000000

    mdc sim --capture frames.zst --tls

    mdc sim --exchange deribit --port 9002 --symbols 300   (its one login: mdc-demo, mdc-demo-secret)
    """

    def work() -> int:
        from appliance.sim import server

        return server.run(
            exchange=exchange,
            port=port,
            capture=capture,
            rate=rate,
            count=count,
            symbols=symbols,
            exchange_info=exchange_info,
            seed=seed,
            tls=tls,
            fault=fault or [],
            host=host,
            start_after=start_after,
        )

    _leave(work)


def _leave(work: Callable[[], int], with_traceback: bool = False) -> None:
    """Do the work and leave with its exit code, or with that of the error, told on standard error."""
    try:
        code = work()
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would flush once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except BaseException as error:
        code = _tell(error, with_traceback or bool(os.environ.get(TRACEBACK_VARIABLE)))
    raise typer.Exit(code)


def _tell(error: BaseException, with_traceback: bool) -> int:
    """Print what ended the command; the exit code. Of a task group's errors each is told, and the gravest decides."""
    leaves = [_of_the_system(leaf) for leaf in _leaves(error)]
    unexpected = [leaf for leaf in leaves if not isinstance(leaf, MdcError | KeyboardInterrupt | SystemExit)]
    if not unexpected and any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return INTERRUPTED
    codes = [3] if unexpected else []
    for leaf in leaves:
        if isinstance(leaf, MdcError):
            print(f"mdc: error: {leaf}", file=sys.stderr)
            codes.append(leaf.exit_code)
        elif isinstance(leaf, SystemExit):
            codes.append(leaf.code if isinstance(leaf.code, int) else int(leaf.code is not None))
    for leaf in unexpected:
        where = traceback.extract_tb(leaf.__traceback__)[-1]
        print(f"mdc: error: unexpected {type(leaf).__name__}: {leaf} (in {where.filename} line {where.lineno})", file=sys.stderr)
        if with_traceback:
            traceback.print_exception(leaf, file=sys.stderr)
        else:
            print(f"mdc: this is a defect of the program; with {TRACEBACK_VARIABLE}=1 it shows where it comes from", file=sys.stderr)
    return max(codes)


def _of_the_system(error: BaseException) -> BaseException:
    """What the system says of a file is no defect of the program."""
    if isinstance(error, OSError) and error.filename is not None:
        return CannotRun(f"{os.fsdecode(error.filename)}: {error.strerror}")
    return error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
