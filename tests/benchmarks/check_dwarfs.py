"""Draco, Fornax and Leo II: `make check-dwarfs` fits their real stars and writes
docs/results/dwarfs.md, log10 J(0.5 deg) and rho(150 pc) beside published values.

Finished fits are kept in build/check-dwarfs, so the same command goes on where it stopped.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import numpy as np  # noqa: E402
from benchmarks.results import provenance, settled_run  # noqa: E402
from dwarf_tables import real_photometry  # noqa: E402

from bayesdust.catalogs.dwarf import read_stars  # noqa: E402
from bayesdust.catalogs.galaxies import galaxy, published  # noqa: E402
from bayesdust.inference.programs import load  # noqa: E402
from bayesdust.runs import Request  # noqa: E402

FILES = {"draco": "dra", "fornax": "for", "leo_2": "leo2"}
# Fornax once more with its stars' own mass (4.3e7 Msun, de Boer+2012, as in Read+2019)
RUNS = [("draco", {}), ("fornax", {}), ("fornax", {"stellar_mass": 4.3e7}), ("leo_2", {})]
COLUMNS = {
    "ra": "col1",
    "dec": "col2",
    "v_los": "col7",
    "v_los_err": "col8",
    "p_member": "col16",
}
REPORTED = {
    "log10_J[0.5deg]": "log10 J(0.5 deg) [GeV2 cm-5]",
    "log10_rho[0.15kpc]": "log10 rho(150 pc) [Msun/kpc3]",
}


def draws_of(tree, quantity: str) -> np.ndarray:
    """Flat draws of one of the reported quantities."""
    posterior = tree["posterior"]
    if quantity.startswith("log10_J"):
        return posterior["log10_J"].sel(angle=0.5).values.ravel()
    index = posterior["r"].attrs["0.15kpc_index"]
    return np.log10(posterior["rho"].values[..., index].ravel())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    data = Path(os.environ.get("BAYESDUST_DATA", REPOSITORY.parent / "shared" / "data"))
    rows = []
    for name, options in RUNS:
        print(name, options, flush=True)
        photometry = real_photometry(data) if name == "leo_2" else None
        path = data / "dwarfs" / f"{FILES[name]}_justin1_spec.dat"
        stars = read_stars(path, name, columns=COLUMNS, photometry=photometry)
        request = Request(load("dsph_gnfw"), stars, "nuts", options, {"seed": arguments.seed})
        folder = "-".join([name, *options])
        tree, passed = settled_run(request, REPOSITORY / "build" / "check-dwarfs" / folder)
        rows += table_rows(tree, name, passed, options)
        print("\n".join(rows[-8:]), flush=True)
    write(rows)


def table_rows(tree, name: str, passed: bool, options: dict) -> list[str]:
    """One row of ours and, for the plain fit, one a published value, for each reported quantity."""
    rows = []
    values = published(name)
    for quantity, label in REPORTED.items():
        q = np.quantile(draws_of(tree, quantity), [0.025, 0.16, 0.5, 0.84, 0.975])
        gate = "diagnostics pass" if passed else "DIAGNOSTICS FAIL"
        gate = ", ".join([*(f"{k} = {v:.3g}" for k, v in options.items()), gate])
        rows.append(
            f"| {galaxy(name).name} | {label} | **{q[2]:.2f}** | {q[1]:.2f} to {q[3]:.2f} "
            f"| {q[0]:.2f} to {q[4]:.2f} | `dsph_gnfw`, {gate} |"
        )
        for row in values[values["quantity"] == quantity] if not options else ():
            low, high = row["value"] - row["err_minus"], row["value"] + row["err_plus"]
            rows.append(
                f"| | | {row['value']:.2f} | {low:.2f} to {high:.2f} | | {row['reference']} |"
            )
    return rows


def write(rows: list[str]) -> None:
    page = REPOSITORY / "docs" / "results" / "dwarfs.md"
    notes = page.read_text().split("## Why they differ")[1:] if page.exists() else []
    lines = [
        "# Draco, Fornax and Leo II",
        "",
        "Default model and priors, constant anisotropy, membership probabilities of the catalogues, "
        "4 chains of 1,000 draws, no truncation; Leo II's light fitted to its photometric sample.",
        "",
        "| galaxy | quantity | median | 68 % | 95 % | source |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
        provenance("make check-dwarfs"),
    ]
    page.write_text("\n".join(lines) + "\n" + "".join("\n## Why they differ" + n for n in notes))


if __name__ == "__main__":
    main()
